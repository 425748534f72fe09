"""The area under the ROC curve of several readers, and the covariances of these areas.

AUC is the Mann–Whitney estimate: the share of pairs of a synthetic and a real image in which the
synthetic one has the higher score; a tie counts one half. `scores` are `[..., readers, cases]`; a
row may be a reader or a reader under one modality, and the axes in front are studies of a
simulation. `truth` is `[cases] bool`, true for synthetic. Films of one patient are not independent,
so `cluster` (`[cases] int`) names the patient of each.
"""

import numpy as np
from scipy import stats


def placements(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each image, the share of the other kind that it is rightly above (or below).

    Their mean over the synthetic images is the AUC, and so is their mean over the real ones.

    Args:
      scores: `[..., readers, cases]`, finite.
      truth: `[cases] bool`.

    Returns:
      `[..., readers, cases] float64` in [0, 1]. Source: DeLong et al. 1988, eq. 1 to 4, by midranks
      (Sun and Xu 2014).
    """
    synthetic, real = scores[..., truth], scores[..., ~truth]
    all_ranks = stats.rankdata(scores, axis=-1)
    found = np.empty(scores.shape)
    above = all_ranks[..., truth] - stats.rankdata(synthetic, axis=-1)
    below = all_ranks[..., ~truth] - stats.rankdata(real, axis=-1)
    found[..., truth] = above / real.shape[-1]
    found[..., ~truth] = 1 - below / synthetic.shape[-1]
    return found


def area(placed: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """AUC of each reader, `[..., readers]`, from `placements`."""
    return placed[..., truth].mean(-1)


def _sums_by_cluster(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Sums over the cases of each cluster, `[..., readers, clusters]`."""
    names, which = np.unique(cluster, return_inverse=True)
    if len(names) == len(cluster):
        return values
    return values @ np.eye(len(names))[which]


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over the last axis of all products of two readers, `[..., readers, readers]`."""
    return a @ np.swapaxes(b, -1, -2)


def delong(placed: np.ndarray, truth: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Covariances of the AUCs over samples of cases, for these readers.

    Without films of one patient it is DeLong et al. 1988; with them Obuchowski 1997 (Biometrics
    53:567), which is the same formula on the sums of each patient.

    Args:
      placed: Placements, `[..., readers, cases]`.
      truth: `[cases] bool`.
      cluster: `[cases] int`.

    Returns:
      `[..., readers, readers] float64`.
    """
    rest = placed - area(placed, truth)[..., None]
    total = 0.0
    for kind in (truth, ~truth):
        sums = _sums_by_cluster(rest[..., kind], cluster[kind])
        clusters, films = sums.shape[-1], kind.sum()
        total = total + _products(sums, sums) * (clusters / (clusters - 1) / films**2)
    both = np.intersect1d(cluster[truth], cluster[~truth])
    if len(both):
        sides = [
            np.stack([rest[..., kind & (cluster == name)].sum(-1) for name in both], -1)
            for kind in (truth, ~truth)
        ]
        clusters = len(np.unique(cluster))
        cross = _products(*sides) * (clusters / (clusters - 1) / truth.sum() / (~truth).sum())
        total = total + cross + np.swapaxes(cross, -1, -2)
    return total


def wins(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1, ½ or 0 for each pair of images, `[readers, synthetic, real]`; its mean is the AUC."""
    synthetic, real = scores[:, truth, None], scores[:, None, ~truth]
    return (synthetic > real) + 0.5 * (synthetic == real)


def jackknife(scores: np.ndarray, truth: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Covariances of the AUCs by leaving out each patient once, `[readers, readers]`.

    Args:
      scores: `[readers, cases]`.
      truth: `[cases] bool`.
      cluster: `[cases] int`.
    """
    pairs = wins(scores, truth)
    rows, columns, total = pairs.sum(2), pairs.sum(1), pairs.sum((1, 2))
    without = []
    for name in np.unique(cluster):
        synthetic = np.flatnonzero(cluster[truth] == name)
        real = np.flatnonzero(cluster[~truth] == name)
        twice = pairs[:, synthetic][:, :, real].sum((1, 2))
        left = total - rows[:, synthetic].sum(1) - columns[:, real].sum(1) + twice
        without.append(left / (rows.shape[1] - len(synthetic)) / (columns.shape[1] - len(real)))
    count = len(without)
    rest = np.stack(without, -1)
    rest = rest - rest.mean(-1, keepdims=True)
    return _products(rest, rest) * ((count - 1) / count)


def moments(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Unbiased second moments of the kernel for each two readers, `[4, readers, readers]`.

    In order: pairs that share both images, the synthetic one, the real one, neither (Gallas 2006,
    Acad Radiol 13:353). It takes independent cases: one film of each patient.
    """
    pairs = wins(scores, truth)
    readers, synthetic, real = pairs.shape
    flat = pairs.reshape(readers, -1)
    both = flat @ flat.T
    rows, columns = pairs.sum(2), pairs.sum(1)
    same_synthetic, same_real = rows @ rows.T, columns @ columns.T
    sums = flat.sum(1)
    n = synthetic * real
    return np.stack(
        [
            both / n,
            (same_synthetic - both) / (n * (real - 1)),
            (same_real - both) / (n * (synthetic - 1)),
            (np.outer(sums, sums) - same_synthetic - same_real + both)
            / (n * (real - 1) * (synthetic - 1)),
        ]
    )


def moment_weights(synthetic: int, real: int) -> np.ndarray:
    """Weights with which the four `moments` give the second moment of two AUCs; their sum is 1."""
    shared = np.array([1, real - 1, synthetic - 1, (real - 1) * (synthetic - 1)])
    return shared / (synthetic * real)


def unbiased(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Unbiased covariances of the AUCs, `[readers, readers]`, for one film of each patient."""
    found = moments(scores, truth)
    weights = moment_weights(int(truth.sum()), int((~truth).sum()))
    return np.tensordot(weights, found, 1) - found[3]


def of_proportions(outcomes: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Covariances of shares of correct answers, `[..., readers, readers]`, for pairs of images.

    Args:
      outcomes: `[..., readers, cases]`, 1 if the reader found the synthetic image of the pair.
      cluster: `[cases] int`.
    """
    rest = outcomes - outcomes.mean(-1, keepdims=True)
    sums = _sums_by_cluster(rest, cluster)
    clusters = sums.shape[-1]
    return _products(sums, sums) * (clusters / (clusters - 1) / outcomes.shape[-1] ** 2)
