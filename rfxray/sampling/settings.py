"""How images are drawn: every setting, checked, and what follows from it."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError
from rfxray.sampling import guidance as guide
from rfxray.sampling import shown, solvers

LAST = ("velocity", "data")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are drawn from a model.

    Attributes:
      seed: Seed of the noise; image i of a seed starts from the same noise for any request.
      steps: Number of intervals of the time grid.
      solver: Key of `solvers.SOLVERS`, or `adaptive`, which chooses its steps by `tolerance`. The
        default has the least error on a uniform grid (docs/sampling.md).
      guidance: Classifier-free weight w; 1 is none. The default is that of the command too.
      shift: Shift of the time grid, see `flow.shift_timestep`.
      batch_size: Images per call of the network (times the branches of guidance).
      spacing: Spacing of the time grid, one of `solvers.SPACINGS`.
      times: Custom grid, falling from 1 to 0, in place of steps, shift and spacing.
      weights: Factored guidance, ((attribute names, weight), …); `guidance` is then the weight of
        the attributes that no group names.
      negative: Attributes that guidance leads away from, ((name, value), …) or a mapping: they are
        what the base of guidance knows, in place of nothing.
      interval: Times within which there is guidance.
      rescale: Share of the contrast added by guidance that is taken back, 0 to 1.
      optimised: Whether to scale the base and skip the first interval of the grid, as CFG-Zero*.
      churn: Strength of the stochastic sampler, 0 is the ODE, see `stochastic.integrate`; 1 is
        w = σ_t of SiT's equation, 2 the default of its public code.
      tolerance: Error tolerance of the adaptive solver; the default keeps every image within a
        grey level of 8 bits (docs/sampling.md).
      last: How the image is reached: `velocity` follows the ODE to t = 0; `data` ends at the last
        time of the grid from `flow.T_FLOOR` on, with the network's estimate of the data there.
    """

    seed: int = 0
    steps: int = 50
    solver: str = "ab2"
    guidance: float = 2.0
    shift: float = 1.0
    batch_size: int = 64
    spacing: str = "uniform"
    times: tuple[float, ...] = ()
    weights: tuple[tuple[tuple[str, ...], float], ...] = ()
    negative: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    optimised: bool = False
    churn: float = 0.0
    tolerance: float = 1e-4
    last: str = "velocity"

    def __post_init__(self):
        if self.solver != "adaptive" and self.solver not in solvers.SOLVERS:
            names = ", ".join((*solvers.SOLVERS, "adaptive"))
            raise ConfigError(f"no solver {self.solver!r}, only {names}")
        for weight in (self.guidance, *(weight for _, weight in self.weights)):
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"guidance={weight} must be a number of at least 0")
        if not 1 <= self.steps <= solvers.MOST_STEPS or self.batch_size < 1:
            raise ConfigError(
                f"steps={self.steps}, batch_size={self.batch_size}: at least 1 each, and steps at "
                f"most {solvers.MOST_STEPS:,}"
            )
        if not 0 < self.shift < float("inf"):
            raise ConfigError(f"shift={self.shift} must be a number above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed} must lie in [0, 2³²)")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"interval={low:g},{high:g} does not rise within 0 to 1")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"rescale={self.rescale} must lie in 0 to 1")
        if not 0 <= self.churn < float("inf") or not 0 < self.tolerance < 1:
            raise ConfigError(
                f"churn={self.churn} must be at least 0 and tolerance={self.tolerance} in (0, 1)"
            )
        if self.churn and self.solver != "euler":
            raise ConfigError(f"churn={self.churn} is for the euler solver, not {self.solver}")
        if self.last not in LAST:
            raise ConfigError(f"no last={self.last!r}; choose one of {', '.join(LAST)}")
        if self.last == "data" and self.solver == "adaptive":
            raise ConfigError("last=data is for a grid of times; the adaptive solver has none")
        guide.group_masks([names for names, _ in self.weights])
        negative = vocabulary.parse(
            [f"{name}={value}" for name, value in dict(self.negative).items()]
        )
        object.__setattr__(self, "negative", tuple(negative.items()))
        if len(self.grid()) < 3 and self.optimised:
            raise ConfigError("optimised skips the first step, so it needs at least 2")

    def __repr__(self) -> str:
        return shown.settings_repr(self)

    def grid(self) -> Float[np.ndarray, " times"]:
        """The times, [steps + 1] float32 from 1 to 0."""
        if self.times:
            return solvers.given_grid(self.times)
        return solvers.time_grid(self.steps, self.shift, self.spacing)

    def base(self, attributes: Attributes) -> Attributes | None:
        """The condition that guidance leads away from, [batch, 19]; None if nothing is known."""
        if not self.negative:
            return None
        row = vocabulary.encode(dict(self.negative))
        return Attributes(*(jnp.broadcast_to(a, attributes.known.shape) for a in row))

    def rule(self) -> guide.Rule:
        """How the branches of guidance are combined."""
        rule = guide.optimised(guide.affine) if self.optimised else guide.affine
        return guide.rescaled(rule, self.rescale) if self.rescale else rule

    def refuse_idle(self) -> "Settings":
        """These settings; a ConfigError for one that changes guidance, if every weight is 1."""
        if any(weight != 1 for weight in (self.guidance, *(w for _, w in self.weights))):
            return self
        plain = {"negative": (), "rescale": 0.0, "interval": (0.0, 1.0), "optimised": False}
        for name, default in plain.items():
            if getattr(self, name) != default:
                raise ConfigError(
                    f"{name} changes guidance, and guidance of 1 is none; set guidance to another "
                    f"weight, or leave {name} out"
                )
        return self

    def traced_weights(self) -> np.ndarray:
        """What a sweep over weights changes without compiling again: a scalar, or [groups]."""
        if not self.weights:
            return np.asarray(self.guidance, np.float32)
        return np.array([*(weight for _, weight in self.weights), self.guidance], np.float32)

    def program(self) -> "Settings":
        """The settings that a compiled program depends on."""
        return dataclasses.replace(
            self,
            seed=0,
            batch_size=1,
            guidance=float(self.guidance == 1),
            weights=tuple((names, 1.0) for names, _ in self.weights),
        )


def with_changes(settings: Settings, guidance: float | None, seed: int | None) -> Settings:
    """The settings with another guidance or seed, unless these are None."""
    changes = {"guidance": guidance, "seed": seed}
    return dataclasses.replace(settings, **{k: v for k, v in changes.items() if v is not None})
