"""The phantom model that comes with the package."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from data_prep import phantom
from rfxray import edit, sample, sampling
from rfxray.attributes.vocabulary import all_known
from rfxray.checkpoints import exported
from rfxray.evaluate import classifier
from rfxray.outputs.files import file_sha256
from rfxray.sampling.pretrained import PACKAGED
from tests.conftest import keep_signal_handlers

# Of the files that `python -m benchmarks.packaged` wrote; whoever makes them again changes these.
SHA256 = {
    "config.json": "9da1fa47b672655d26c131a16c0ddd32e711be6ee322569a9ae0ce6ba285bc56",
    "export.json": "aaa4941400ebd2b8498f3ec90ee864e161bb11403b1af17d022b52daf93ce115",
    "model.safetensors": "6d34ff26db577de886f3fe06e5880da581f3c0e1c0cb4d5ec70539f8a3a43b97",
}
FAST = ["--steps", "2", "--solver", "euler"]


@pytest.fixture(scope="module")
def model():
    return sampling.load()


def run(main, *words):
    with keep_signal_handlers():
        main([str(word) for word in words])


def test_packaged_files_are_those_that_were_made():
    assert {file.name: file_sha256(file) for file in PACKAGED.iterdir()} == SHA256
    assert sum(file.stat().st_size for file in PACKAGED.iterdir()) < 3e6


def test_packaged_model_says_that_it_has_seen_phantoms_only():
    facts = exported.read(PACKAGED)[1]
    assert facts.synthetic_only
    assert facts.trained_on == ("phantom",)
    assert facts.licence == "Apache-2.0"
    assert (facts.dtype, facts.step, facts.ema) == ("bfloat16", 3800, 0.05)
    assert facts.parameters == 1_175_296


def test_names_and_shapes_of_the_tensors_are_those_of_the_documents():
    """Code in other languages reads them by name: docs/sampling.md, Exports."""
    d, layers, heads, k, f, r, pixels = 128, 4, 2, 64, 352, 32, 64
    blocks = {
        "qkv": (d, 3, heads, k),
        "attention_out": (heads, k, d),
        "query_scale": (k,),
        "key_scale": (k,),
        "gate": (d, f),
        "up": (d, f),
        "down": (f, d),
        "modulation_in": (d, r),
        "modulation_out": (r, 6, d),
        "modulation_bias": (6, d),
    }
    rest = {
        "embed": (pixels, d),
        "head": (d, pixels),
        "modulation": (d, 6, d),
        "final_modulation": (d, 2, d),
        "condition.table": (66, d),
        "condition.time.inner": (256, d),
        "condition.time.outer": (d, d),
        "condition.age.inner": (256, d),
        "condition.age.outer": (d, d),
    }
    expected = {f"model.blocks.{name}": (layers, *shape) for name, shape in blocks.items()}
    expected |= {f"model.{name}": shape for name, shape in rest.items()}
    with safe_open(PACKAGED / "model.safetensors", framework="np") as stored:
        names = list(stored.keys())
        assert {name: tuple(stored.get_slice(name).get_shape()) for name in names} == expected


def test_model_without_a_workdir_is_the_packaged_one(model):
    facts = exported.read(PACKAGED)[1]
    assert model.shape == (64, 64, 1)
    assert model.source == {
        "checkpoint": "the phantom model of rfxray",
        "step": 3800,
        "ema": 0.05,
        "weights": facts.weights,
    }
    assert model.flow_loss_limit == facts.flow_loss_limit
    assert 0.1 < facts.flow_loss_limit < 0.2


def test_packaged_oracle_reads_what_was_requested_of_the_packaged_model(model):
    indices = np.arange(32)
    requested = all_known(phantom.draw_attributes(5, indices))
    settings = sampling.Settings(steps=8, guidance=3.0, batch_size=32)
    drawn = sampling.generate(model, requested, settings=settings)
    figures = classifier.scores(classifier.load(), drawn.images, requested)
    assert figures["view"] == 1
    assert figures["sex"] > 0.9
    assert figures["cardiomegaly"] > 0.85
    assert figures["age"] < 10


def test_command_without_a_checkpoint_draws_from_the_packaged_model(tmp_path, capsys):
    out = tmp_path / "out"
    run(sample.main, "--out", out, "--n", 2, *FAST)
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("rfxray.sample: the phantom model of rfxray at step 3800, EMA 0.05")
    assert "only procedural phantoms" in said
    index = json.loads((out / "samples.json").read_text())
    assert index["plan"]["checkpoint"] == "the phantom model of rfxray"
    with Image.open(out / "sample_00000.png") as picture:
        assert json.loads(picture.text["rfxray"])["synthetic"] is True
        assert "synthetic" in picture.text["Description"]
    words = shlex.split(index["command"])[3:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    run(sample.main, *words)
    for name in ("sample_00000.png", "sample_00001.png"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_edit_without_a_checkpoint_uses_the_packaged_model(model, tmp_path, capsys):
    attributes = phantom.draw_attributes(6, np.arange(1))
    image = phantom.draw_images(attributes, 6, np.arange(1), 64)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    flags = ["--image", tmp_path / "a.png", "--set", "cardiomegaly=present", "--method", "flow"]
    run(edit.main, *flags, "--steps", 2, "--out", tmp_path / "out")
    assert "the phantom model of rfxray" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "edit.json").read_text())
    assert record["weights"] == model.source["weights"]
    assert record["flow_loss_limit"] == model.flow_loss_limit
