import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError
from rfxray.networks import radit, rotary
from rfxray.networks.attention import attention, choose, splash
from rfxray.networks.radit import Execution, ModelConfig

CONFIG = ModelConfig(
    size=24,
    channels=2,
    patch=8,
    width=32,
    depth=2,
    heads=2,
    mlp_width=48,
    adaln_rank=4,
    rope_theta=100.0,
    dtype="float32",
)
BATCH = 4


@pytest.fixture(scope="module")
def params(randomise):
    return randomise(jax.jit(radit.init, static_argnums=0)(CONFIG, jax.random.key(0)))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 24, 24, 2)).astype(np.float32)
    t = np.array([0.0, 0.25, 0.625, 1.0], np.float32)
    requested = [
        {},
        {"view": "lateral", "age": 63, "source": "phantom"},
        {"race": "other", "cardiomegaly": "present", "edema": "absent", "age": 0},
        dict.fromkeys(vocabulary.PATHOLOGY_NAMES, "absent") | {"view": "PA", "sex": "M"},
    ]
    encoded = map(vocabulary.encode, requested)
    return x, t, Attributes(*(np.stack(a) for a in zip(*encoded, strict=True)))


@pytest.fixture(scope="module")
def network():
    return jax.jit(radit.apply(CONFIG, Execution()))


# ---------------------------------------------------------------------------------------------
# Reference: the network in NumPy and float64, one token at a time if the layout matters


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def embed_number(x, parts, longest):
    frequencies = longest ** -(np.arange(128) / 128)
    angles = x[:, None] * frequencies
    h = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return silu(h @ parts["inner"]) @ parts["outer"]


def condition(p, t, attributes, known):
    c = embed_number(1000.0 * t, p["time"], 1e4)
    age = vocabulary.NAMES.index("age")
    for b in range(len(c)):
        null = 0
        for i, attribute in enumerate(vocabulary.ATTRIBUTES):
            row = 1 + (0 if attribute.continuous else int(attributes[b, i]))
            c[b] += p["table"][null + (row if known[b, i] else 0)]
            null += 1 + max(1, len(attribute.values))
    return c + known[:, age, None] * embed_number(attributes[:, age] / 5, p["age"], 30.0)


