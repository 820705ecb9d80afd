"""Metrics of a binary classifier, in NumPy: AUC, accuracy and log loss.

They are computed on public rows; a metric on a site's rows would be a release of its
own. This module knows no model and no table.
"""

import numpy as np
from numpy.typing import NDArray


def auc(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The chance that a positive row scores above a negative one; ties count half.

    Args:
        scores: Any finite or infinite numbers, shape (rows,); larger is more positive.
        targets: 0 or 1, shape (rows,).

    Returns:
        Area under the ROC curve, in [0, 1]; NaN if one of the classes is absent.

    Source: Mann and Whitney 1947; the sum of mid-ranks of the positive rows.
    """
    positive = targets == 1
    num_positive = int(positive.sum())
    num_negative = len(targets) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mid_ranks[inverse][positive].sum())
    wins = rank_sum - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * num_negative)


def accuracy(logits: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The share of rows on the right side of a chance of one half; NaN for no rows.

    Args:
        logits: Log-odds, shape (rows,).
        targets: 0 or 1, shape (rows,).
    """
    if len(targets) == 0:
        return float("nan")
    return float(np.mean((logits > 0) == (targets == 1)))


def log_loss(logits: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Mean negative log-likelihood in nats; NaN for no rows, never an overflow.

    Args:
        logits: Log-odds, finite, shape (rows,).
        targets: 0 or 1, shape (rows,).
    """
    if len(targets) == 0:
        return float("nan")
    wide = np.asarray(logits, dtype=np.float64)
    # log(1 + e^z) - y z, with e taken of a number that is never positive
    losses = np.maximum(wide, 0) - wide * targets + np.log1p(np.exp(-np.abs(wide)))
    return float(losses.mean())
