"""How differently two images have their power: amplitudes by octave and place.

The best guess of a detail of which the place is uncertain is a weaker one, by the absolute and by
the squared error of pixels, so what an autoencoder does not store well it leaves out. The power of
an octave within a window does not depend on the place: to leave a texture out costs more than to
draw it a little off. Fuoli et al. 2021 (arXiv 2106.00783, eq. 6) compare each amplitude of the
transform of the whole image. Here windows are transformed, as of sounds in Yamamoto et al. 2020
(arXiv 1910.11480, eq. 5), and an octave is one amplitude: a stronger copy of what is known of it
then is enough.
"""

import jax.numpy as jnp
import numpy as np
from einops import einsum, rearrange
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError

WINDOW = 16  # pixels, half of which two neighbours share
_STEP = WINDOW // 2
# Lower ends of the octaves in cycles per window; the last one has the corners of the plane as well.
OCTAVES = (1, 2, 4, 8)
_EPSILON = 1e-8  # of a squared amplitude, which has no slope at 0 otherwise


def distance(
    made: Float[AnyArray, "batch height width 1"], image: Float[AnyArray, "batch height width 1"]
) -> Float[Array, " batch"]:
    """Mean over windows and octaves of the difference of both amplitudes, without its sign.

    Raises:
      ConfigError: If a side is not a multiple of 8, or below 16.
    """
    return jnp.abs(amplitudes(made) - amplitudes(image)).mean((1, 2, 3))


def amplitudes(
    image: Float[AnyArray, "batch height width 1"],
) -> Float[Array, "batch rows columns 4"]:
    """Root of the mean power of each octave in each window of 16 pixels, with a step of 8.

    The transform is orthonormal and the Hann window has a mean square of 1, so the unit is that of
    pixels: white noise of deviation s has amplitudes of about s in every octave.
    """
    height, width = image.shape[1:3]
    if height % _STEP or width % _STEP or min(height, width) < WINDOW:
        raise ConfigError(
            f"objective.spectrum_weight needs sides that are multiples of {_STEP} and at least "
            f"{WINDOW} (got {height} × {width})"
        )
    cells = rearrange(jnp.asarray(image), "n (r y) (c x) 1 -> n r c y x", y=_STEP, x=_STEP)
    rows = jnp.concatenate([cells[:, :-1], cells[:, 1:]], 3)
    windows = jnp.concatenate([rows[:, :, :-1], rows[:, :, 1:]], 4)
    transform = jnp.fft.rfft2(windows * _hann(), norm="ortho")
    power = jnp.square(transform.real) + jnp.square(transform.imag)
    return jnp.sqrt(einsum(power, _octaves(), "n r c y x, y x o -> n r c o") + _EPSILON)


def _hann() -> np.ndarray:
    one = np.hanning(WINDOW + 1)[:-1]
    return (np.outer(one, one) / np.square(one).mean()).astype(np.float32)


def _octaves() -> np.ndarray:
    """Shares of the frequencies of a window in its octaves, [16, 9, 4] float32."""
    down, across = np.fft.fftfreq(WINDOW) * WINDOW, np.arange(WINDOW // 2 + 1)
    radius = np.hypot(down[:, None], across)
    # The columns between stand for those of the half that is left out.
    counts = np.where((across > 0) & (across < WINDOW // 2), 2.0, 1.0)
    ends = (*OCTAVES[1:], np.inf)
    inside = [(radius >= low) & (radius < high) for low, high in zip(OCTAVES, ends, strict=True)]
    shares = np.stack(inside, -1) * counts[:, None]
    return (shares / shares.sum((0, 1))).astype(np.float32)
