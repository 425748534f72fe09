"""What the oracle of phantoms still reads from reconstructions, by attribute and value."""

import numpy as np

from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.evaluate import intervals
from rfxray.evaluate.classifier import READ
from rfxray.evaluate.figure import Figure


def figures(
    read: dict[str, np.ndarray],
    attributes: Attributes,
    clusters: np.ndarray,
    n_original: int,
) -> list[Figure]:
    """Share of the images of each value that are read as what they are, and the error of age.

    Args:
      read: Values that the oracle read, `[n] float32` for each attribute (`Oracle.predict`).
      attributes: What the phantoms were drawn with, `[n, 19]`.
      clusters: Patient of each image, `[n] int`.
      n_original: Number of originals, for the figures.
    """
    found = []
    for attribute in READ:
        rows = np.asarray(attributes.known[:, INDEX[attribute.name]])
        drawn = np.asarray(attributes.values[:, INDEX[attribute.name]])
        if attribute.continuous:
            if rows.any():
                errors = np.abs(read[attribute.name][rows] - drawn[rows]).astype(np.float64)
                variance, count = intervals.cluster_variance(errors, clusters[rows])
                name = f"error of {attribute.name}, {attribute.unit}"
                value = float(errors.mean())
                found.append(
                    intervals.student(name, value, variance, count, n_original, len(errors))
                )
            continue
        for number, value in enumerate(attribute.values):
            of_value = rows & (drawn == number)
            if of_value.any():
                hits = read[attribute.name][of_value] == number
                name = f"{attribute.name}={value} read right"
                found.append(
                    intervals.proportion(name, hits, clusters[of_value], n_original, len(hits))
                )
    return found
