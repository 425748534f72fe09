"""Data sets of latents: their statistics, what is read of them, and what is refused."""

import dataclasses
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from rfxray.data import batches, latents, record
from rfxray.data.dataset import open_dataset, verify
from rfxray.data.manifest import fragments, publish, read_manifest
from rfxray.data.plan import make_plan
from rfxray.data.shards import write_shard
from rfxray.errors import ConfigError, DataError

SHAPE = (4, 4, 3)


def drawn(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return (rng.normal(size=SHAPE) * [1, 3, 0.2] + [0, 5, -40]).astype(np.float16)


def written(out, tiny_records, numbers, vae="v", validation=2, encoder=None):
    """A data set of latents in `out`, as its `Dataset`."""
    train, held_out = numbers[:-validation], numbers[-validation:]
    plan = make_plan(
        {"train": train, "validation": held_out}, name="latents", size=32, shard_examples=3
    )
    plan = dataclasses.replace(plan, latent=SHAPE, shown=("latent",))
    (out / "partial").mkdir(parents=True)
    for shard in plan.shards:
        rows = tiny_records(shard.items)
        made = [
            {**{name: row[name] for name in record.FIELDS}, "latent": drawn(number)}
            for row, number in zip(rows, shard.items, strict=True)
        ]
        write_shard(shard, out, plan.size, made, latent=SHAPE)
    found = latents.statistics(each["moments"] for each in fragments(plan, out, "train"))
    about = latents.Latents(SHAPE, False, vae, "source", 32, found, encoder)
    publish(plan, out, {"latents": about.entry()})
    return open_dataset(out, latents=True)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 9))
def test_moments_of_parts_are_those_of_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [(rng.normal(size=(n, 2, 3)) + 1000).astype(np.float32) for n in sizes]
    found = latents.statistics(latents.moments(part).entry() for part in parts)
    cells = np.concatenate(parts).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.mean, cells.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, cells.std(0), rtol=1e-9)


def test_statistics_are_those_of_the_training_split(tmp_path, tiny_records):
    dataset = written(tmp_path / "latents", tiny_records, range(11))
    assert dataset.shape == SHAPE
    cells = np.concatenate([drawn(n) for n in range(9)]).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(dataset.latents.statistics.mean, cells.mean(0), rtol=1e-12)
    np.testing.assert_allclose(dataset.latents.statistics.std, cells.std(0), rtol=1e-12)


def test_batches_are_normalised(tmp_path, tiny_records):
    dataset = written(tmp_path / "latents", tiny_records, range(11))
    mixture = batches.open_mixture([str(dataset.path)], [1.0], "train", 0, True)
    mixture.require_shape(SHAPE)
    batch = batches.first_examples(mixture, "train", 9)
    assert batch["image"].dtype == np.float32
    assert batch["image"].shape == (9, *SHAPE)
    np.testing.assert_allclose(batch["image"].mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(batch["image"].std((0, 1, 2)), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"latents of 4 × 4 × 3, but the network takes 4 × 4 × 1"):
        mixture.require_shape((4, 4, 1))


def test_mixture_is_normalised_as_a_whole(tmp_path, tiny_records):
    one = written(tmp_path / "one", tiny_records, range(11))
    two = written(tmp_path / "two", tiny_records, range(20, 28))
    mixture = batches.open_mixture([str(one.path), str(two.path)], [3.0, 1.0], "train", 0, True)
    of_one, of_two = (np.stack([drawn(n) for n in r]) for r in (range(9), range(20, 26)))
    weights = np.r_[np.full(of_one[..., 0].size, 0.75 / of_one[..., 0].size)]
    weights = np.r_[weights, np.full(of_two[..., 0].size, 0.25 / of_two[..., 0].size)]
    cells = np.concatenate([of_one.reshape(-1, 3), of_two.reshape(-1, 3)]).astype(np.float64)
    mean = weights @ cells
    np.testing.assert_allclose(mixture.latents.statistics.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(
        mixture.latents.statistics.std, np.sqrt(weights @ (cells - mean) ** 2), rtol=1e-9
    )


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3),
    st.lists(st.floats(1e-6, 1e4), min_size=3, max_size=3),
    st.floats(1e-3, 1e3),
)
def test_one_set_is_normalised_by_its_own_statistics_to_the_last_bit(mean, std, weight):
    own = latents.Statistics(tuple(mean), tuple(std))
    assert latents.mixed([own], [weight]) == own
    # Two sets that agree cancel nothing, however far their mean is from 0.
    np.testing.assert_allclose(latents.mixed([own, own], [weight, 1.0]).std, std, rtol=1e-9)


def test_latents_of_two_autoencoders_or_images_are_never_mixed(tmp_path, tiny_records, tiny_data):
    one = str(written(tmp_path / "one", tiny_records, range(6)).path)
    two = str(written(tmp_path / "two", tiny_records, range(6), vae="w").path)
    for other, said in ((two, "latents of the VAE w"), (str(tiny_data), "images")):
        with pytest.raises(ConfigError, match=f"holds latents of the VAE v and .* {said}"):
            batches.open_mixture([one, other], [1.0, 1.0], "train", 0, True)


def test_latents_of_one_encoder_are_mixed_and_of_two_are_not(tmp_path, tiny_records):
    def made(name, encoder):
        return str(written(tmp_path / name, tiny_records, range(6), name, encoder=encoder).path)

    one, two = made("v", "e"), made("w", "e")
    mixture = batches.open_mixture([one, two], [1.0, 1.0], "train", 0, True)
    assert mixture.latents.vae == "v"  # whichever is first decodes
    for other in (made("x", "f"), made("y", None)):
        with pytest.raises(ConfigError, match="a run reads images, or latents of one encoder"):
            batches.open_mixture([one, other], [1.0, 1.0], "train", 0, True)


def test_latents_are_refused_where_images_are_needed(tmp_path, tiny_records):
    dataset = written(tmp_path / "latents", tiny_records, range(6))
    with pytest.raises(ConfigError, match="holds latents, and images are needed here"):
        open_dataset(dataset.path)


def test_flipped_byte_of_a_latent_is_refused(tmp_path, tiny_records):
    dataset = written(tmp_path / "latents", tiny_records, range(6))
    path = dataset.path / dataset.shards["train"][0].file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=str(path)):
        verify(dataset, "full")


def test_entry_of_a_manifest_reads_back(tmp_path, tiny_records):
    dataset = written(tmp_path / "latents", tiny_records, range(6))
    entry = read_manifest(dataset.path)["latents"]
    assert latents.Latents.of_entry(entry) == dataset.latents
    for name, value in (("std", 0.0), ("std", math.nan), ("mean", math.inf)):
        wrong = {**entry["statistics"], name: [value, *entry["statistics"][name][1:]]}
        with pytest.raises(ValueError, match="are not finite statistics of 3 channels"):
            latents.Latents.of_entry({**entry, "statistics": wrong})
    with pytest.raises(KeyError, match="statistics"):
        latents.Latents.of_entry({k: v for k, v in entry.items() if k != "statistics"})


def test_channel_without_variance_is_refused():
    flat = np.zeros(SHAPE, np.float16)
    with pytest.raises(DataError, match="the same value in every training image"):
        latents.statistics([latents.moments(flat).entry()])
