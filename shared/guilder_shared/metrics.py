"""Metrics of classifiers and of masks, in NumPy.

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


def top_accuracy(outputs: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The share of rows whose highest output is their class; NaN for no rows.

    Args:
        outputs: Log-odds of each class, shape (rows, classes); of equals the first
            wins.
        targets: Numbers of classes, shape (rows,).
    """
    if len(targets) == 0:
        return float("nan")
    return float(np.mean(outputs.argmax(axis=1) == targets))


def macro_f1(outputs: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The mean of every class' F1, over classes that are there or are claimed.

    Args:
        outputs: Log-odds of each class, shape (rows, classes).
        targets: Numbers of classes, shape (rows,).

    Returns:
        In [0, 1]; NaN for no rows.
    """
    if len(targets) == 0:
        return float("nan")
    num_classes = outputs.shape[1]
    claimed, wanted = outputs.argmax(axis=1), targets.astype(np.int64)
    right = np.bincount(wanted[claimed == wanted], minlength=num_classes)
    seen = np.bincount(claimed, minlength=num_classes)
    seen = seen + np.bincount(wanted, minlength=num_classes)
    return float(np.mean(2 * right[seen > 0] / seen[seen > 0]))


def cross_entropy(
    outputs: NDArray[np.floating], targets: NDArray[np.floating]
) -> float:
    """Mean negative log-likelihood in nats; NaN for no rows, never an overflow.

    Args:
        outputs: Log-odds of each class, finite, shape (rows, classes).
        targets: Numbers of classes, shape (rows,).
    """
    if len(targets) == 0:
        return float("nan")
    wide = np.asarray(outputs, dtype=np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    of_class = np.take_along_axis(wide, targets.astype(np.int64)[:, None], axis=1)
    return float((np.log(np.exp(wide).sum(axis=1)) - of_class[:, 0]).mean())


def macro_auc(outputs: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The mean over classes of how well each is told from all others.

    Args:
        outputs: Log-odds of each class, finite, shape (rows, classes).
        targets: Numbers of classes, shape (rows,).

    Returns:
        In [0, 1]; of the classes that some rows have and some have not, NaN if there
        is none.

    Source: Provost and Domingos 2003, one against the rest, each class alike.
    """
    if len(targets) == 0:
        return float("nan")
    wide = np.asarray(outputs, dtype=np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    chances = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    found = [auc(chances[:, c], targets == c) for c in range(outputs.shape[1])]
    defined = [each for each in found if not np.isnan(each)]
    return float(np.mean(defined)) if defined else float("nan")


def dice(logits: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """The mean over images of twice the overlap by the sum of both areas.

    Args:
        logits: Log-odds of each pixel, shape (rows, height, width).
        targets: 0 or 1, the same shape.

    Returns:
        In [0, 1]; an image without a mask, on which none is claimed, counts 1. NaN for
        no rows.
    """
    if len(targets) == 0:
        return float("nan")
    claimed, wanted = logits > 0, targets > 0
    both = (claimed & wanted).sum(axis=(1, 2))
    areas = claimed.sum(axis=(1, 2)) + wanted.sum(axis=(1, 2))
    return float(np.where(areas > 0, 2 * both / np.maximum(areas, 1), 1.0).mean())
