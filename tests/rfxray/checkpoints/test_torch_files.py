"""Files of torch.save, read without torch and without running what they hold."""

import collections
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfxray.checkpoints import inert_pickle, torch_files
from rfxray.errors import DataError
from tests.torch_pickles import Call, Global, Storage, dump, legacy_file, tensor, zip_file

LAYOUTS = {"legacy": legacy_file, "zip": zip_file}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def refused(path, **options) -> str:
    """The one line by which a file is refused."""
    with pytest.raises(DataError) as caught:
        torch_files.read(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


# ---------------------------------------------------------------------------------------------
# What torch wrote


@pytest.mark.parametrize("zipped", [False, True])
def test_every_dtype_and_layout_of_memory_is_read_as_torch_reads_it(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    base = torch.arange(24.0).reshape(4, 6)
    numbers = torch.arange(6)
    kinds = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    state = collections.OrderedDict({kind: numbers.to(getattr(torch, kind)) for kind in kinds})
    state["transposed"], state["part"] = base.T, base[1:, 2:4]
    state["scalar"], state["empty"] = torch.tensor(3.5), torch.zeros(0, 4)
    state["parameter"] = torch.nn.Parameter(base)
    state["bfloat16"] = base.to(torch.bfloat16)
    state._metadata = {"": {"version": 1}}
    file = tmp_path / "weights.pt"
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    found = torch_files.read(file)
    assert found.tensors.keys() == state.keys()
    assert found.left_out == found.classes == ()
    for name, theirs in state.items():
        array = found.tensors[name]
        assert array.dtype.name == str(theirs.dtype).removeprefix("torch."), name
        expected = theirs.detach().double().numpy()
        np.testing.assert_array_equal(array.astype(np.float64), expected, err_msg=name)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_entries_that_are_not_tensors_are_left_out_by_name(tmp_path, zipped, protocol):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    whole = {"model": {"a.weight": torch.ones(2)}, "epoch": 3, "name": "x", "list": [1, 2.5, None]}
    file = tmp_path / "weights.pt"
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(whole, file, **options)
    found = torch_files.read(file)
    assert list(found.tensors) == ["model.a.weight"]
    assert found.left_out == ("epoch", "name", "list")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [False, True])
def test_pickled_module_gives_its_state_dict_without_its_classes(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    module = torch.nn.Sequential(
        collections.OrderedDict(
            features=torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3)),
            classifier=torch.nn.Linear(3, 2, bias=False),
        )
    )
    module.register_buffer("hidden", torch.ones(1), persistent=False)
    module.pathologies = ["Edema", "Mass"]
    file = tmp_path / "module.pt"
    torch.save(module, file, _use_new_zipfile_serialization=zipped)
    assert "class torch.nn.modules" in refused(file)
    found = torch_files.read(file, modules=True)
    assert "torch.nn.modules.container.Sequential" in found.classes
    state = module.state_dict()
    assert found.tensors.keys() == state.keys()
    for name, theirs in state.items():
        np.testing.assert_array_equal(found.tensors[name], theirs.numpy())


# ---------------------------------------------------------------------------------------------
# What an attacker wrote


MARK = "rfxray-test-attacked"  # file in the current folder that an attack would leave

ATTACKS = {
    "os.system": Call(Global("os", "system"), f"touch {MARK}"),
    "posix.system": Call(Global("posix", "system"), f"touch {MARK}"),
    "builtins.eval": Call(Global("builtins", "eval"), f"open({MARK!r}, 'w')"),
    "builtins.exec": Call(Global("builtins", "exec"), f"open({MARK!r}, 'w')"),
    "builtins.open": Call(Global("builtins", "open"), MARK, "w"),
    "subprocess.check_call": Call(Global("subprocess", "check_call"), ["touch", MARK]),
}
MORE = {
    "torch.hub.load": Call(Global("torch.hub", "load"), "x/y", "z"),
    "a call of a result": Call(Call(Global("collections", "OrderedDict")), "x"),
    "in a tensor": tensor(Call(Global("os", "system"), "true"), (2,), (1,)),
    "in a dict": Call(Global("collections", "OrderedDict"), Call(Global("os", "system"), "true")),
}


