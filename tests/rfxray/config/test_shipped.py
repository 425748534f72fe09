"""The shipped configs are valid, found by name, and have the documented size."""

import functools
from pathlib import Path

import jax
import pytest

from rfxray.config.load import load_config
from rfxray.config.schema import flatten, keys_of
from rfxray.errors import ConfigError
from rfxray.training import recipe

FOLDER = Path(__file__).resolve().parents[3] / "configs"
FILES = sorted(FOLDER.glob("[!_]*.py"))

# Parameters on latents, steps of a full run, GFLOP per token, as in the table of configs/radit.py.
RADIT = {
    "s": (44.3e6, 381_470, 0.307),
    "m": (130.4e6, 381_470, 0.845),
    "b": (286.6e6, 381_470, 1.79),
    "xl": (1_364.9e6, 762_939, 8.01),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_config_is_valid_and_found_by_name(file):
    config = load_config(str(file))
    assert flatten(config).keys() == keys_of(config).keys()
    assert load_config(file.stem) == config


@pytest.mark.parametrize("name", ["smoke", "phantom_long", "hannover"])
def test_small_configs_have_their_documented_size(name):
    built = recipe.build(load_config(name))
    assert built.parameters == pytest.approx(1.2e6, rel=0.05)
    assert built.model.tokens == 64


@pytest.mark.parametrize(
    ("name", "size", "tokens", "parameters", "petaflop"),
    [
        ("nih:on=cpu", 128, 64, 6.1e6, None),
        ("nih:on=gpu", 128, 256, 25.5e6, 142),
        ("own", 256, 256, 44.5e6, 495),
    ],
)
def test_configs_of_real_radiographs_have_their_documented_size(
    name, size, tokens, parameters, petaflop
):
    config = load_config(name)
    built = recipe.build(config)
    assert built.parameters == pytest.approx(parameters, rel=0.01)
    assert (built.model.input_shape, built.model.tokens) == ((size, size, 1), tokens)
    assert config.optim.decay < config.steps
    if petaflop:
        assert config.steps * recipe.model_flops(config) / 1e15 == pytest.approx(petaflop, rel=0.01)


def test_masked_has_its_documented_size():
    built = recipe.build(load_config("masked"))
    assert built.parameters == pytest.approx(0.6e6, rel=0.01)
    assert (built.model.input_shape, built.model.tokens) == ((64, 64, 1), 64)


@pytest.mark.parametrize(("size", "parameters"), [(64, 0.08e6), (224, 0.63e6)])
def test_classifier_has_its_documented_size(size, parameters):
    built = recipe.build(load_config(f"classifier:size={size}"))
    assert built.parameters == pytest.approx(parameters, rel=0.05)
    assert built.model.input_shape == (size, size, 1)
    with pytest.raises(ConfigError, match="must be size=PIXELS, from 32 on"):
        load_config("classifier:size=big")


def test_nih_is_for_a_cpu_unless_it_says_otherwise():
    assert load_config("nih") == load_config("nih:on=cpu")


@pytest.mark.parametrize("space", ["latent", "pixel"])
@pytest.mark.parametrize("size", RADIT)
def test_every_radit_size_matches_its_table(size, space):
    config = load_config(f"radit:size={size},space={space}")
    built = recipe.build(config)
    parameters, steps, gigaflops = RADIT[size]
    more = built.parameters - parameters
    assert more == pytest.approx(0, abs=0.05e6) if space == "latent" else 0.15e6 < more < 0.85e6
    assert config.steps == steps
    tokens = config.batch_size * built.model.tokens
    assert recipe.model_flops(config) / tokens == pytest.approx(1e9 * gigaflops, rel=0.005)
    assert built.model.tokens == 1024
    assert built.model.input_shape == ((64, 64, 16) if space == "latent" else (512, 512, 1))
    assert config.objective.prediction == ("v" if space == "latent" else "x")
    assert config.objective.shift == 2.0  # ratio of the sides of the token grids, 32 / 16


def test_documented_table_of_radit_matches_the_tested_one():
    text = (FOLDER / "radit.py").read_text()
    for size, (parameters, steps, gigaflops) in RADIT.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {size:2} |")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == f"{parameters / 1e6:,.1f} M"
        assert float(cells[2]) == gigaflops
        assert cells[4] == f"{steps:,}"


def test_radit_has_defaults_for_its_arguments():
    assert load_config("radit") == load_config("radit:size=xl,space=latent")
    assert load_config("radit:space=pixel") == load_config("radit:size=xl,space=pixel")


@pytest.mark.parametrize(
    "argument", ["size=xxl", "space=voxel", "depth=3", "s", "size=s;space=pixel"]
)
def test_radit_refuses_unknown_arguments(argument):
    with pytest.raises(ConfigError) as caught:
        load_config(f"radit:{argument}")
    line = str(caught.value)
    for part in (f"'{argument}'", "size of s, m, b, xl", "space of latent, pixel"):
        assert part in line
    assert "\n" not in line


def test_unknown_config_name_error_lists_the_existing_ones():
    with pytest.raises(ConfigError) as caught:
        load_config("smok")
    assert str(caught.value).startswith("no config file smok; give the path of a Python file")
    for file in FILES:
        assert file.stem in str(caught.value)


@pytest.mark.parametrize(
    ("size", "side", "latents", "parameters"),
    [
        ("tiny", 64, (16, 16, 4), 0.36e6),
        ("small", 128, (16, 16, 16), 2.28e6),
        ("full", 512, (64, 64, 16), 83.8e6),
    ],
)
def test_every_rad_vae_size_matches_its_table(size, side, latents, parameters):
    built = recipe.build(load_config(f"rad_vae:size={size}"))
    assert built.model.input_shape == (side, side, 1)
    assert built.model.parameters == pytest.approx(parameters, rel=0.01)
    image = jax.ShapeDtypeStruct((1, side, side, 1), "float32")
    encode = functools.partial(built.model.apply, method="encode")
    assert jax.eval_shape(encode, built.model.shapes, image).mean.shape == (1, *latents)
    (row,) = [
        line
        for line in (FOLDER / "rad_vae.py").read_text().splitlines()
        if line.startswith(f"| {size} |")
    ]
    assert f"{parameters / 1e6:.3g} M" in row


def test_rad_vae_is_trained_against_the_networks_that_are_asked_for():
    assert load_config("rad_vae") == load_config("rad_vae:size=full")
    for argument, parts in [
        ("size=full", {"model", "perceptual", "discriminator"}),
        ("size=tiny", {"model"}),
        ("size=tiny,adversarial=yes", {"model", "discriminator"}),
        ("size=small,perceptual=ssl", {"model", "perceptual"}),
        ("size=full,perceptual=no,adversarial=no", {"model"}),
    ]:
        built = recipe.build(load_config(f"rad_vae:{argument}"))
        assert set(built.networks) == parts
        assert set(built.optimizers) == parts - {"perceptual"}
    # The network of docs for films of 128²: 64 tokens, as of phantoms of 64².
    for argument, patch in (("size=tiny", 8), ("size=small", 16)):
        config = load_config(f"rad_vae:{argument},perceptual=ssl")
        assert config.parts.perceptual.model.patch == patch
    allowed = r"size=tiny\|small\|full; z=4\|16; perceptual=no\|ssl"
    for argument in ("size=huge", "tiny", "adversarial=ssl", "z=8"):
        with pytest.raises(ConfigError, match=allowed):
            load_config(f"rad_vae:{argument}")


@pytest.mark.parametrize(
    ("size", "latents", "base", "adapter"),
    [("tiny", (16, 16, 4), 0.36e6, 0.02e6), ("full", (32, 32, 128), 84.0e6, 3.6e6)],
)
def test_every_rad_vae_flux2_size_matches_its_table(size, latents, base, adapter):
    built = recipe.build(load_config(f"rad_vae_flux2:size={size}"))
    assert built.networks["base"].parameters == pytest.approx(base, rel=0.01)
    assert built.model.parameters == pytest.approx(adapter, rel=0.1)
    side = built.model.input_shape[0]
    image = jax.ShapeDtypeStruct((1, side, side, 1), "float32")
    encode = functools.partial(built.model.apply, method="encode")
    assert jax.eval_shape(encode, built.networks["base"].shapes, image).mean.shape == (1, *latents)
    (row,) = [
        line
        for line in (FOLDER / "rad_vae_flux2.py").read_text().splitlines()
        if line.startswith(f"| {size} |")
    ]
    assert f"{base / 1e6:.3g}" in row
    assert " × ".join(map(str, latents)) in row


def test_rad_vae_flux2_trains_the_adapter_only():
    assert load_config("rad_vae_flux2") == load_config("rad_vae_flux2:size=full")
    for argument, frozen in [
        ("size=full", {"base", "perceptual"}),
        ("size=tiny", {"base"}),
        ("size=tiny,perceptual=ssl", {"base", "perceptual"}),
    ]:
        built = recipe.build(load_config(f"rad_vae_flux2:{argument}"))
        assert set(built.networks) - {"model"} == frozen
        assert set(built.optimizers) == set(built.objective.losses) == {"model"}
    with pytest.raises(ConfigError, match=r"must be of size=tiny\|full; perceptual=no\|ssl"):
        load_config("rad_vae_flux2:size=small")


@pytest.mark.parametrize("argument", ["on=tpu", "gpu", "size=s"])
def test_nih_refuses_unknown_arguments(argument):
    with pytest.raises(
        ConfigError, match=f"'{argument}' must be on=PLACE with a place of cpu, gpu"
    ):
        load_config(f"nih:{argument}")
