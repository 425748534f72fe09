"""The analytic ranking of remat policies, meshes and accumulation."""

import dataclasses
import math

import pytest

from rfxray import compile_pod
from rfxray.config.load import override
from rfxray.perf import chips, sweep
from rfxray.training import recipe

CHIP = chips.CHIPS["v5p"]


@pytest.fixture(scope="module")
def work() -> sweep.Workload:
    return sweep.Workload(
        width=32,
        depth=2,
        heads=2,
        mlp_width=48,
        tokens=16,
        parameters=100_000,
        averages=2,
        batch_size=64,
        flops=3e9,
    )


def test_workload_is_read_from_the_config(make_config):
    config = make_config("batch_size=64", "mesh.sequence=2", "ema_sigmas=0.1")
    work = compile_pod.workload(config)
    assert (work.width, work.depth, work.heads, work.mlp_width) == (32, 2, 2, 48)
    assert (work.tokens, work.batch_size, work.averages, work.sequence) == (16, 64, 1, 2)
    assert work.parameters == recipe.build(config).parameters
    assert work.flops == recipe.model_flops(config)


def test_keys_of_a_candidate_override_a_config(make_config, work):
    config = make_config("batch_size=64")
    for candidate in sweep.rank(work, 8, CHIP):
        changed = override(config, candidate.keys())
        assert changed.model.remat == candidate.remat
        assert changed.mesh.fsdp == candidate.fsdp
        assert f"mesh.fsdp={candidate.fsdp}" in str(candidate)


def test_candidates_use_every_chip_and_fit_its_memory(work):
    ranked = sweep.rank(work, 8, CHIP)
    assert ranked
    for candidate in ranked:
        assert candidate.data * candidate.fsdp * candidate.tensor == 8
        assert 64 % (candidate.data * candidate.fsdp * candidate.accumulate) == 0
        assert candidate.memory < CHIP.memory
    assert {c.accumulate for c in ranked} == {1, 2, 4}
    assert [c.seconds for c in ranked] == sorted(c.seconds for c in ranked)


@pytest.mark.parametrize(("sequence", "slices"), [(2, 1), (1, 4), (2, 2)])
def test_candidates_keep_the_sequence_and_divide_the_slices(work, sequence, slices):
    ranked = sweep.rank(dataclasses.replace(work, sequence=sequence), 8, CHIP, slices)
    assert ranked
    for candidate in ranked:
        assert candidate.data * candidate.fsdp * candidate.tensor * sequence == 8
        assert candidate.data % slices == 0


def test_candidates_shard_and_recompute_more_if_memory_is_short(work):
    large = dataclasses.replace(work, batch_size=262144, depth=24, parameters=10**9)
    wide = sweep.rank(large, 8, CHIP)[0]
    least = min(c.memory for c in sweep.rank(large, 8, CHIP))
    small = chips.Chip(CHIP.flops, CHIP.bandwidth, least / 0.89, CHIP.clock, CHIP.link, CHIP.torus)
    (narrow, *_) = sweep.rank(large, 8, small)
    assert narrow.memory < wide.memory or math.isclose(narrow.memory, wide.memory)
    assert narrow.remat == "full"
    assert narrow.seconds >= wide.seconds
