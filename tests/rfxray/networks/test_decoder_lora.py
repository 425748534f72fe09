"""An adapter of a decoder as the network of a config."""

import jax
import numpy as np
import pytest

from rfxray.config.load import check_config
from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds, lora
from tests.rfxray.networks.parity import draw


def network(**keys):
    made = defaults(model="decoder_lora", objective="autoencoding")
    tiny = {"size": 16, "channels": 3, "width": 4, "multipliers": (1, 2), "blocks": 1, "z": 2}
    made.model.update(tiny | {"groups": 2, "mid_attention": False, "rank": 2} | keys)
    return kinds.build(check_config(made).model)


def test_a_fresh_adapter_gives_the_images_of_its_base_to_the_last_bit():
    built = network()
    base = draw({name: leaf.shape for name, leaf in built.base.shapes.items()}, 0.3)
    own = jax.jit(built.init)(jax.random.key(0))
    assert own.keys() == built.shapes.keys() == built.axes.keys()
    image = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 1)).astype(np.float32)

    @jax.jit
    def both(params, image):
        latents = built.apply(params, image, method="encode").mean
        return latents, built.apply(params, latents, method="decode")

    bare = both(base, image)
    fresh = both(built.merge(base, own), image)
    assert fresh[1].shape == image.shape  # grey, through three channels
    for one, other in zip(fresh, bare, strict=True):
        np.testing.assert_array_equal(one, other)
    trained = {n: v + 0.3 * n.endswith(lora.B) for n, v in own.items()}
    latents, images = both(built.merge(base, trained), image)
    np.testing.assert_array_equal(latents, bare[0])
    assert np.abs(images - bare[1]).max() > 0.01


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"rank": 0}, "model.rank must be at least 1 (got 0)"),
        ({"alpha": 0.0}, "model.alpha must be above 0 (got 0.0)"),
        ({"targets": ()}, "model.targets must name a layer of the decoder, such as conv1"),
        ({"targets": ("conv1", "to_q")}, "no layer of the decoder is named 'to_q'"),
        ({"targets": ("encoder.conv_in",)}, "no layer of the decoder is named 'encoder.conv_in'"),
        ({"groups": 3}, "must be multiples of model.groups=3"),
    ],
)
def test_an_adapter_of_nothing_is_refused_in_one_line(keys, line):
    with pytest.raises(ConfigError) as caught:
        network(**keys)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
