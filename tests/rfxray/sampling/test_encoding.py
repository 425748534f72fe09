"""Data sets of latents: what `rfxray encode` stores, and what it refuses."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from rfxray.commands import encode as command
from rfxray.data import manifest, writing
from rfxray.data.dataset import Records, open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import lock
from rfxray.sampling import encoding
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.sampling.encoding import EncodeRequest


def encoded(data, vae, out, **changes):
    request = EncodeRequest(data, vae, out, batch_size=12, shard_examples=16)
    return encoding.encode(
        dataclasses.replace(request, **changes), lambda total, done: lambda: None
    )


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "plan.json")
    }


def test_latents_are_the_means_of_the_posterior(tiny_data, tiny_vae, tiny_latents):
    vae = open_autoencoder(tiny_vae)
    images, latents = open_dataset(tiny_data), open_dataset(tiny_latents, latents=True)
    assert latents.shape == vae.latent_shape(32) == (8, 8, 2)
    assert latents.examples == images.examples
    for split in images.examples:
        pixels, cells = Records(images, split), Records(latents, split)
        for number in (0, 13, len(pixels) - 1):
            given, found = pixels[number], cells[number]
            for name in given.keys() - {"image"}:
                np.testing.assert_array_equal(found[name], given[name])
            mean, _ = vae.encode(to_float(given["image"])[None, ..., None])
            np.testing.assert_allclose(found["latent"], mean[0], rtol=2e-3, atol=2e-3)


def test_image_too_large_for_the_memory_goes_in_tiles(tiny_vae, monkeypatch):
    """And batches are as large as the memory."""
    vae = open_autoencoder(tiny_vae)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    found = [*vae.encode(images), vae.decode(vae.encode(images)[0])]
    widest = max(*vae.shape.widths[:2], *vae.shape.decoder_widths[:2])
    one = 4 * 32 * 32 * widest * 4  # four maps of float32
    for memory in (one * 4, one * 4 - 1):
        monkeypatch.setattr("rfxray.sampling.autoencoder._memory", lambda mesh, m=memory: m)
        assert vae._at_once(32, 32) == memory // (one * 4)
        again = [*vae.encode(images), vae.decode(found[0])]
        for value, same in zip(found, again, strict=True):
            np.testing.assert_allclose(value, same, atol=1e-5)


def parts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of the fields of a protobuf message that holds bytes only."""

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = message[at]
            at, found, shift = at + 1, found | (byte & 127) << shift, shift + 7
            if byte < 128:
                return found

    at = 0
    while at < len(message):
        tag = number()
        assert tag & 7 == 2  # of a length, and so many bytes
        size = number()
        yield tag >> 3, message[at : at + size]
        at += size


def plain_latents(folder: Path, split: str) -> np.ndarray:
    """The latents of a split, with nothing of rfxray: files, protobuf, NumPy."""
    found = []
    for file in sorted(folder.glob(f"*-{split}.array_record*")):
        records = ArrayRecordReader(str(file))
        for example in records.read_all():
            ((_, features),) = parts(example)
            for _, entry in parts(features):
                (_, name), (_, feature) = parts(entry)
                if name == b"latent":
                    ((_, values),) = parts(feature)
                    ((_, content),) = parts(values)
                    found.append(np.frombuffer(content, "<f2").reshape(8, 8, 2))
        records.close()
    return np.stack(found).astype(np.float64)


def test_statistics_are_those_of_a_plain_reader(tiny_latents):
    dataset = open_dataset(tiny_latents, latents=True)
    cells = plain_latents(tiny_latents, "train")
    assert len(cells) == dataset.examples["train"] == 50
    found = json.loads((tiny_latents / "manifest.json").read_text())["latents"]["statistics"]
    np.testing.assert_allclose(found["mean"], cells.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found["std"], cells.std((0, 1, 2)), rtol=1e-12)
    assert dataset.latents.statistics.mean == tuple(found["mean"])


