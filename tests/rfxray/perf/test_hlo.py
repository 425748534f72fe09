"""The reader of HLO text, compared with jaxprs and on lines that TPUs write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.perf import flops, hlo
from rfxray.training import recipe

LAYERS, WIDTH, ROWS = 5, 32, 8


@pytest.fixture(scope="module")
def scanned() -> hlo.Module:
    """A scan of LAYERS matrix products and element-wise work, compiled for this machine."""

    def f(x, weights):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

    shapes = [(ROWS, WIDTH), (LAYERS, WIDTH, WIDTH)]
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return hlo.parse(jax.jit(f).lower(*arguments).compile().as_text())


def test_body_of_a_loop_counts_as_often_as_it_runs(scanned):
    assert LAYERS in hlo.executions(scanned).values()
    assert hlo.executions(scanned)[scanned.entry] == 1


def test_size_sums_the_arrays_of_a_shape():
    shape = "(bf16[2,8,1024]{2,1,0:T(8,128)(2,1)S(1)}, f32[16,1024]{1,0:T(8,128)}, u32[]{:S(2)})"
    assert hlo.size(shape) == 2 * 2 * 8 * 1024 + 4 * 16 * 1024 + 4
    assert hlo.size(shape, fast=False) == 4 * 16 * 1024  # the others are in on-chip memory
    assert hlo.size("pred[]") == 1
    assert hlo.size("(f8e4m3fn[16,8]{1,0}, f8e5m2[2], f4e2m1fn[4], bf16[3], u2[8])") == 140


# Matrix products as libtpu 0.0.42 writes them: batch, heads and so on become window dimensions.
@pytest.mark.parametrize(
    ("lhs", "rhs", "line", "expected"),
    [
        # [16, 256] × [256, 1024]
        (
            "16,256",
            "256,1024",
            "f32[16,1024] convolution(%a, %b), dim_labels=bf_io->bf",
            16 * 256 * 1024,
        ),
        # [8, 1024, 64] × [64, 2048]: the first dimension is a window of size 1
        (
            *("8,1024,64", "64,2048,1"),
            "bf16[8,1024,2048] convolution(%a, %b), window={size=1}, dim_labels=0bf_io0->0bf",
            8 * 1024 * 64 * 2048,
        ),
        # [16, 1024] × [1024, 6, 1024]: six outputs; padding makes each one read one slice
        (
            *("16,1024,1", "1024,6,1024"),
            "f32[16,6,1024] convolution(%a, %b), window={size=6 pad=5_5 rhs_reversal=1}, "
            "dim_labels=bf0_i0o->b0f",
            16 * 1024 * 6 * 1024,
        ),
        # [8, 1024, heads 8, 128] × [heads 8, 128, 2048]: the window of 8 is contracted
        (
            *("8,1024,8,128", "8,128,2048,1"),
            "bf16[8,1024,2048,1] convolution(%a, %b), window={size=1x8}, "
            "dim_labels=0b1f_1io0->0bf1",
            8 * 1024 * 8 * 128 * 2048,
        ),
        # the gradient of a weight: a window over the batch of 8
        (
            *("8,1024,2816", "8,1024,2048"),
            "bf16[2816,2048,1] convolution(%a, %b), window={size=8}, dim_labels=0fb_0io->bf0",
            8 * 1024 * 2816 * 2048,
        ),
    ],
)
def test_convolutions_of_tpus_count_as_matrix_products(lhs, rhs, line, expected):
    text = f"""ENTRY %main (a: f32[{lhs}], b: f32[{rhs}]) -> f32[] {{
  %a = f32[{lhs}] parameter(0)
  %b = f32[{rhs}] parameter(1)
  ROOT %c = {line}, metadata={{op_name="x"}}
}}
"""
    assert hlo.matmul_flops(hlo.parse(text)) == 2 * expected


def test_kernels_count_their_products_and_unknown_kernels_are_refused():
    text = """ENTRY %main (q: bf16[4,8,1024,128]) -> bf16[4,8,1024,128] {
  %q = bf16[4,8,1024,128]{3,2,1,0} parameter(0)
  ROOT %splash_mha_dkv_no_residuals.1 = bf16[4,8,1024,128]{3,2,1,0} custom-call(%q), \
custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,2]{2,1,0}, \
bf16[4,8,1024,128]{3,2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}
}
"""
    module = hlo.parse(text)
    assert hlo.matmul_flops(module) == 5 * 2 * 4 * 8 * 1024 * 1024 * 128
    assert hlo.matmul_flops(hlo.parse(text.replace("splash_mha_dkv", "norm_rotate_fwd"))) == 0
    with pytest.raises(ValueError, match="other_kernel"):
        hlo.matmul_flops(hlo.parse(text.replace("splash_mha_dkv", "other_kernel")))


def test_traffic_counts_only_the_slice_of_stacked_weights():
    text = """%fused (p0: f32[24,8,128], p1: s32[]) -> f32[8,128] {
  %p0 = f32[24,8,128]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,8,128]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,128}
  ROOT %out = f32[8,128]{1,0} bitcast(%one)
}

