"""`rfxray evaluate convert`: published weights as safetensors, with a record of both files."""

import errno
import hashlib
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from rfxray.checkpoints import tensor_files
from rfxray.commands import evaluate
from rfxray.errors import DataError
from tests import full_disk


def sha256(file) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def convert(source, out, capsys) -> tuple[dict, str]:
    evaluate.main(["convert", str(source), "--out", str(out)])
    return json.loads((out.parent / (out.name + ".json")).read_text()), capsys.readouterr().out


def test_state_dict_of_torch_is_converted_with_a_record(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    state = {"state_dict": {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}, "at": 7}
    source, out = tmp_path / "weights.pth", tmp_path / "weights.safetensors"
    torch.save(state, source)
    record, said = convert(source, out, capsys)
    arrays, text = tensor_files.read(out)
    assert list(arrays) == ["state_dict.n", "state_dict.w"]
    np.testing.assert_array_equal(arrays["state_dict.w"], [[0, 3], [1, 4], [2, 5]])
    assert arrays["state_dict.n"].shape == ()
    assert record["source_sha256"] == sha256(source)
    assert record["source_sha256"] == json.loads(text["rfxray"])["source_sha256"]
    assert record["sha256"] == sha256(out)
    assert record["loader"].startswith("state dict")
    assert (record["tensors"], record["values"], record["left_out"]) == (2, 7, ["at"])
    assert "left out: 1 (at)" in said
    assert said.splitlines()[-1] == f"wrote {out} and {out.name}.json"


@pytest.mark.filterwarnings("ignore")
def test_pickled_module_is_converted_without_its_classes(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    torch.save(torch.nn.Linear(2, 3), tmp_path / "module.pt")
    record, said = convert(tmp_path / "module.pt", tmp_path / "module.safetensors", capsys)
    assert record["loader"].startswith("pickled module")
    assert record["classes"] == ["torch.nn.modules.linear.Linear"]
    assert "not imported: 1 (torch.nn.modules.linear.Linear)" in said


def test_safetensors_file_is_copied(tmp_path, capsys):
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    source.write_bytes(safetensors.numpy.save({"w": np.ones(3, np.float16)}, {"format": "pt"}))
    record, _ = convert(source, out, capsys)
    assert out.read_bytes() == source.read_bytes()
    assert record["source_sha256"] == record["sha256"]


def test_same_weights_give_the_same_bytes_again(tmp_path, capsys):
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    source.write_bytes(safetensors.numpy.save({"w": np.ones(3, np.float32)}))
    first = convert(source, out, capsys)[0]
    assert convert(source, out, capsys)[0] == first


def test_disk_that_refuses_leaves_no_result_without_its_record(tmp_path, capsys, refusal):
    source, out = tmp_path / "a.safetensors", tmp_path / "out" / "b.safetensors"
    source.write_bytes(safetensors.numpy.save({"w": np.ones(3, np.float32)}))
    out.parent.mkdir()
    for first in range(4):  # two files are opened and named
        with full_disk.refusing(out.parent, first, errno.ENOSPC):
            code, line = refusal(evaluate.main, ["convert", source, "--out", out])
        assert code == 75
        assert "check free space" in line
        there = [path.name for path in out.parent.iterdir()]
        assert there == [] or (first == 3 and there == [out.name])
    convert(source, out, capsys)


@pytest.mark.parametrize(
    ("name", "out", "code", "words"),
    [
        ("absent.pt", "b.safetensors", 65, "cannot be read"),
        ("attack.pt", "b.safetensors", 65, "a call of os.system"),
        ("text.pt", "b.safetensors", 65, "cannot be read as tensors of torch"),
        ("text.safetensors", "b.safetensors", 65, "cannot be read as safetensors"),
        ("good.safetensors", "b.pt", 78, "name it so"),
        ("good.safetensors", "no/folder/b.safetensors", 78, "there is no folder"),
        ("good.safetensors", "other.safetensors", 78, "has another content"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(
    tmp_path, refusal, name, out, code, words
):
    class Attack:
        def __reduce__(self):
            import os

            return os.system, ("touch attacked",)

    with zipfile.ZipFile(tmp_path / "attack.pt", "w") as archive:
        archive.writestr(
            "archive/data.pkl", pickle.dumps({"a": Attack()}, 2).replace(b"posix", b"os")
        )
    (tmp_path / "text.pt").write_text("text")
    (tmp_path / "text.safetensors").write_text("text")
    good = safetensors.numpy.save({"w": np.ones(3, np.float32)})
    (tmp_path / "good.safetensors").write_bytes(good)
    (tmp_path / "other.safetensors").write_text("something else")
    before = sorted(tmp_path.iterdir())
    found, line = refusal(evaluate.main, ["convert", tmp_path / name, "--out", tmp_path / out])
    assert found == code
    assert line.startswith("rfxray.evaluate.convert: error: ")
    assert words in line
    assert sorted(tmp_path.iterdir()) == before


def test_truncated_and_foreign_safetensors_are_refused(tmp_path):
    content = tensor_files.encode({"w": np.ones(300, np.float32)}, ("a", "b"))
    for length in (0, 4, 20, len(content) - 1):
        (tmp_path / "w").write_bytes(content[:length])
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            tensor_files.read(tmp_path / "w")


def test_bytes_of_arrays_do_not_depend_on_their_memory(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = tensor_files.encode({"a": array, "b": array[0]}, ("x", "y"))
    other = tensor_files.encode({"b": array[0], "a": np.asfortranarray(array)}, ("x", "y"))
    assert one == other
