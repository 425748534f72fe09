"""Compiling a run for a pod without hardware, if the TPU compiler is installed."""

import importlib.util
import json
import types

import jax
import pytest

from rfxray import compile_pod
from rfxray.runtime.compiler_options import options_for
from rfxray.training import recipe

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,  # importing it would change the environment
    reason="libtpu, the TPU compiler, is not installed: pip install -e '.[test-tpu]'",
)


@pytest.fixture(scope="module")
def compile_tiny(run_module, tiny_arguments):
    """`compile_tiny("mesh.fsdp=4")`: the completed command for four v5e chips."""

    def run(*overrides, command=(), hlo=None):
        config, _, _, *flags = tiny_arguments("none", *overrides)[1:]
        given = ["--config", config, "--topology", "v5e:2x2", "--json", *command]
        given += ["--hlo", str(hlo)] if hlo else []
        return run_module("rfxray.compile_pod", *given, *flags)

    return run


@needs_libtpu
def test_small_run_compiles_for_a_pod_with_the_collectives_of_its_mesh(compile_tiny, make_config):
    done = compile_tiny("mesh.fsdp=4", "model.width=128", "model.mlp_width=256", "batch_size=16")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chips"], found["mesh"]["data"], found["mesh"]["fsdp"]) == (4, 1, 4)
    # Parameters are gathered for use, and gradients are reduced to their shards.
    assert found["collectives"]["all-gather"]["bytes"] > 0
    reduced = found["collectives"].keys() & {"reduce-scatter", "all-reduce"}
    assert sum(found["collectives"][kind]["bytes"] for kind in reduced) > 0
    config = make_config("model.width=128", "model.mlp_width=256", "batch_size=16")
    assert found["flops"]["model"] == recipe.model_flops(config) / 4
    # Nothing is computed again without remat, but the compiler may repeat small products.
    assert 0.9 < found["flops"]["executed_over_model"] < 1.3
    memory = found["memory"]
    assert memory["arguments"] >= 4 * 5 * found["parameters"] / 4
    assert 0.9 < memory["headroom"] < 1
    assert 0 < found["seconds"]["roofline"] <= found["seconds"]["expected"]
    assert 0 < found["mfu"]["expected"] <= found["mfu"]["roofline"] < 1


@needs_libtpu
def test_autoencoder_with_every_term_compiles_for_a_pod(run_module):
    flags = ["--config", "tests/rfxray/autoencoder.py", "--topology", "v5e:2x2", "--json"]
    done = run_module("rfxray.compile_pod", *flags, "--config.mesh.fsdp=4")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["chips"] == 4
    assert found["remat"] == "none"
    assert found["flops"]["model"] > 0