def test_latents_that_were_held_out_are_about_normal(tiny_latents):
    latents = open_dataset(tiny_latents, latents=True)
    for split, most in (("train", 1e-3), ("validation", 0.1)):
        records = Records(latents, split)
        cells = np.stack([records[n]["latent"] for n in range(len(records))])
        normalised = latents.latents.statistics.normalised(cells).astype(np.float64)
        assert np.abs(normalised.mean((0, 1, 2))).max() < most
        np.testing.assert_allclose(normalised.std((0, 1, 2)), 1, atol=max(2 * most, 0.01))


def test_manifest_names_the_autoencoder_and_the_source(tiny_data, tiny_vae, tiny_latents):
    about = open_dataset(tiny_latents, latents=True).latents
    assert about.vae == open_autoencoder(tiny_vae).weights
    assert about.source == open_dataset(tiny_data).fingerprint
    assert open_autoencoder(tiny_latents / "vae").weights == about.vae
    text = (tiny_latents / "manifest.json").read_text()
    assert str(tiny_vae) not in text
    assert str(tiny_data) not in text


def test_tfds_opens_it(tiny_latents):
    tfds = pytest.importorskip("tensorflow_datasets")
    source = tfds.builder_from_directory(tiny_latents).as_data_source("validation")
    mine = Records(open_dataset(tiny_latents, latents=True), "validation")
    np.testing.assert_array_equal(source[3]["latent"], mine[3]["latent"])
    assert source[3]["latent"].dtype == np.float16


def test_log_variance_is_stored_on_request(tiny_data, tiny_vae, tmp_path):
    encoded(tiny_data, tiny_vae, tmp_path / "both", log_variance=True)
    dataset = open_dataset(tmp_path / "both", latents=True)
    assert dataset.latents.log_variance
    image = Records(open_dataset(tiny_data), "train")[5]["image"]
    _, expected = open_autoencoder(tiny_vae).encode(to_float(image)[None, ..., None])
    found = Records(dataset, "train")[5]["log_variance"]
    np.testing.assert_allclose(found, expected[0], rtol=2e-3, atol=2e-3)


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


def test_kill_at_any_rename_or_removal_continues_to_the_same_bytes(
    tiny_data, tiny_vae, tiny_latents, tmp_path, monkeypatch
):
    """Each start has one effect on the disk, or two, and dies at the next: before the first shard,
    between shards, when they get their names, at the autoencoder's copy, after the manifest."""
    out, effects = tmp_path / "out", {"replace": os.replace, "rmtree": shutil.rmtree}
    main, left = threading.current_thread(), iter(())

    def dying(name):
        def effect(*given, **how):
            place = Path(given[-1])
            here = threading.current_thread() is main and place.is_relative_to(out)
            acts = Path(given[0]).exists() and place.name != lock.NAME
            if here and acts and next(left, None) is None:
                raise Killed
            return effects[name](*given, **how)

        return effect

    for name, module in (("replace", os), ("rmtree", shutil)):
        monkeypatch.setattr(module, name, dying(name))
    for deaths in range(100):
        left = iter(range(1 + deaths % 2))  # one removes the copy that was begun before
        try:
            encoded(tiny_data, tiny_vae, out)
            break
        except Killed:
            pass
    # plan, 5 × (shard, fragment), dropped.csv, 5 final names, the autoencoder, the manifest, …
    assert deaths >= 13
    assert files_of(out) == files_of(tiny_latents)
    assert not (out / "partial").exists()
    left = iter(())
    encoded(tiny_data, tiny_vae, out)  # finished: nothing is done


def test_another_request_is_refused(tiny_data, tiny_vae, other_data, make_vae, tmp_path):
    encoded(tiny_data, tiny_vae, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another plan: options\.source_fingerprint is"):
        encoded(other_data, tiny_vae, tmp_path / "out")
    other = make_vae(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match=r"holds a data set of another plan: options\.vae"):
        encoded(tiny_data, other, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"options\.log_variance is False there and True here"):
        encoded(tiny_data, tiny_vae, tmp_path / "out", log_variance=True)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("plan.json", "[]", "plan.json is damaged: it holds no object; delete the folder"),
        ("partial/train-00000.json", "{}", "it does not say examples; delete the folder"),
        ("partial/train-00000.json", "3", "train-00000.json is damaged: it holds no object"),
    ],
)
def test_damaged_notes_of_a_begun_folder_are_refused(
    tiny_data, tiny_vae, tiny_latents, tmp_path, name, content, line
):
    (tmp_path / "out" / "partial").mkdir(parents=True)
    shutil.copy(tiny_latents / "plan.json", tmp_path / "out")
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(line)):
        encoded(tiny_data, tiny_vae, tmp_path / "out")