def place(config):
    """Position embedding: waves of the row, then of the column, 1/4 to 16 per image."""
    side, quarter = config.size // config.patch, config.width // 4
    out = np.empty((side * side, config.width))
    for token in range(side * side):
        for axis, i in enumerate((token // side, token % side)):
            for k in range(quarter):
                angle = 2 * np.pi * 2 ** (-2 + 6 * k / (quarter - 1)) * (i + 0.5) / side
                out[token, 2 * axis * quarter + k] = np.cos(angle)
                out[token, (2 * axis + 1) * quarter + k] = np.sin(angle)
    return out


def turn(x, rows, columns, theta):
    """Rotates x [tokens, heads, head_dim]: a quarter with the row, the next with the column."""
    out = np.empty_like(x)
    half = x.shape[-1] // 2
    for token in range(rows * columns):
        place = (token // columns, token % columns)
        for i in range(half):
            axis, k = divmod(i, half // 2)
            angle = place[axis] * theta ** (-k / (half // 2))
            a, b = x[token, :, i], x[token, :, i + half]
            out[token, :, i] = a * np.cos(angle) - b * np.sin(angle)
            out[token, :, i + half] = a * np.sin(angle) + b * np.cos(angle)
    return out


def attend(q, k, v):
    """[tokens, heads, head_dim] each."""
    out = np.empty_like(q)
    for head in range(q.shape[1]):
        logits = q[:, head] @ k[:, head].T / math.sqrt(q.shape[2])
        weights = np.exp(logits - logits.max(1, keepdims=True))
        out[:, head] = weights / weights.sum(1, keepdims=True) @ v[:, head]
    return out


def block(p, x, c, shared, config):
    """One layer on one example: x [tokens, width], c [width], shared [6, width]."""
    side = config.size // config.patch
    own = np.einsum("r,rsd->sd", c @ p["modulation_in"], p["modulation_out"])
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = shared + own + p["modulation_bias"]

    h = rms(x) * (1 + scale_a) + shift_a
    q, k, v = np.einsum("nd,dshk->snhk", h, p["qkv"])
    q, k = rms(q) * p["query_scale"], rms(k) * p["key_scale"]
    q, k = (turn(a, side, side, config.rope_theta) for a in (q, k))
    x = x + gate_a * np.einsum("nhk,hkd->nd", attend(q, k, v), p["attention_out"])

    h = rms(x) * (1 + scale_m) + shift_m
    return x + gate_m * ((silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"])


def reference(p, x, t, attributes, config):
    values, known = attributes
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
    c = silu(condition(p["condition"], t.astype(np.float64), values.astype(float), known))
    n = config.patch
    places = [(r, s) for r in range(0, config.size, n) for s in range(0, config.size, n)]
    out = np.empty(x.shape)
    for b in range(len(x)):
        tokens = np.stack([x[b, r : r + n, s : s + n].ravel() for r, s in places])
        h = tokens.astype(np.float64) @ p["embed"] + place(config)
        shared = np.einsum("d,dse->se", c[b], p["modulation"])
        for layer in range(config.depth):
            h = block({k: v[layer] for k, v in p["blocks"].items()}, h, c[b], shared, config)
        shift, scale = np.einsum("d,dse->se", c[b], p["final_modulation"])
        h = (rms(h) * (1 + scale) + shift) @ p["head"]
        for token, (r, s) in zip(h, places, strict=True):
            out[b, r : r + n, s : s + n] = token.reshape(n, n, -1)
    return out


def test_network_matches_the_reference(network, params, inputs):
    found = network(params, *inputs)
    expected = reference(params, *inputs, CONFIG)
    assert found.dtype == jnp.float32
    assert found.shape == expected.shape
    # float32 against float64: 6e-8 per rounding through two layers, 3e-5 in the sine of an angle of
    # up to 1000 radians. A wrong order, sign or axis would differ by the size of the output.
    np.testing.assert_allclose(found, expected, atol=5e-5 * np.abs(expected).max())


# ---------------------------------------------------------------------------------------------
# Conditions


def test_new_network_predicts_zero(network, inputs):
    fresh = jax.jit(radit.init, static_argnums=0)(CONFIG, jax.random.key(0))
    assert not np.asarray(network(fresh, *inputs)).any()


def test_values_of_unknown_attributes_have_no_effect(network, params, inputs):
    x, t, (values, known) = inputs
    scrambled = np.where(known, values, np.random.default_rng(1).uniform(0, 1.9, known.shape))
    assert (scrambled != values).any()
    np.testing.assert_array_equal(
        network(params, x, t, Attributes(scrambled.astype(np.float32), known)),
        network(params, x, t, Attributes(values, known)),
    )


@pytest.mark.parametrize("name", vocabulary.NAMES)
def test_every_known_attribute_has_an_effect(network, params, inputs, name):
    x, t, _ = inputs
    i = vocabulary.INDEX[name]
    only = np.tile(np.arange(19) == i, (BATCH, 1))
    null = network(params, x, t, Attributes(0.0 * only, False & only))
    zero = network(params, x, t, Attributes(0.0 * only, only))
    one = network(params, x, t, Attributes(1.0 * only, only))
    for a, b in ((null, zero), (zero, one), (null, one)):
        assert np.abs(a - b).max() > 1e-3


def test_examples_of_a_batch_are_independent(network, params, inputs):
    whole = network(params, *inputs)
    flipped = network(params, *jax.tree.map(lambda a: a[::-1], inputs))
    # The order of rows in a matrix product may change the last bits.
    np.testing.assert_allclose(flipped[::-1], whole, atol=1e-5 * np.abs(whole).max())


# ---------------------------------------------------------------------------------------------
# Execution


@pytest.fixture(scope="module")
def gradients(params, inputs):
    def of(how: Execution, config=CONFIG):
        net = radit.apply(config, how)

        def loss(params):
            out = net(params, *inputs)
            return jnp.mean(jnp.square(out)), out

        gradient, out = jax.jit(jax.grad(loss, has_aux=True))(params)
        return jax.device_get((out, gradient))

    return of


@pytest.fixture(scope="module")
def plain(gradients):
    return gradients(Execution(attention="xla"))


@pytest.mark.parametrize(
    "how",
    [Execution(remat="dots"), Execution(remat="attention"), Execution(remat="full", unroll=2)],
    ids=["dots", "attention", "full, unrolled"],
)
def test_remat_and_unroll_change_neither_output_nor_gradient(gradients, plain, how):
    for a, b in zip(jax.tree.leaves(gradients(how)), jax.tree.leaves(plain), strict=True):
        # The same operations, fused differently: a few roundings of 6e-8 of the largest entry.
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_every_parameter_gets_a_gradient(plain):
    for path, gradient in jax.tree_util.tree_flatten_with_path(plain[1])[0]:
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_bfloat16_output_is_close_to_float32(params, inputs, plain):
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    out = jax.jit(radit.apply(half, Execution()))(params, *inputs)
    assert out.dtype == jnp.float32
    error = np.sqrt(np.mean((out - plain[0]) ** 2) / np.mean(plain[0] ** 2))
    # A rounding is 2⁻⁹ of a number; there are about ten through two layers.
    assert 2**-12 < error < 10 * 2**-9


def test_xla_attention_matches_softmax():
    rng = np.random.default_rng(0)
    q, k, v = jnp.asarray(rng.normal(size=(3, 2, 9, 3, 8)), jnp.float32)
    found = attention(q, k, v, "xla")
    for b in range(2):
        expected = attend(*(np.asarray(a[b], np.float64) for a in (q, k, v)))
        np.testing.assert_allclose(found[b], expected, atol=1e-6)
    np.testing.assert_array_equal(attention(q, k, v), found)  # auto is xla on a CPU


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [72, 640])  # padded to 128 in one block; several blocks
def test_splash_kernel_matches_the_reference(tokens, dtype):
    rng = np.random.default_rng(tokens)
    q, k, v, weight = rng.normal(size=(4, 1, tokens, 2, 64)).astype(dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def run(attend, q, k, v, weight):
        out, back = jax.vjp(attend, q, k, v)
        return out, *back(weight)

    reference = functools.partial(attention, implementation="xla")

    def softmax(q, k, v):
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)

    with jax.enable_x64(True):
        exact = run(softmax, *(x.astype(np.float64) for x in (q, k, v, weight)))
    found = run(functools.partial(splash, interpret=True), q, k, v, weight)
    plain = run(reference, q, k, v, weight)
    for a, b, c in zip(found, plain, exact, strict=True):
        assert a.dtype == b.dtype == dtype
        assert c.dtype == np.float64
        # Errors count in roundings of the largest entry, 2⁻²⁴ or 2⁻⁸ of it. In float32 a logit
        # of 4 carries 4 roundings into the exponent, and hundreds of terms are added in an order
        # that depends on the CPU: the reference is 10 to 40 roundings from float64. In bfloat16 the
        # last two dominate.
        rounding = np.abs(c).max() * (2.0**-24 if dtype == "float32" else 2.0**-8)
        most = 64 if dtype == "float32" else 2
        kernel, usual = (np.abs(x.astype(np.float64) - c).max() / rounding for x in (a, b))
        assert usual < most
        assert kernel < min(most, 2 * max(usual, 8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norm_rotate_kernel_matches_the_reference(dtype):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 2, 80, 3, 128)).astype(dtype)
    scale = rng.normal(1.0, 0.5, 128).astype(np.float32)
    angles = rotary.axial_angles(8, 10, 128, 100.0)

    @functools.partial(jax.jit, static_argnums=0)
    def run(turn, x, weight):
        out, back = jax.vjp(lambda x, scale: turn(x, scale, angles), x, scale)
        return out, *back(weight)

    exact = run(rotary.norm_rotate, x.astype(np.float32), weight.astype(np.float32))
    found = run(functools.partial(rotary.norm_rotate_kernel, interpret=True), x, weight)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == (dtype if a.ndim > 1 else np.float32)
        # Four roundings of 2⁻²⁴ in float32; in bfloat16 only the last one, of 2⁻⁸.
        near = np.abs(b).max() * (4 * 2.0**-24 if a.dtype == np.float32 else 2.0**-8)
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=0, atol=near)


@pytest.mark.parametrize(
    ("backend", "tokens", "head_dim", "dtype", "expected"),
    [
        ("tpu", 1024, 128, "bfloat16", "splash"),
        ("tpu", 1024, 64, "bfloat16", "xla"),  # half of the lanes would be empty
        ("tpu", 64, 128, "bfloat16", "xla"),  # few tokens need no kernel
        ("gpu", 1024, 128, "bfloat16", "cudnn"),
        ("gpu", 1024, 128, "float32", "xla"),  # cuDNN has no float32 kernel
        ("gpu", 1024, 256, "bfloat16", "xla"),  # nor a kernel for such heads on every GPU
        ("cpu", 1024, 128, "bfloat16", "xla"),
    ],
)
def test_auto_uses_the_kernel_if_it_supports_the_inputs(backend, tokens, head_dim, dtype, expected):
    assert choose(backend, tokens, head_dim, dtype) == expected


def test_unknown_or_unsupported_attention_is_refused():
    with pytest.raises(ConfigError, match=r"must be one of .* \(got 'flash'\)"):
        attention(*jnp.zeros((3, 1, 2, 1, 4)), "flash")
    with pytest.raises(ConfigError, match=r"heads of a multiple of 128 \(got 4\)"):
        attention(*jnp.zeros((3, 1, 2, 1, 4)), "splash")


# ---------------------------------------------------------------------------------------------
# Shapes


def test_abstract_matches_the_shapes_of_init(params):
    _, shapes, axes = radit.abstract(CONFIG)
    assert jax.tree.structure(shapes) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(shapes), jax.tree.leaves(params), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) == (b.shape, jnp.float32)
    jax.tree.map(lambda shape, names: _check_axes(shape, names), shapes, axes)


def _check_axes(shape, names):
    assert len(names) == len(shape.shape)
    assert names.count("layers") == (1 if names[0] == "layers" else 0)
    assert ("layers" in names) <= (shape.shape[0] == CONFIG.depth)


def test_only_blocks_have_a_layers_dimension(params):
    _, _, axes = radit.abstract(CONFIG)
    assert {names[0] for names in axes["blocks"].values()} == {"layers"}
    assert not any(
        "layers" in names
        for names in jax.tree.leaves(
            {k: v for k, v in axes.items() if k != "blocks"}, is_leaf=lambda x: isinstance(x, tuple)
        )
    )


def test_layers_are_initialised_differently():
    blocks = jax.jit(radit.init, static_argnums=0)(CONFIG, jax.random.key(0))["blocks"]
    for name in ("qkv", "gate", "down"):
        assert not np.array_equal(blocks[name][0], blocks[name][1])


def test_xl_has_between_1_3_and_1_4_billion_parameters():
    xl = ModelConfig(
        size=64,
        channels=16,
        patch=2,
        width=2048,
        depth=24,
        heads=16,
        mlp_width=5632,
        adaln_rank=256,
        rope_theta=100.0,
        dtype="bfloat16",
    )
    _, shapes, _ = radit.abstract(xl)
    count = sum(math.prod(shape.shape) for shape in jax.tree.leaves(shapes))
    assert 1.3e9 < count < 1.4e9
    assert (xl.tokens, xl.head_dim) == (1024, 128)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_products_of_float32_outside_of_the_blocks_are_exact_on_every_device(params, inputs, dtype):
    """Accelerators compute a float32 product in bfloat16 or TF32 unless it asks for more."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    apply = radit.apply(config, Execution("xla"))

    def loss(params):
        return jnp.square(apply(params, *inputs)).sum()

    found = list(products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))
    assert len(found) > 30
    exact = 0
    for equation in found:
        float32 = all(variable.aval.dtype == jnp.float32 for variable in equation.invars)
        precision = equation.params["precision"]
        highest = precision == (jax.lax.Precision.HIGHEST,) * 2
        exact += highest
        assert highest == float32 or dtype == "float32", equation
    # Two embedders of two products, four of modulation and the head, and their gradients.
    assert exact >= 2 * 9


def products(jaxpr):
    """Every `dot_general` of a program, also within scans and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)