@pytest.fixture
def nothing_runs(tmp_path, monkeypatch):
    """Fails the test if an attack leaves its mark, or has this process import a module."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    assert not (tmp_path / MARK).exists()
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch", "sub"))}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_work_on_the_unpickler_of_python(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    pickle.loads(dump(ATTACKS[attack]))
    assert (tmp_path / MARK).exists()


@pytest.mark.parametrize("attack", [*ATTACKS, *MORE])
def test_call_of_anything_else_is_refused_and_nothing_runs(tmp_path, layout, nothing_runs, attack):
    value = {"a": {**ATTACKS, **MORE}[attack]}
    refused(layout(tmp_path / "weights.pt", value))
    if attack != "torch.hub.load":  # the name of an object in a module, which stays a name
        refused(layout(tmp_path / "weights.pt", value), modules=True)


def test_call_within_a_module_of_torch_stays_a_name(tmp_path, layout, nothing_runs):
    value = {"a": MORE["torch.hub.load"]}
    line = refused(layout(tmp_path / "weights.pt", value), modules=True)
    assert "no tensors" in line


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02(S'touch /tmp/attacked'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85}\x92.",  # NEWOBJ_EX
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02X\x01\x00\x00\x00a2.",  # DUP
        b"\x80\x02P1\n.",  # PERSID
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.",  # NEWOBJ
    ],
    ids=["INST", "OBJ", "NEWOBJ_EX", "EXT1", "DUP", "PERSID", "NEWOBJ"],
)
def test_operation_that_no_file_of_tensors_has_is_refused(tmp_path, nothing_runs, program):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    refused(tmp_path / "weights.pt")
    (tmp_path / "weights.pt").write_bytes(program)
    refused(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("program", "size"),
    [
        (b"\x80\x02r\xff\xff\xff\x7f.", "memo"),  # LONG_BINPUT with nothing on the stack
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo"),  # an array of 2**31 places in C
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "text"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x3fabc.", "text of 2**62"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "number"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "depth"),
        (b"\x80\x02" + b")" + b"\x85" * 100_000 + b"}1.", "depth of tuples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_huge_sizes_take_no_memory_and_are_refused(tmp_path, program, size):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    refused(tmp_path / "weights.pt")


def numbers(count=6, key="0", **more):
    return Storage(key, np.arange(count, dtype=np.float32), **more)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2**40,), (0,), 0),
        ((2**62, 2**62), (1, 1), 0),
        ((-1,), (1,), 0),
        ((3,), (-1,), 3),
        ((3,), (1,), -1),
        ((3,), (2**63,), 0),
        ((3,), (1, 1), 0),
        ((3.0,), (1,), 0),
        ((1,) * 40, (1,) * 40, 0),
    ],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, layout, shape, strides, offset):
    storage = numbers()
    value = {"a": tensor(storage, shape, strides, offset)}
    refused(layout(tmp_path / "weights.pt", value, [storage]))


@pytest.mark.parametrize("length", [5, 7, 2**40, -1])
def test_storage_of_another_size_is_refused(tmp_path, layout, length):
    storage = numbers(length=length)
    value = {"a": tensor(storage, (1,), (1,))}
    refused(layout(tmp_path / "weights.pt", value, [storage]))


def test_structure_that_refers_to_itself_is_refused(tmp_path, layout):
    endless = {}
    endless["a"] = endless
    assert "deep" in refused(layout(tmp_path / "weights.pt", endless))


def test_billion_names_of_one_tensor_are_refused_at_once(tmp_path):
    storage = numbers()
    value = {"a": tensor(storage, (1,), (1,))}
    for _ in range(40):
        value = {"a": value, "b": value}
    assert "more than 30,000" in refused(zip_file(tmp_path / "weights.pt", value, [storage]))


def test_tuples_as_keys_are_refused(tmp_path):
    # Hashing ((((), ()), ((), ())), …) of 60 levels takes 2**60 steps.
    program = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    assert "key of type tuple" in refused(tmp_path / "weights.pt")


def test_compressed_archive_is_refused_before_it_is_expanded(tmp_path):
    storage = Storage("0", np.zeros(2**20, np.float32))
    value = {"a": tensor(storage, (2**20,), (1,))}
    file = zip_file(tmp_path / "weights.pt", value, [storage], zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(file)


def test_torchscript_archive_is_refused_by_name(tmp_path):
    file = zip_file(tmp_path / "w.pt", {}, more=[("archive/constants.pkl", b"\x80\x02).")])
    assert "TorchScript" in refused(file)


# ---------------------------------------------------------------------------------------------
# Damage


def whole(path, layout):
    storages = [numbers(), numbers(200, "1")]
    value = {
        "a": tensor(storages[0], (2, 3), (3, 1)),
        "b": tensor(storages[1], (200,), (1,)),
    }
    return layout(path, value, storages)


def test_file_of_our_own_writer_is_read(tmp_path, layout):
    found = torch_files.read(whole(tmp_path / "weights.pt", layout)).tensors
    np.testing.assert_array_equal(found["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(found["b"], np.arange(200))


def test_file_cut_at_any_byte_is_refused(tmp_path, layout):
    content = whole(tmp_path / "weights.pt", layout).read_bytes()
    for length in [*range(0, 64), *range(64, len(content), 7), len(content) - 1]:
        (tmp_path / "weights.pt").write_bytes(content[:length])
        refused(tmp_path / "weights.pt")


def refusal_or_nothing(function, *arguments, **options) -> str:
    try:
        function(*arguments, **options)
    except DataError as error:
        return str(error)
    return ""


@settings(max_examples=300)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255), zipped=st.booleans())
def test_changed_byte_is_read_or_refused_in_one_line(tmp_path_factory, at, value, zipped):
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    content = bytearray(whole(path, zip_file if zipped else legacy_file).read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    assert "\n" not in refusal_or_nothing(torch_files.read, path)


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_data_or_refused(program):
    source = io.BytesIO(program)
    said = refusal_or_nothing(inert_pickle.load, source, {}, lambda _: None, modules=True)
    assert "\n" not in said


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02N.", b"PK\x03\x04", b"\x93NUMPY\x01"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    refused(tmp_path / "weights.pt")


def test_missing_file_and_folder_are_refused(tmp_path):
    refused_line = []
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError) as caught:
            torch_files.read(path)
        refused_line.append(str(caught.value))
    assert all("cannot be read: " in line for line in refused_line)
