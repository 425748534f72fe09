"""Estimated times of a compiled step, from the peaks of a chip and the links of its pod."""

import pytest

from rfxray.perf import chips, roofline
from rfxray.perf.hlo import Collective

CHIP = chips.CHIPS["v5p"]

TORUS = [(x, y, z, 0) for x in range(4) for y in range(4) for z in range(2)]  # slice 0


@pytest.mark.parametrize(
    ("kind", "group", "links"),
    [
        (
            "all-gather",
            range(32),
            2 + 2 + 1,
        ),  # two full dimensions wrap around, the third has 2 chips
        ("all-gather", [0, 2, 4, 6], 2),  # along y
        ("all-gather", [0, 2], 1),  # two neighbours
        ("reduce-scatter", [0, 8, 16, 24], 2),  # along x
    ],
)
def test_link_seconds_use_the_dimensions_that_a_group_spans(kind, group, links):
    c = Collective(kind, 1e9, tuple(group), 1, None)
    expected = 1e9 * (len(group) - 1) / len(group) / (links * CHIP.link)
    assert roofline.link_seconds(c, CHIP, TORUS) == pytest.approx(expected)


def test_all_reduce_takes_twice_as_long_as_all_gather():
    gather = Collective("all-gather", 1e9, (0, 2, 4, 6), 1, None)
    reduce = Collective("all-reduce", 1e9, (0, 2, 4, 6), 1, None)
    assert roofline.link_seconds(reduce, CHIP, TORUS) == pytest.approx(
        2 * roofline.link_seconds(gather, CHIP, TORUS)
    )
    assert roofline.link_seconds(Collective("all-reduce", 1e9, (3,), 1, None), CHIP, TORUS) == 0


def test_slower_network_counts_between_slices():
    two = TORUS + [(*place, 1) for *place, _ in TORUS]
    reduce = Collective("all-reduce", 1e9, (0, 32), 1, None)
    assert roofline.link_seconds(reduce, CHIP, two) == pytest.approx(2 * 1e9 / 2 / (50e9 / 8))


def test_roofline_sums_products_traffic_and_exposed_communication():
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


def test_expected_time_uses_cycles_of_fusions_and_efficiency_of_kernels():
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
    unknown = roofline.estimate(text.replace('"1750"', f'"{2**63 - 1}"'), CHIP, TORUS)
    moved = 2 * 2 * 64 * 128 / CHIP.bandwidth / roofline.MEMORY
    assert "element-wise" not in unknown.parts
    assert unknown.parts["copies"] == pytest.approx(moved)
