"""A run is compiled for a pod that is not there, by the TPU compiler where it is installed."""

import importlib.util
import json
import math

import jax
import pytest

from rfxray import compile_pod
from rfxray.perf import chips, flops, roofline, sweep
from rfxray.perf.hlo import Collective
from rfxray.runtime.compiler_options import options_for

CHIP = chips.CHIPS["v5p"]

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,  # importing it would change the environment
    reason="libtpu, the TPU compiler, is not installed: pip install -e '.[test-tpu]'",
)


@pytest.fixture(scope="module")
def compile_tiny(run_module, tiny_arguments):
    """`compile_tiny("mesh.fsdp=4")`: the finished command for four v5e chips."""

    def run(*overrides, command=(), hlo=None):
        config, _, _, *flags = tiny_arguments("none", *overrides)[1:]
        given = ["--config", config, "--topology", "v5e:2x2", "--json", *command]
        given += ["--hlo", str(hlo)] if hlo else []
        return run_module("rfxray.compile_pod", *given, *flags)

    return run


@needs_libtpu
def test_a_small_run_compiles_for_a_pod_and_its_collectives_are_those_of_its_mesh(
    compile_tiny, make_config
):
    done = compile_tiny("mesh.fsdp=4", "model.width=128", "model.mlp_width=256", "batch_size=16")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chips"], found["mesh"]["data"], found["mesh"]["fsdp"]) == (4, 1, 4)
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


def test_only_chips_with_the_memory_are_given_larger_tiles():
    limits = {
        kind: options_for(kind).get("xla_tpu_scoped_vmem_limit_kib")
        for kind in ("cpu", "NVIDIA H100", "TPU v4", "TPU v5", "TPU v5 lite", "TPU v6 lite")
    }
    assert list(limits.values()) == [None, None, None, "49152", "49152", "98304"]
    assert options_for("cpu") == {}


@needs_libtpu
def test_kernels_run_on_heads_and_tokens_of_their_own(compile_tiny, tmp_path):
    shape = ("model.size=192", "model.width=256", "model.heads=2", "model.mlp_width=512")
    keys = (*shape, "model.dtype=bfloat16", "batch_size=2", "remat=dots")
    done = compile_tiny(*keys, "mesh.tensor=2", "mesh.sequence=2", hlo=tmp_path / "step.txt")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "attention splash" in found["run"]
    # 576 tokens, 288 of them on a device, in tiles of 128; one of the two heads. Keys are gathered.
    lines = [n for n in (tmp_path / "step.txt").read_text().splitlines() if "custom-call(" in n]
    for kernel, operand in (
        ("splash_mha_fwd", "bf16[2,1,384,128]"),
        ("splash_mha_fwd", "bf16[2,1,640,128]"),
        ("splash_mha_dkv", "bf16[2,1,640,128]"),
        ("norm_rotate_fwd", "bf16[2,288,128]"),
        ("norm_rotate_bwd", "bf16[2,288,128]"),
    ):
        assert any(kernel in line and operand in line for line in lines), (kernel, operand)
    assert found["collectives"]["all-gather"]["bytes"] > 0
    # Megatron's reduction over heads and the SwiGLU width, forward and backward.
    assert found["collectives"]["all-reduce"]["count"] >= 8
    # The backward kernel computes the logits again: one product beside the forward and backward 6.
    assert 1.0 < found["flops"]["executed_over_model"] < 1.5


