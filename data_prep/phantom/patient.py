"""Patients as the drawing sees them: attributes and named noise, ready to broadcast."""

import dataclasses

import numpy as np

from data_prep.phantom.noise import Noise
from rfxray.attributes.vocabulary import INDEX

_ADULT = 18.0  # years


@dataclasses.dataclass(frozen=True)
class Patients:
    """Some patients; everything read from it is float32 [n, 1, 1].

    Attributes:
      attributes: True values, [n, 19].
      noise: Exogenous noise; the same noise under other attributes is the same patient.
      heart: Cardiothoracic ratio of a PA radiograph, [n], if it is a variable of its own; None
        lets it follow from cardiomegaly.
    """

    attributes: np.ndarray
    noise: Noise
    heart: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.attributes)

    def take(self, rows: np.ndarray) -> "Patients":
        heart = None if self.heart is None else self.heart[rows]
        return Patients(self.attributes[rows], self.noise.take(rows), heart)

    def value(self, name: str) -> np.ndarray:
        return self.attributes[:, INDEX[name], None, None]

    def rows(self, name: str) -> np.ndarray:
        """Which patients have a finding."""
        return np.flatnonzero(self.attributes[:, INDEX[name]] > 0.5)

    def normal(self, name: str, spread: float = 1.0, mean: float = 0.0) -> np.ndarray:
        return mean + spread * self.noise.normal(name)[:, None, None]

    def between(self, name: str, low: float, high: float) -> np.ndarray:
        u = self.noise.uniform(name)[:, None, None]
        return low + (high - low) * u

    def chance(self, name: str, share: float | np.ndarray) -> np.ndarray:
        """1 with probability `share`, else 0."""
        return (self.noise.uniform(name)[:, None, None] < share).astype(np.float32)

    def side(self, name: str) -> np.ndarray:
        """−1 for the patient's right, which is the image's left, or 1."""
        return 2 * self.chance(f"{name}/side", 0.5) - 1

    @property
    def male(self) -> np.ndarray:
        return self.value("sex")

    @property
    def supine(self) -> np.ndarray:
        """1 where the picture is AP."""
        return (self.value("view") == 1).astype(np.float32)

    @property
    def grown(self) -> np.ndarray:
        """0 at birth, 1 from 18 years."""
        return np.clip(self.value("age") / _ADULT, 0, 1) ** 0.7

    @property
    def aged(self) -> np.ndarray:
        """0 until 20 years, 1 at 90, linear."""
        return np.clip((self.value("age") - 20) / 70, 0, 1.3)

    @property
    def womanly(self) -> np.ndarray:
        """1 for a woman, 0 for a man or a child."""
        return (1 - self.male) * np.clip((self.value("age") - 9) / 7, 0, 1)
