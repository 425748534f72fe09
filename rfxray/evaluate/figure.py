"""A measured figure: a value with its interval and numbers of images, or the reason why not."""

import dataclasses
import math

from rfxray.errors import DataError


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measure of two sets of images. What could not be estimated is None, never NaN.

    Attributes:
      name: Name of the measure: "FD", "FD64", "FD∞", "KID", "energy distance", "precision", …
      value: Estimate, or None if it is not estimable.
      low: Lower end of the 95% interval, or None if that is not estimable.
      high: Upper end of the 95% interval, or None.
      n_real: Number of real images.
      n_synthetic: Number of synthetic images.
      reason: One line why the value or its interval is None; None if both are there.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n_real: int
    n_synthetic: int
    reason: str | None = None

    def __post_init__(self):
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if not all(map(math.isfinite, numbers)):
            raise DataError(f"{self.name}: {numbers} is not finite; look at the features")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise DataError(
                f"{self.name}: the interval {self.low} to {self.high} has no width; give a reason"
            )
        if (self.low is None or self.high is None) != (self.reason is not None):
            raise DataError(f"{self.name}: a reason is given exactly if the interval is missing")

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} not estimable ({self.reason})"
        if self.low is None or self.high is None:
            return f"{self.name} {self.value:.4g} (no interval: {self.reason})"
        return f"{self.name} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def not_estimable(name: str, n_real: int, n_synthetic: int, reason: str | Exception) -> Figure:
    """The figure of a measure that these sets do not allow, with the reason, a line."""
    return Figure(name, None, None, None, n_real, n_synthetic, str(reason))
