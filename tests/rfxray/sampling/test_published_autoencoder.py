"""Published weights of an autoencoder become a folder like that of a run."""

import dataclasses
import functools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rfxray import sampling
from rfxray.checkpoints import exported, tensor_files
from rfxray.commands import export
from rfxray.errors import ConfigError
from rfxray.networks import torch_weights, vae, vae_weights
from rfxray.outputs.files import file_sha256
from rfxray.sampling.autoencoder import open_autoencoder
from tests import conftest
from tests.rfxray.networks.parity import draw
from tests.rfxray.networks.vae_layouts import LAYOUTS, config, publish

FLUX2, SD = LAYOUTS["flux2"], LAYOUTS["sd"]
LICENCE = ["--licence", "Apache-2.0"]


def run(*words):
    with conftest.keep_signal_handlers():
        export.main([str(word) for word in words])


def folder_of(network, path, **about):
    """A folder as diffusers publishes it."""
    path.mkdir()
    publish(network, draw(vae.shapes(network), 0.05), path)
    (path / "config.json").write_text(json.dumps(config(network) | about))
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder of the tiny FLUX.2 layout. Do not write."""
    return folder_of(FLUX2, tmp_path_factory.mktemp("published") / "vae", scaling_factor=0.5)


def test_the_folder_is_opened_with_the_published_tensors(published, tmp_path, capsys):
    run("--weights", published, "--out", tmp_path / "out", *LICENCE)
    printed = capsys.readouterr().out
    assert "autoencoder of factor 4 with 128 channels of latents, widths 8, 16" in printed
    assert "licence Apache-2.0" in printed
    found, facts = open_autoencoder(tmp_path / "out"), exported.read(tmp_path / "out")[1]
    assert found.weights == facts.weights
    assert facts.licence == "Apache-2.0"
    file = published / "diffusion_pytorch_model.safetensors"
    assert facts.published == {"sha256": file_sha256(file), "scaling_factor": 0.5}
    assert facts.parameters == sum(p.size for p in found.params.values())
    tensors = tensor_files.read(file)[0]
    read = torch_weights.convert(tensors, vae.shapes(FLUX2), "this one")
    for name, value in read.items():
        np.testing.assert_array_equal(found.params[name], value, err_msg=name)
    latents = np.random.default_rng(0).normal(size=(1, 4, 4, 128)).astype(np.float32)
    whole = jax.jit(functools.partial(vae.decode, FLUX2))(read, latents)
    np.testing.assert_allclose(found.decode(latents), whole.mean(-1, keepdims=True), atol=1e-6)


def test_an_adapter_is_merged_and_named(published, tmp_path, refusal):
    layout = torch_weights.laid_out(vae.shapes(FLUX2))
    folder = tmp_path / "adapter"
    folder.mkdir()
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["conv_out"]}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    (of, to) = layout["decoder.conv_out.weight"][2:]
    drawn = {"lora_A": (2, of, 3, 3), "lora_B": (to, 2, 1, 1)}
    named = {f"base_model.model.decoder.conv_out.{n}.weight": s for n, s in drawn.items()}
    save_file(draw(named, 0.5), folder / "adapter_model.safetensors")
    flags = ["--weights", published, "--adapter", folder, *LICENCE]
    run(*flags, "--out", tmp_path / "merged")
    run("--weights", published, *LICENCE, "--out", tmp_path / "plain")
    merged, plain = (open_autoencoder(tmp_path / name) for name in ("merged", "plain"))
    differ = [n for n in plain.params if not np.array_equal(plain.params[n], merged.params[n])]
    assert differ == ["decoder.conv_out.weight"]
    facts = exported.read(tmp_path / "merged")[1]
    assert facts.published["adapter_sha256"] == file_sha256(folder / "adapter_model.safetensors")
    assert merged.weights != plain.weights
    # As it was drawn: B is zero.
    zero = {n: np.zeros(s, np.float32) for n, s in named.items()}
    save_file(zero, folder / "adapter_model.safetensors")
    code, line = refusal(export.main, [*flags, "--out", tmp_path / "idle"])
    assert code == 65
    assert "adapter: the adapter changes no parameter" in line
    (folder / "adapter_config.json").unlink()
    code, line = refusal(export.main, [*flags, "--out", tmp_path / "idle"])
    assert code == 78
    assert "no adapter_config.json" in line


def test_nothing_of_the_user_is_in_the_folder_and_its_bytes_repeat(published, tmp_path):
    elsewhere = shutil.copytree(published, tmp_path / "secret")
    run("--weights", published, "--out", tmp_path / "one", *LICENCE)
    run("--weights", elsewhere, "--out", tmp_path / "two", *LICENCE)
    for name in (exported.MODEL, exported.CONFIG, exported.MANIFEST):
        content = (tmp_path / "two" / name).read_bytes()
        assert content == (tmp_path / "one" / name).read_bytes()
        assert b"secret" not in content
        assert str(tmp_path).encode() not in content


def test_a_file_without_a_config_is_enough_at_published_groups(tmp_path, capsys):
    network = dataclasses.replace(SD, width=32, groups=32, size=vae_weights.SIZE)
    tensors = draw(vae.shapes(network), 0.05)
    beside = {"loss.logvar": np.zeros((), np.float32), "model_ema.decay": np.float32(0.9)}
    file = tmp_path / "vae.safetensors"
    save_file(tensors | {n: np.asarray(t) for n, t in beside.items()}, file)
    run("--weights", file, "--out", tmp_path / "out", *LICENCE, "--dtype", "bfloat16")
    assert "left out 2 tensors (loss.logvar, model_ema.decay)" in capsys.readouterr().out
    tree, facts = exported.read(tmp_path / "out")
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in tree["model"].items()} == {
        "kind": "vae",
        "remat": "none",
        **dataclasses.asdict(network),
    }
    assert facts.published == {"sha256": file_sha256(file)}
    assert facts.weights != facts.source_weights
    size = (tmp_path / "out" / exported.MODEL).stat().st_size
    assert 2 * facts.parameters < size < 2 * facts.parameters + 100_000


def test_the_weights_are_identified_by_content(published, tmp_path):
    run("--weights", published, "--out", tmp_path / "same", *LICENCE)
    one = exported.read(tmp_path / "same")[1]
    other = folder_of(FLUX2, tmp_path / "other", scaling_factor=0.7)
    run("--weights", other, "--out", tmp_path / "again", *LICENCE)
    assert exported.read(tmp_path / "again")[1].weights == one.weights
    publish(FLUX2, draw(vae.shapes(FLUX2), 0.05, seed=1), other)
    run("--weights", other, "--out", tmp_path / "differs", *LICENCE)
    assert exported.read(tmp_path / "differs")[1].weights != one.weights


def test_an_export_is_not_exported_again(published, tmp_path, refusal):
    run("--weights", published, "--out", tmp_path / "out", *LICENCE)
    for path in (tmp_path / "out", tmp_path / "out" / exported.MODEL):
        words = ["--weights", str(path), "--out", str(tmp_path / "again"), *LICENCE]
        code, line = refusal(export.main, words)
        assert code == 78
        assert "is an export of rfxray already" in line


def test_an_autoencoder_is_no_sampler(published, tmp_path):
    run("--weights", published, "--out", tmp_path / "out", *LICENCE)
    with pytest.raises(ConfigError, match="learns no velocity"):
        sampling.load(tmp_path / "out")


# ---------------------------------------------------------------------------------------------
# What is refused


def truncated(folder):
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def of_numpy(folder):
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as file:
        np.savez(file, mean=np.zeros(3))


def pickled(folder):
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))


def lacking(folder):
    tensors = draw(vae.shapes(FLUX2), 0.05)
    tensors.pop("decoder.conv_out.bias")
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def in_eight_bits(folder):
    place = {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}
    header = json.dumps({"decoder.conv_in.bias": place}).encode()
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def configured(**about):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | about))

    return change


def halved(folder):
    (folder / "config.json").write_text('{"_class_name": "Auto')


def nested(folder):
    (folder / "config.json").write_text("[" * 100_000)


def emptied(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()


def doubled(folder):
    file = folder / "diffusion_pytorch_model.safetensors"
    shutil.copy(file, folder / "diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (truncated, 65, "cannot be read as safetensors"),
        (of_numpy, 65, "is an archive of NumPy and not of safetensors; write its tensors with"),
        (pickled, 65, "is a pickle of torch, which can run code; turn it into tensors first"),
        (lacking, 65, "1 of 126 tensors are missing (first: decoder.conv_out.bias)"),
        (configured(_class_name="AutoencoderTiny"), 65, "_class_name (got 'AutoencoderTiny')"),
        (configured(latent_channels=16), 65, "latent_channels=16, but the tensors are of 32"),
        (configured(act_fn="relu"), 65, "has act_fn='relu'"),
        (configured(norm_num_groups="2"), 65, "a whole number as norm_num_groups (got '2')"),
        (configured(norm_num_groups=True), 65, "a whole number as norm_num_groups (got True)"),
        (configured(scaling_factor="0.2"), 65, "a finite number as scaling_factor (got '0.2')"),
        (configured(scaling_factor=10**400), 65, "a finite number as scaling_factor"),
        (configured(shift_factor=math.nan), 65, "a finite number as shift_factor (got nan)"),
        (in_eight_bits, 65, "safetensors (decoder.conv_in.bias is F8_E4M3; store it as float32"),
        (configured(norm_num_groups=3), 65, "not the weights of an autoencoder with 3 groups"),
        (halved, 65, "config.json cannot be read as JSON"),
        (nested, 65, "config.json cannot be read as JSON (it is nested too deeply)"),
        (emptied, 78, "must hold one safetensors file (there: none)"),
        (doubled, 78, "diffusion_pytorch_model.fp16.safetensors, diffusion_pytorch_model.saf"),
    ],
)
def test_wrong_folders_are_one_line(change, code, words, published, tmp_path, refusal):
    folder = shutil.copytree(published, tmp_path / "vae")
    change(folder)
    found = refusal(export.main, ["--weights", folder, "--out", tmp_path / "out", *LICENCE])
    assert found[0] == code
    assert words in found[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--weights needs --licence"),
        (["--licence", " "], "--weights needs --licence"),
        ([*LICENCE, "--ema", "0.05"], "--ema is of a run"),
        ([*LICENCE, "--step", "0"], "--step is of a run"),
        ([*LICENCE, "--dtype", "float16"], "no --dtype 'float16'"),
        ([*LICENCE, "--weights", "nowhere.safetensors"], "there is no"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, words, published, tmp_path, refusal):
    argv = ["--weights", published, "--out", tmp_path / "out", *flags]
    code, line = refusal(export.main, argv)
    assert code == 78
    assert words in line
