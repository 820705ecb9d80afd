"""Metrics: equal to scikit-learn's, and defined at the edges."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from guilder_shared import metrics

GENERATOR = np.random.Generator(np.random.PCG64(3))
TARGETS = (GENERATOR.random(500) < 0.3).astype(np.float32)
LOGITS = (GENERATOR.normal(size=500) + TARGETS).astype(np.float32)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_auc_is_that_of_scikit_learn_with_many_few_and_no_ties(digits: int) -> None:
    scores = np.round(LOGITS, digits)

    assert metrics.auc(scores, TARGETS) == pytest.approx(
        roc_auc_score(TARGETS, scores), abs=1e-12
    )


def test_auc_of_a_constant_score_is_one_half() -> None:
    assert metrics.auc(np.zeros(500), TARGETS) == 0.5


def test_accuracy_and_loss_are_those_of_scikit_learn() -> None:
    chances = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))

    assert metrics.accuracy(LOGITS, TARGETS) == accuracy_score(TARGETS, LOGITS > 0)
    assert metrics.log_loss(LOGITS, TARGETS) == pytest.approx(
        log_loss(TARGETS, chances), rel=1e-9
    )


def test_a_sure_and_wrong_row_costs_much_and_not_infinity() -> None:
    assert metrics.log_loss(np.array([-1e4]), np.array([1.0])) == 1e4


def test_no_rows_and_one_class_leave_metrics_undefined() -> None:
    none = np.zeros(0)

    assert math.isnan(metrics.auc(LOGITS, np.ones(500)))
    assert math.isnan(metrics.accuracy(none, none))
    assert math.isnan(metrics.log_loss(none, none))