@needs_libtpu
def test_the_sampler_and_several_slices_compile_as_well(compile_tiny):
    done = compile_tiny(command=("--sampler", "--pictures", "2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "8 pictures" in found["run"]
    assert 0.9 < found["flops"]["executed_over_model"] < 1.3
    done = compile_tiny("mesh.data=2", "mesh.fsdp=4", command=("--slices", "2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chips"], found["mesh"]["data"]) == (8, 2)


@needs_libtpu
def test_the_sweep_compiles_the_best_three_and_takes_the_fastest(compile_tiny):
    done = compile_tiny("batch_size=64", command=("--sweep", "--price", "1"))
    assert done.returncode == 0, done.stderr
    compiled = [line for line in done.stderr.splitlines() if line.startswith("compiled ")]
    assert len(compiled) == 3
    found = json.loads(done.stdout)
    fastest = min(float(line.split()[-2]) for line in compiled)
    assert found["seconds"]["expected"] * 1e3 == pytest.approx(fastest, abs=0.51)
    assert found["whole_run"]["dollars"] == pytest.approx(found["whole_run"]["chip_hours"])


@needs_libtpu
def test_what_does_not_fit_ends_with_1(compile_tiny):
    done = compile_tiny("mesh.fsdp=4", "batch_size=262144")
    assert done.returncode == 1
    (line,) = [n for n in done.stderr.splitlines() if n.startswith("rfxray.compile_pod:")]
    assert "does not fit" in line


class Refuses:
    """Stands in for a lowered program that the compiler has no memory for."""

    def __init__(self, message: str):
        self._message = message

    def compile(self, compiler_options):
        raise jax.errors.JaxRuntimeError(self._message)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (16.55G) exceeds available HBM (15.75G).\nmore",
            "needs 16.55G of the 15.75G of a chip; recompute more",
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 32.42M of 16.00M "
            "vmem.\nProgram hbm requirement 1.00G",
            "does not fit: RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 32.42M",
        ),
    ],
)
def test_the_memory_that_does_not_suffice_is_named(message, said):
    with pytest.raises(compile_pod.DoesNotFit) as refused:
        compile_pod.compile_for(Refuses(message), {})
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep", "--hlo", "step.txt"], "--sweep compiles several modules"),
        (["--sampler", "--price", "1"], "--price is for a whole run"),
        (["--sampler", "--sweep"], "--sweep is for training"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(refusal, tiny_arguments, monkeypatch, flags, said):
    monkeypatch.setattr(compile_pod, "describe", lambda topology, slices: None)
    config, _, _, *overrides = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", "v5e:2x2", *flags, *overrides]
    code, line = refusal(compile_pod.main, argv)
    assert code == 78
    assert said in line


@pytest.mark.parametrize("topology", ["v5p", "v3:2x2", "v5p:4x", "v5e:2x2 "])
def test_a_wrong_topology_is_refused(refusal, tiny_arguments, topology):
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", topology, *flags]
    code, line = refusal(compile_pod.main, argv)
    assert code == 78
    assert "such as v5p:4x4x8" in line


# ---------------------------------------------------------------------------------------------
# The estimates


TORUS = [(x, y, z, 0) for x in range(4) for y in range(4) for z in range(2)]  # slice 0


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


def test_between_slices_the_slower_network_counts():
    two = TORUS + [(*place, 1) for *place, _ in TORUS]
    reduce = Collective("all-reduce", 1e9, (0, 32), 1, None)
    assert roofline.link_seconds(reduce, CHIP, two) == pytest.approx(2 * 1e9 / 2 / (50e9 / 8))


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
    assert found.parts["communication"] == pytest.approx(waits)
    assert sum(found.parts.values()) == pytest.approx(found.expected)


def test_a_forecast_takes_the_cycles_of_fusions_and_the_efficiency_of_kernels():
    text = """%inside (p: bf16[64,128]) -> bf16[64,128] {
  %p = bf16[64,128]{1,0} parameter(0)
  ROOT %n = bf16[64,128]{1,0} negate(%p)
}

ENTRY %main (q: bf16[4,8,1024,128], x: bf16[64,128]) -> bf16[64,128] {
  %q = bf16[4,8,1024,128]{3,2,1,0} parameter(0)
  %x = bf16[64,128]{1,0} parameter(1)
  %splash_mha_fwd.1 = bf16[4,8,1024,128]{3,2,1,0} custom-call(%q), \
custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[4,8,1024,128]{3,2,1,0}}
  ROOT %f = bf16[64,128]{1,0} fusion(%x), kind=kLoop, calls=%inside, \
backend_config={"window_config":{"estimated_cycles":"1750"}}
}
"""
    found = roofline.estimate(text, CHIP, TORUS)
    assert found.parts["element-wise"] == pytest.approx(1e-6)  # 1,750 cycles at 1.75 GHz
    products = 2 * 2 * 4 * 8 * 1024**2 * 128 / CHIP.flops
    assert found.parts["attention"] == pytest.approx(products / roofline.ATTENTION)
    assert found.roofline == pytest.approx(products + 2 * 2 * 64 * 128 / CHIP.bandwidth)


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


@pytest.mark.parametrize(("sequence", "slices"), [(2, 1), (1, 4), (2, 2)])
def test_the_sweep_keeps_to_the_sequence_and_the_slices(make_config, sequence, slices):
    config = make_config("batch_size=64", f"mesh.sequence={sequence}")
    ranked = sweep.rank(config, 8, CHIP, 100_000, slices)
    assert ranked
    for candidate in ranked:
        assert candidate.data * candidate.fsdp * candidate.tensor * sequence == 8
        assert candidate.data % slices == 0


def test_the_sweep_shards_more_and_recomputes_more_where_memory_is_short(make_config):
    config = make_config("batch_size=262144", "model.depth=24")
    wide = sweep.rank(config, 8, CHIP, 10**9)[0]
    least = min(c.memory for c in sweep.rank(config, 8, CHIP, 10**9))
    small = chips.Chip(CHIP.flops, CHIP.bandwidth, least / 0.89, CHIP.clock, CHIP.link, CHIP.torus)
    (narrow, *_) = sweep.rank(config, 8, small, 10**9)
    assert narrow.memory < wide.memory or math.isclose(narrow.memory, wide.memory)
    assert narrow.remat == "full"
    assert narrow.seconds >= wide.seconds


@needs_libtpu
def test_a_shape_that_no_pod_has_is_refused(run_module, tiny_arguments):
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", "v5p:3x5x7", *flags]
    done = run_module("rfxray.compile_pod", *argv)
    assert done.returncode == 78
    assert "no topology v5p:3x5x7" in done.stderr