ENTRY %main (w: f32[24,8,128], i: s32[]) -> f32[8,128] {
  %w = f32[24,8,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = f32[8,128]{1,0} fusion(%w, %i), kind=kLoop, calls=%fused
}
"""
    module = hlo.parse(text)
    fusion = module.computations["main"][-1]
    layer = 4 * 8 * 128
    assert hlo.traffic(module, fusion, hlo.results(module, "main")) == 2 * layer + 4


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups={}", (0, 1, 2, 3)),
        ("replica_groups=[2,2]<=[4]", (0, 1)),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", (0, 2)),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_2'=2] {'axis_1'}", (0, 2)),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", (0, 2)),
        ("source_target_pairs={{0,0},{2,1},{1,2},{3,3}}", (2, 1)),
    ],
)
def test_replica_groups_are_read_in_every_notation(groups, first):
    text = f"""HloModule jit_step, is_scheduled=true, num_partitions=4

ENTRY %main (a: f32[128]) -> f32[128] {{
  %a = f32[128]{{0}} parameter(0)
  ROOT %r = f32[128]{{0}} all-reduce(%a), channel_id=1, {groups}, to_apply=%add
}}
"""
    (found,) = hlo.collectives(hlo.parse(text), lambda i, shapes: 0.0)
    assert found.group == first
    assert (found.kind, found.bytes, found.times, found.hidden) == ("all-reduce", 512, 1, None)


def test_async_collective_hides_behind_work_before_its_done():
    text = """ENTRY %main (a: f32[128], b: f32[64,64]) -> f32[512] {
  %a = f32[128]{0} parameter(0)
  %b = f32[64,64]{1,0} parameter(1)
  %s = (f32[128]{0}, f32[512]{0}) all-gather-start(%a), replica_groups=[1,4]<=[4], dimensions={0}
  %m = f32[64,64]{1,0} dot(%b, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %d = f32[512]{0} all-gather-done(%s)
}
"""
    module = hlo.parse(text)
    (found,) = hlo.collectives(module, lambda i, shapes: 3.0 if i.opcode == "dot" else 0.0)
    assert (found.kind, found.bytes, found.hidden) == ("all-gather", 4 * 512, 3.0)


def test_chained_fusions_are_one_collective_that_hides_behind_them():
    step = """%carries{n} (p: f32[128], w: f32[64,64]) -> f32[512] {{
  %p = f32[128]{{0}} parameter(0)
  %w = f32[64,64]{{1,0}} parameter(1)
  %m = f32[64,64]{{1,0}} dot(%w, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %g = f32[512]{{0}} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], \
dimensions={{0}}, frontend_attributes={{chain_id="3"}}
}}
"""
    text = (
        "\n".join(step.format(n=n) for n in range(3))
        + """
ENTRY %main (a: f32[128], b: f32[64,64]) -> f32[512] {
  %a = f32[128]{0} parameter(0)
  %b = f32[64,64]{1,0} parameter(1)
  %f0 = f32[512]{0} fusion(%a, %b), kind=kCustom, calls=%carries0
  %n = f32[64,64]{1,0} negate(%b)
  %f1 = f32[512]{0} fusion(%a, %n), kind=kOutput, calls=%carries1
  ROOT %f2 = f32[512]{0} fusion(%a, %b), kind=kCustom, calls=%carries2
}
"""
    )
    (found,) = hlo.collectives(hlo.parse(text), lambda i, shapes: 3.0)
    assert (found.kind, found.bytes, found.hidden) == ("all-gather", 4 * 512, 6.0)


# ---------------------------------------------------------------------------------------------
# Model FLOPs


def test_flops_of_a_jaxpr_match_the_compiled_module(scanned):
    def f(x, weights):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

    shapes = [(ROWS, WIDTH), (LAYERS, WIDTH, WIDTH)]
    jaxpr = jax.make_jaxpr(f)(*(np.zeros(s, np.float32) for s in shapes)).jaxpr
    assert flops.of_jaxpr(jaxpr) == 2 * LAYERS * ROWS * WIDTH**2
    # On a CPU a matrix product may call a library, but the text still names it a dot.
    assert hlo.matmul_flops(scanned) == flops.of_jaxpr(jaxpr)


@pytest.mark.parametrize("kernel", ["xla", "splash", "auto"])
def test_model_flops_match_the_formula(make_config, kernel):
    config = make_config(f"model.attention={kernel}")
    m = config.model
    tokens = (m.size // m.patch) ** 2
    block = 4 * m.width**2 + 3 * m.width * m.mlp_width + 2 * tokens * m.width
    per_token = m.depth * block + 2 * m.patch**2 * m.channels * m.width
    # Once per image: two perceptrons of 256 frequencies, the shared and the final modulation, and
    # the modulation of every block.
    once = 2 * (256 * m.width + m.width**2) + 8 * m.width**2
    once += m.depth * m.adaln_rank * (m.width + 6 * m.width)
    expected = 2 * (tokens * per_token + once)
    assert recipe.model_flops(config) == pytest.approx(3 * config.batch_size * expected, rel=1e-12)
    if kernel == "xla":  # kernels hide their matrix products
        assert flops.of_velocity(recipe.build(config).model) == pytest.approx(expected, rel=1e-12)
