"""Charged metrics: what one unit moves, whatever the weights, and what comes out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared import tasks
from guilder_shared.errors import StudyError
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy import accounting
from guilder_shared.privacy.statistics import Numbers
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import charged
from guilder_shared.training.evaluate import evaluate

Make = Callable[..., Study]
KEY = bytes(range(32))
QUIET = 0.05  # the least noise there may be
CHARGED = {"on": "charged", "rows": 0.3, "share": 1.0}


@pytest.fixture
def study(study_of: Make) -> Study:
    model = {"name": "mlp", "hidden": [10], "prior": 0.1}
    return study_of(evaluation=CHARGED, model=model, num_columns=30)


def cancelling(study: Study) -> Weights:
    """Only rounding is left of the output, times 2**40: it decides every answer."""
    weights, rng = registry.initial(study), np.random.default_rng(5)
    width = weights["0.bias"].size
    weights["0.weight"][:] = rng.normal(0, 0.2, weights["0.weight"].shape[1])
    weights["0.bias"][:] = 3.0
    out = np.rint(rng.normal(0, 1, width) * 2**20)
    out[-1] = -out[:-1].sum()
    weights["2.weight"][0] = out * 2.0**20
    weights["2.bias"][:] = 0.0
    return weights


def rows(num: int, persons: NDArray[np.int64] | None = None) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (num, 30)).astype(np.float32)
    return Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32), persons)


def without(examples: Examples, unit: int) -> Examples:
    units = examples.units
    kept = (np.arange(len(examples)) if units is None else units) != unit
    return Examples(
        examples.inputs[kept],
        examples.targets[kept],
        None if units is None else units[kept],
    )


def released(
    study: Study, weights: Weights, examples: Examples, **more: Any
) -> Numbers:
    named: dict[str, Any] = {"noise_multiplier": QUIET, "key": KEY} | more
    return charged.release(weights, study, examples, **named)


def in_units(study: Study, moved: Numbers) -> float:
    """A change of a release as a multiple of the sensitivity it is charged for."""
    bounds = {"losses": 5.0}
    scale = np.concatenate(
        [
            np.full(num, bounds.get(name, 1.0))
            for name, num in charged.widths(study).items()
        ]
    )
    blocks = len(charged.widths(study))
    return float(np.linalg.norm(moved / scale) / np.sqrt(blocks))


@pytest.mark.parametrize("persons", [False, True])
@pytest.mark.parametrize("hostile", [False, True])
def test_one_unit_moves_the_release_by_its_sensitivity_at_most(
    study: Study, hostile: bool, persons: bool
) -> None:
    units = np.arange(150) // 7 if persons else None
    examples = rows(150, units)
    weights = cancelling(study) if hostile else registry.initial(study)
    whole = released(study, weights, examples)  # the same key: the same noise

    moves = [
        in_units(study, whole - released(study, weights, without(examples, unit)))
        for unit in (0, 1, 7, 20)
    ]

    assert max(moves) <= 1 + 2**-7  # both are rounded to a grid of 2**-9
    assert max(moves) > 0.1


def test_a_row_that_is_not_finite_counts_as_wrong_with_the_largest_loss(
    study: Study,
) -> None:
    examples = rows(1000)
    examples.inputs[:, 3] = np.nan

    total = released(study, registry.initial(study), examples)

    assert total[:2] == pytest.approx([0, 1000], abs=2)
    assert total[2] == pytest.approx(5000, abs=10)
    assert charged.metrics(study, total)["accuracy"] < 0.01


def test_with_little_noise_the_metrics_are_those_of_public_rows(study: Study) -> None:
    examples, weights = rows(4000), registry.initial(study)
    weights["2.weight"] *= 8  # scores over several cells
    wanted = evaluate(weights, study, examples)

    found = charged.metrics(study, released(study, weights, examples))

    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-3)
    assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-3)
    assert found["auc"] == pytest.approx(wanted["auc"], abs=0.02)  # sixteen cells


def test_no_row_at_all_gives_noise_of_the_charged_size(study: Study) -> None:
    weights, nobody = registry.initial(study), rows(0)
    blocks, noise = len(charged.widths(study)), 3.0

    drawn = np.stack(
        [
            released(
                study, weights, nobody, noise_multiplier=noise, key=bytes([number] * 32)
            )
            for number in range(100)
        ]
    )

    # in the release's own scale: a grid's rounding adds 1/3072 of the variance
    counts = drawn[:, 3:] / (noise * np.sqrt(blocks))
    law, square = stats.chi2(counts.size), float((counts**2).sum())
    assert law.ppf(5e-7) <= square / (1 + 1 / 3072) <= law.isf(5e-7)
    assert charged.metrics(study, np.zeros(drawn.shape[1])) == {}


def test_the_noise_on_each_number_is_the_same_for_no_row_as_for_one(
    study: Study,
) -> None:
    """Else its size would tell whether anybody is held out at all."""
    weights, noise = registry.initial(study), 1000.0  # what one row adds is nothing

    nobody, one = (
        released(study, weights, rows(num), noise_multiplier=noise) for num in (0, 1)
    )

    assert nobody == pytest.approx(one, rel=1e-6, abs=noise / 2)


def test_overlap_of_masks_is_measured_too(study_of: Make) -> None:
    whole = study_of(evaluation=CHARGED).model_dump(mode="json", by_alias=True)
    whole["study"]["recipe"] = "image-segmentation"
    whole["model"] = {"name": "unet", "width": 8}
    whole["data"] = {"kind": "images", "dataset": "d", "target": "y"} | {
        "height": 8,
        "width": 8,
        "channels": 1,
    }
    study, rng = Study.model_validate(whole), np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (40, 1, 8, 8)).astype(np.float32)
    examples = Examples(inputs, (inputs[:, 0] > 0.8).astype(np.float32))
    weights = registry.initial(study)
    wanted = evaluate(weights, study, examples)

    found = charged.metrics(study, released(study, weights, examples))

    assert set(found) == {"dice", "loss"}
    assert found["dice"] == pytest.approx(wanted["dice"], abs=0.02)


def test_a_recipe_without_charged_metrics_is_refused_before_anything_is_asked(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tasks.RECIPES["tabular-classification"]
    other = tasks.Recipe(
        plain.name, plain.data, plain.models, plain.losses, plain.metrics
    )
    monkeypatch.setattr(tasks, "RECIPES", {plain.name: other})

    with pytest.raises(StudyError) as raised:
        accounting.solve(study)

    assert raised.value.error_id == "GLD-C133"
