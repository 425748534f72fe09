"""A bootstrap over readers and patients: an interval that assumes no distribution."""

import numpy as np

REPLICATES = 1000
ROWS = 100  # replicates at once: 100 × 400 images in products with the kernel of a reader


def reader_case(
    pairs: np.ndarray,
    synthetic: np.ndarray,
    real: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean AUC, readers and patients resampled.

    Patients with films of one kind are resampled among their like, so that the number of each kind
    hardly changes.

    Args:
      pairs: Kernel of each reader, `[readers, synthetic, real]`.
      synthetic: Patient of each synthetic image, `[synthetic] int`.
      real: Patient of each real image, `[real] int`.
      rng: Source of randomness.
      level: Confidence level.
    """
    patients = np.union1d(synthetic, real)
    kind = np.isin(patients, synthetic) + 2 * np.isin(patients, real)
    of_synthetic, of_real = np.searchsorted(patients, synthetic), np.searchsorted(patients, real)
    readers = len(pairs)
    means = []
    for _ in range(REPLICATES // ROWS):
        weights = np.empty((ROWS, len(patients)))
        for one in np.unique(kind):
            count = int((kind == one).sum())
            weights[:, kind == one] = rng.multinomial(count, np.full(count, 1 / count), ROWS)
        left, right = weights[:, of_synthetic], weights[:, of_real]
        area = np.stack([((left @ pair) * right).sum(1) for pair in pairs], 1)
        area /= (left.sum(1) * right.sum(1))[:, None]
        chosen = rng.multinomial(readers, np.full(readers, 1 / readers), ROWS) / readers
        means.append((area * chosen).sum(1))
    low, high = np.quantile(np.concatenate(means), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def of_proportions(
    outcomes: np.ndarray, patient: np.ndarray, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean share of correct pairs, `outcomes` `[readers, pairs]`."""
    names, which = np.unique(patient, return_inverse=True)
    readers, count = len(outcomes), len(names)
    weights = rng.multinomial(count, np.full(count, 1 / count), REPLICATES)[:, which]
    share = weights @ outcomes.T / weights.sum(1, keepdims=True)
    chosen = rng.multinomial(readers, np.full(readers, 1 / readers), REPLICATES) / readers
    low, high = np.quantile((share * chosen).sum(1), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