def test_batch_is_no_larger_than_a_shard(tiny_data, tiny_vae, tiny_latents, tmp_path):
    """Or a typing error takes all memory of the machine."""
    encoded(tiny_data, tiny_vae, tmp_path / "out", batch_size=10**30)
    found, expected = (latents_of(folder)[1] for folder in (tmp_path / "out", tiny_latents))
    for split, values in expected.items():
        np.testing.assert_allclose(found[split], values, rtol=2e-3, atol=2e-3)


def test_folder_that_another_process_encodes_into_is_refused(tiny_data, tiny_vae, tmp_path):
    with (
        writing.claimed(tmp_path / "out"),
        pytest.raises(ConfigError, match=r"another process is writing .*; wait for it"),
    ):
        encoded(tiny_data, tiny_vae, tmp_path / "out")
    encoded(tiny_data, tiny_vae, tmp_path / "out")


def test_side_that_the_factor_does_not_divide_is_refused_before_a_file(
    tiny_data, make_vae, tmp_path
):
    """Never rounded."""
    vae = make_vae(tmp_path / "vae")
    for size, line in ((30, "factor 4 (got 30 × 30)"), (33, "factor 4 (got 33 × 33)")):
        with pytest.raises(ConfigError) as caught:
            open_autoencoder(vae).latent_shape(size)
        assert line in str(caught.value)
    deep = make_vae(tmp_path / "deep", multipliers=(1,) * 7, width=4, size=64)
    with pytest.raises(ConfigError, match=r"autoencoder's factor 64 \(got 32 × 32\)"):
        encoded(tiny_data, deep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_encode_is_refused(tiny_data, tiny_vae, tiny_latents, make_vae, tmp_path):
    with pytest.raises(ConfigError, match="not an export of an autoencoder; make one"):
        encoded(tiny_data, tmp_path, tmp_path / "out")
    radit = make_vae(tmp_path / "masked", kind="masked_vit")
    with pytest.raises(ConfigError, match="an export of a masked_vit network"):
        encoded(tiny_data, radit, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds latents, and images are needed"):
        encoded(tiny_latents, tiny_vae, tmp_path / "out")
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_vae, damaged)
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-7] ^= 1
    (damaged / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"model\.safetensors is not what was written"):
        encoded(tiny_data, damaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_latents_that_are_not_finite_are_refused(tiny_data, tiny_vae, tmp_path, monkeypatch):
    from rfxray.sampling.autoencoder import Autoencoder

    def overflowing(self, images):
        mean = jnp.full((len(images), 8, 8, 2), 1e6)
        return mean, mean

    monkeypatch.setattr(Autoencoder, "encode", overflowing)
    with pytest.raises(DataError, match="made a record that is not valid: its latent is 8 × 8 × 2"):
        encoded(tiny_data, tiny_vae, tmp_path / "out")


def test_command_ends_with_what_it_made(tiny_data, tiny_vae, tmp_path, capsys, refusal):
    out = tmp_path / "out"
    words = ["--data", str(tiny_data), "--vae", str(tiny_vae), "--out", str(out)]
    command.main(words)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"rfxray.encode: {manifest.summary(manifest.read_manifest(out), out)}"
    code, line = refusal(command.main, [*words[:-1], str(tmp_path / "b"), "--batch-size", "0"])
    assert (code, "--batch-size must be at least 1" in line) == (78, True)
    plan = json.loads((out / "plan.json").read_text())
    assert plan["options"]["source_fingerprint"] == open_dataset(tiny_data).fingerprint


def latents_of(folder):
    dataset = open_dataset(folder, latents=True)
    return dataset, {
        split: np.stack(
            [found["latent"] for found in map(Records(dataset, split).__getitem__, range(n))]
        )
        for split, n in dataset.examples.items()
    }


@pytest.mark.drill
def test_two_hosts_and_eight_devices_encode_what_one_does(
    tiny_data, tiny_vae, tiny_latents, end_of_hosts, run_module, tmp_path
):
    words = ["--data", str(tiny_data), "--vae", str(tiny_vae), "--shard-examples", "16"]
    two, eight = tmp_path / "two", tmp_path / "eight"
    each = [*words, "--batch-size", "12", "--out", str(two)]
    codes, lines = end_of_hosts([each, each], command="rfxray.commands.encode")
    assert codes == [0, 0], lines
    done = run_module("rfxray", "encode", *words, "--out", str(eight), devices=8)
    assert done.returncode == 0, done.stderr
    one, expected = latents_of(tiny_latents)
    for folder in (two, eight):
        found, latents = latents_of(folder)
        assert found.examples == one.examples
        assert found.latents.vae == one.latents.vae
        for split, values in expected.items():
            np.testing.assert_allclose(latents[split], values, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(
            found.latents.statistics.mean, one.latents.statistics.mean, atol=1e-5
        )


@pytest.mark.drill
def test_host_that_was_asked_for_something_else_is_refused(
    tiny_data, tiny_vae, end_of_hosts, tmp_path
):
    words = ["--data", str(tiny_data), "--vae", str(tiny_vae), "--out", str(tmp_path / "out")]
    codes, _ = end_of_hosts([words, [*words, "--log-variance"]], command="rfxray.commands.encode")
    assert codes == [78, 78]


@pytest.mark.drill
@pytest.mark.parametrize("after", ["the first has begun", "at once"])
def test_of_two_commands_on_one_folder_one_encodes(
    tiny_data, tiny_vae, tiny_latents, environment, tmp_path, after
):
    out = tmp_path / "out"
    words = ["--data", tiny_data, "--vae", tiny_vae, "--out", out, "--shard-examples", "16"]
    words = [sys.executable, "-m", "rfxray", "encode", *map(str, words), "--batch-size", "12"]

    def start():
        return subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    first = start()
    if after == "the first has begun":
        while not (out / lock.NAME).exists():
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)  # or it would be done before the second has begun
    second = start()
    if after == "the first has begun":
        _, error = second.communicate(timeout=300)
        assert second.returncode == 78
        (line,) = error.splitlines()
        assert (
            f"another process is writing {out}: {os.uname().nodename}, process {first.pid}" in line
        )
        first.send_signal(signal.SIGCONT)
        assert first.wait(300) == 0
    else:
        errors = [process.communicate(timeout=300)[1] for process in (first, second)]
        codes = sorted(process.returncode for process in (first, second))
        assert codes in ([0, 78], [0, 0]), errors  # the second may come when the first is done
        assert not any("Traceback" in error for error in errors)
    assert files_of(out) == files_of(tiny_latents)


@pytest.mark.drill
def test_command_that_is_killed_at_several_moments_ends_in_the_same_bytes(
    tiny_data, tiny_vae, tiny_latents, environment, tmp_path
):
    """Before the first shard, between shards, when shards get their names, and at the manifest."""
    out = tmp_path / "out"
    words = ["--data", tiny_data, "--vae", tiny_vae, "--out", out, "--shard-examples", "16"]
    words = ["encode", *map(str, words), "--batch-size", "12"]
    # Nothing but the signal ends it, in the middle of the call.
    program = """
import os, signal, sys
word = sys.argv.pop(1)
def kill(event, given):
    if event == "os.rename" and word in os.path.basename(str(given[1])):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
from rfxray.__main__ import main
main()
"""
    for word in ("train-00000.array_record", "train-00002.json", "-of-00004", "manifest.json"):
        line = [sys.executable, "-c", program, word, *words]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (word, done.stderr)
        assert not (out / "manifest.json").exists()
    done = subprocess.run([sys.executable, "-m", "rfxray", *words], env=environment())
    assert done.returncode == 0
    assert files_of(out) == files_of(tiny_latents)
