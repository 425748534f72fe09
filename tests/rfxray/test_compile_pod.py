"""A run is compiled for a pod that is not there, by the TPU compiler where it is installed."""

import json
import math

import pytest

from rfxray import chips, compile_pod, flops, roofline, sweep
from rfxray.hlo import Collective

CHIP = chips.CHIPS["v5p"]


def needs_libtpu():
    pytest.importorskip("libtpu", reason="pip install libtpu: the TPU compiler, no TPU needed")


@pytest.fixture(scope="module")
def compile_tiny(run_module, tiny_arguments):
    """`compile_tiny("mesh.fsdp=4")`: the finished command for four v5e chips."""

    def run(*overrides):
        needs_libtpu()
        config, _, _, *flags = tiny_arguments("none", *overrides)[1:]
        command = ["--config", config, "--topology", "v5e:2x2", "--json"]
        return run_module("rfxray.compile_pod", *command, *flags)

    return run


def test_a_small_run_compiles_for_a_pod_and_its_collectives_are_those_of_its_mesh(
    compile_tiny, make_config
):
    done = compile_tiny("mesh.fsdp=4", "model.width=128", "model.mlp_width=256", "batch_size=16")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chips"], found["mesh"]) == (4, {"data": 1, "fsdp": 4, "tensor": 1})
    # Parameters are gathered where they are used, and gradients reduced to where they are kept.
    assert found["collectives"]["all-gather"]["bytes"] > 0
    reduced = found["collectives"].keys() & {"reduce-scatter", "all-reduce"}
    assert sum(found["collectives"][kind]["bytes"] for kind in reduced) > 0
    config = make_config("model.width=128", "model.mlp_width=256", "batch_size=16")
    assert found["flops"]["model"] == flops.train_step(config) / 4
    # Nothing is computed again without remat; small products may be repeated by the compiler.
    assert 0.9 < found["flops"]["executed_over_model"] < 1.3
    memory = found["memory"]
    assert memory["arguments"] >= 4 * 5 * found["parameters"] / 4
    assert 0.9 < memory["headroom"] < 1
    assert 0 < found["seconds"]["roofline"] <= found["seconds"]["expected"]
    assert 0 < found["mfu"]["expected"] <= found["mfu"]["roofline"] < 1


def test_what_does_not_fit_ends_with_1(compile_tiny):
    done = compile_tiny("mesh.fsdp=4", "batch_size=262144")
    assert done.returncode == 1
    (line,) = [n for n in done.stderr.splitlines() if n.startswith("rfxray.compile_pod:")]
    assert "does not fit" in line


@pytest.mark.parametrize("topology", ["v5p", "v3:2x2", "v5p:4x", "v5e:2x2 "])
def test_a_wrong_topology_is_refused(refusal, tiny_arguments, topology):
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", topology, *flags]
    code, line = refusal(compile_pod.main, argv)
    assert code == 78
    assert "such as v5p:4x4x8" in line


# ---------------------------------------------------------------------------------------------
# The estimates


TORUS = [(x, y, z) for x in range(4) for y in range(4) for z in range(2)]


@pytest.mark.parametrize(
    ("kind", "group", "links"),
    [
        ("all-gather", range(32), 2 + 2 + 1),  # both full dimensions wrap around, the third is 2
        ("all-gather", [0, 2, 4, 6], 2),  # along y
        ("all-gather", [0, 2], 1),  # two neighbours
        ("reduce-scatter", [0, 8, 16, 24], 2),  # along x
    ],
)
def test_links_count_by_the_dimensions_that_a_group_spans(kind, group, links):
    c = Collective(kind, 1e9, tuple(group), 1, None)
    expected = 1e9 * (len(group) - 1) / len(group) / (links * CHIP.link)
    assert roofline.link_seconds(c, CHIP, TORUS) == pytest.approx(expected)


def test_an_all_reduce_goes_round_twice():
    gather = Collective("all-gather", 1e9, (0, 2, 4, 6), 1, None)
    reduce = Collective("all-reduce", 1e9, (0, 2, 4, 6), 1, None)
    assert roofline.link_seconds(reduce, CHIP, TORUS) == pytest.approx(
        2 * roofline.link_seconds(gather, CHIP, TORUS)
    )
    assert roofline.link_seconds(Collective("all-reduce", 1e9, (3,), 1, None), CHIP, TORUS) == 0


def test_a_step_takes_its_products_its_traffic_and_what_it_waits_for():
    n = 8192
    text = f"""ENTRY %main (a: bf16[{n},{n}], b: f32[{n}]) -> bf16[{n},{n}] {{
  %a = bf16[{n},{n}]{{1,0}} parameter(0)
  %b = f32[{n}]{{0}} parameter(1)
  %r = f32[{n}]{{0}} all-reduce(%b), replica_groups={{{{0,2,4,6}}}}, to_apply=%add
  %c = f32[{n}]{{0}} negate(%r)
  ROOT %m = bf16[{n},{n}]{{1,0}} dot(%a, %a), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""
    found = roofline.estimate(text, CHIP, TORUS)
    assert found.flops == 2 * n**3
    assert found.traffic == 3 * 2 * n * n + 2 * 4 * n + 2 * 4 * n
    waits = 2 * 4 * n * 3 / 4 / (2 * CHIP.link)
    assert found.exposed == pytest.approx(waits)
    assert found.roofline == pytest.approx(2 * n**3 / CHIP.flops + 8 * n / CHIP.bandwidth + waits)
    assert found.collectives["all-reduce"]["count"] == 1


# ---------------------------------------------------------------------------------------------
# The sweep


def test_the_sweep_keeps_to_the_chips_and_the_memory(make_config):
    config = make_config("batch_size=64")
    ranked = sweep.rank(config, 8, CHIP, 100_000)
    assert ranked
    for candidate in ranked:
        assert candidate.data * candidate.fsdp * candidate.tensor == 8
        assert 64 % (candidate.data * candidate.fsdp * candidate.accumulate) == 0
        assert candidate.memory < CHIP.memory
    assert [c.seconds for c in ranked] == sorted(c.seconds for c in ranked)


def test_the_sweep_shards_more_and_recomputes_more_where_memory_is_short(make_config):
    config = make_config("batch_size=4096", "model.depth=24")
    wide = sweep.rank(config, 8, CHIP, 10**9)[0]
    least = min(c.memory for c in sweep.rank(config, 8, CHIP, 10**9))
    small = chips.Chip(CHIP.flops, CHIP.bandwidth, least / 0.89, CHIP.clock, CHIP.link, CHIP.torus)
    (narrow, *_) = sweep.rank(config, 8, small, 10**9)
    assert narrow.memory < wide.memory or math.isclose(narrow.memory, wide.memory)
    assert narrow.remat == "full"
    assert narrow.seconds >= wide.seconds


def test_a_shape_that_no_pod_has_is_refused(run_module, tiny_arguments):
    needs_libtpu()
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", "v5p:3x5x7", *flags]
    done = run_module("rfxray.compile_pod", *argv)
    assert done.returncode == 78
    assert "no topology v5p:3x5x7" in done.stderr