@needs_libtpu
def test_encoder_compiles_for_a_pod(run_module):
    flags = ["--config", "tests/rfxray/autoencoder.py", "--topology", "v5e:2x2", "--json"]
    done = run_module("rfxray.compile_pod", *flags, "--encoder", "--samples", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "encoder, 8 images (2 a chip)" in found["run"]
    assert not found["collectives"]
    rate = 2 / found["seconds"]["expected"]
    assert found["encoding"]["images_per_second"] == pytest.approx(rate)


@needs_libtpu
def test_tiles_compile_for_a_pod(run_module):
    flags = ["--config", "tests/rfxray/autoencoder.py", "--topology", "v5e:2x2", "--json"]
    done = run_module("rfxray.compile_pod", *flags, "--decoder", "--tiles")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"].startswith("decoder in tiles of 128, 1 image, float32; of 12 programs ")
    assert found["memory"]["arguments"] >= 4 * found["parameters"]  # all stay on the chip
    # The largest two maps: 32² of 4 channels each, float32.
    assert found["host"] == 2 * 4 * 4 * 32**2


@pytest.mark.parametrize(
    ("config", "flags", "line"),
    [
        ("smoke", ["--encoder"], "--encoder compiles an autoencoder, of model.kind vae or"),
        ("smoke", ["--decoder"], "--decoder compiles an autoencoder, of model.kind vae or"),
        ("rad_vae", ["--encoder", "--sampler"], "--sampler and --encoder are two programs"),
        ("rad_vae", ["--encoder", "--decoder"], "--encoder and --decoder are two programs"),
        ("rad_vae", ["--encoder", "--price", "1"], "remove --price or --encoder"),
        ("rad_vae", ["--encoder", "--sweep"], "remove --sweep or --encoder"),
        ("rad_vae", ["--tiles"], "--tiles needs --encoder or --decoder"),
        ("rad_vae", ["--decoder", "--tiles", "--hlo", "F"], "--tiles compiles several modules"),
    ],
)
def test_encoder_is_only_that_of_an_autoencoder(config, flags, line, monkeypatch, refusal):
    chip = types.SimpleNamespace(device_kind="TPU v5 lite")
    pod = types.SimpleNamespace(devices=[chip])
    monkeypatch.setattr(compile_pod, "describe", lambda *_: pod)
    words = ["--config", config, "--topology", "v5e:2x2", *flags]
    code, found = refusal(compile_pod.main, words)
    assert code == 78
    assert line in found


def test_only_chips_with_enough_memory_get_larger_tiles():
    limits = {
        kind: options_for(kind).get("xla_tpu_scoped_vmem_limit_kib")
        for kind in ("cpu", "NVIDIA H100", "TPU v4", "TPU v5", "TPU v5 lite", "TPU v6 lite")
    }
    assert list(limits.values()) == [None, None, None, "49152", "49152", "98304"]
    assert options_for("cpu") == {}


@needs_libtpu
def test_kernels_run_on_the_heads_and_tokens_of_each_device(compile_tiny, tmp_path):
    shape = ("model.size=192", "model.width=256", "model.heads=2", "model.mlp_width=512")
    keys = (*shape, "model.dtype=bfloat16", "batch_size=2", "model.remat=dots")
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
    # The backward kernel computes the logits again: one product more than the 6 of both passes.
    assert 1.0 < found["flops"]["executed_over_model"] < 1.5


@needs_libtpu
def test_sampler_and_several_slices_compile(compile_tiny):
    done = compile_tiny(command=("--sampler", "--samples", "2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "8 samples" in found["run"]
    assert 0.9 < found["flops"]["executed_over_model"] < 1.3
    done = compile_tiny("mesh.data=2", "mesh.fsdp=4", command=("--slices", "2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chips"], found["mesh"]["data"]) == (8, 2)


@needs_libtpu
def test_sweep_compiles_the_best_three_and_reports_the_fastest(compile_tiny):
    done = compile_tiny("batch_size=64", command=("--sweep", "--price", "1"))
    assert done.returncode == 0, done.stderr
    compiled = [line for line in done.stderr.splitlines() if line.startswith("compiled ")]
    assert len(compiled) == 3
    found = json.loads(done.stdout)
    fastest = min(float(line.split()[-2]) for line in compiled)
    assert found["seconds"]["expected"] * 1e3 == pytest.approx(fastest, abs=0.51)
    assert found["whole_run"]["dollars"] == pytest.approx(found["whole_run"]["chip_hours"])


@needs_libtpu
def test_program_that_does_not_fit_ends_with_1(compile_tiny):
    done = compile_tiny("mesh.fsdp=4", "batch_size=262144")
    assert done.returncode == 1
    (line,) = [n for n in done.stderr.splitlines() if n.startswith("rfxray.compile_pod:")]
    assert "does not fit" in line


class Refuses:
    """A lowered program that does not fit into memory."""

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
def test_error_names_the_memory_that_is_too_small(message, said):
    with pytest.raises(compile_pod.DoesNotFit) as refused:
        compile_pod.compile_for(Refuses(message), {})
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep", "--hlo", "step.txt"], "--sweep compiles several modules"),
        (["--sampler", "--price", "1"], "--price gives the cost of a whole training run"),
        (["--sampler", "--sweep"], "--sweep works only for the train step"),
    ],
)
def test_flags_without_effect_are_refused(refusal, tiny_arguments, monkeypatch, flags, said):
    monkeypatch.setattr(compile_pod, "describe", lambda topology, slices: None)
    config, _, _, *overrides = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", "v5e:2x2", *flags, *overrides]
    code, line = refusal(compile_pod.main, argv)
    assert code == 78
    assert said in line


@pytest.mark.parametrize("topology", ["v5p", "v3:2x2", "v5p:4x", "v5e:2x2 "])
def test_malformed_topology_is_refused(refusal, tiny_arguments, topology):
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", topology, *flags]
    code, line = refusal(compile_pod.main, argv)
    assert code == 78
    assert "such as v5p:4x4x8" in line


@needs_libtpu
def test_shape_that_does_not_exist_is_refused(run_module, tiny_arguments):
    config, _, _, *flags = tiny_arguments("none")[1:]
    argv = ["--config", config, "--topology", "v5p:3x5x7", *flags]
    done = run_module("rfxray.compile_pod", *argv)
    assert done.returncode == 78
    assert "v5p:3x5x7 is not a TPU topology that libtpu knows" in done.stderr
