"""Metrics of classes and masks, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from guilder_shared import metrics, tasks


def test_classes_are_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(200, 4))
    targets = rng.integers(0, 4, 200).astype(np.float32)
    chances = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    claimed = outputs.argmax(1)

    assert metrics.top_accuracy(outputs, targets) == np.mean(claimed == targets)
    assert metrics.macro_f1(outputs, targets) == pytest.approx(
        f1_score(targets, claimed, average="macro")
    )
    assert metrics.cross_entropy(outputs, targets) == pytest.approx(
        log_loss(targets, chances)
    )
    assert metrics.macro_auc(outputs, targets) == pytest.approx(
        roc_auc_score(targets, chances, multi_class="ovr", average="macro")
    )


def test_an_auc_of_classes_leaves_out_those_that_nobody_or_everybody_has() -> None:
    outputs = np.array([[3, 1, 0], [0, 3, 0], [0, 0, 3]], float)

    # class 0 is told apart; of two rows of class 1 one lies above the other class
    assert metrics.macro_auc(outputs, np.array([0.0, 1.0, 1.0])) == (1.0 + 0.5) / 2
    assert math.isnan(metrics.macro_auc(outputs, np.zeros(3)))


def test_a_class_that_nobody_has_or_claims_counts_nothing() -> None:
    outputs = np.array([[1, 0, 0], [1, 0, 0]], float)

    assert metrics.macro_f1(outputs, np.array([0.0, 1.0])) == pytest.approx(1 / 3)


def test_dice_is_twice_the_overlap_by_both_areas() -> None:
    logits = np.array([[[1, 1], [-1, -1]], [[-1, -1], [-1, -1]]], float)
    targets = np.array([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], float)

    assert metrics.dice(logits, targets) == pytest.approx((0.5 + 1) / 2)


def test_no_rows_have_no_numbers() -> None:
    none = np.zeros((0, 3))

    assert math.isnan(metrics.top_accuracy(none, none[:, 0]))
    assert math.isnan(metrics.macro_f1(none, none[:, 0]))
    assert math.isnan(metrics.macro_auc(none, none[:, 0]))
    assert math.isnan(metrics.cross_entropy(none, none[:, 0]))
    assert math.isnan(metrics.dice(none[:, None], none[:, None]))


def test_two_classes_have_an_auc_as_well() -> None:
    recipe = tasks.recipe("text-classification")
    outputs = np.array([[0, 1], [1, 0], [0, 3]], np.float32)

    measured = recipe.metrics(outputs, np.array([0, 0, 1], np.float32))

    assert measured["auc"] == 1.0
    assert set(measured) == {"auc", "accuracy", "f1", "loss"}


@pytest.mark.parametrize("data", ["tabular", "text", "image"])
def test_more_classes_have_a_macro_auc(data: str) -> None:
    recipe = tasks.recipe(f"{data}-classification")

    measured = recipe.metrics(np.eye(3, dtype=np.float32), np.arange(3, dtype="f4"))

    assert measured["macro_auc"] == measured["accuracy"] == 1.0
    assert set(measured) == {"macro_auc", "accuracy", "f1", "loss"}


def test_a_masks_loss_is_one_a_row_and_vanishes_where_all_is_right() -> None:
    import torch

    mask = (torch.arange(2 * 4 * 4).view(2, 4, 4) % 3 == 0).float()
    losses = tasks.recipe("image-segmentation").losses

    right = losses((mask[:, None] * 2 - 1) * 50, mask)
    wrong = losses((mask[:, None] * 2 - 1) * -50, mask)

    assert right.shape == (2,)
    assert right.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert wrong.min() > 10
