"""A row's gradient is its own: no neighbour, and no hostile weight, changes a bit."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from guilder_shared import tables, tasks
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy import isolation
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study, TableData
from guilder_shared.training import device
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
Total = NDArray[np.float64]
LOSSES = tasks.recipe("tabular-classification").losses


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[Total]:
    """The exact sums of a turn, as they are just before the noise."""
    seen: list[Total] = []
    release = PrivateStep.release

    def watch(self: PrivateStep, total: Tensor) -> None:
        seen.append(np.array(total.numpy()))
        release(self, total)

    monkeypatch.setattr(PrivateStep, "release", watch)
    return seen


def released(
    study: Study, weights: Weights, lines: list[str], path: Path, sums: list[Total]
) -> Total:
    """The first sum of a turn on a CSV file with these lines."""
    assert isinstance(study.data, TableData)
    header = ",".join([*study.data.columns, "y"])
    path.write_text("\n".join([header, *lines, ""]))
    table = tables.read("csv", path, {}, tables.needed(study.data))
    sums.clear()
    fit(
        weights,
        study,
        Plan(1.5, 18, SENSITIVITY_SLACK),
        tables.encode(table, study.data),
        public_size=150,  # typed by a person: not the rows of the file
        keys=TurnKeys.from_os(),
    )
    return sums[0]


def csv_lines(num: int, num_columns: int) -> list[str]:
    rng = np.random.default_rng(0)
    cells = rng.uniform(-1, 1, (num, num_columns))
    return [
        ",".join([*map(repr, map(float, row)), str(int(rng.random() < 0.3))])
        for row in cells
    ]


def cancelling(study: Study) -> Weights:
    """What a hostile server sends: all hidden units are equal and the output takes
    them with weights that sum to zero, times 2**40. Only rounding is left of it, and
    it decides whether a row's error is 0 or 1.
    """
    weights = registry.initial(study)
    rng = np.random.default_rng(5)
    width = weights["0.bias"].size
    weights["0.weight"][:] = rng.normal(0, 0.2, weights["0.weight"].shape[1])
    weights["0.bias"][:] = 3.0
    out = np.rint(rng.normal(0, 1, width) * 2**20)
    out[-1] = -out[:-1].sum()
    weights["2.weight"][0] = out * 2.0**20
    weights["2.bias"][:] = 0.0
    assert weights["2.weight"].astype(np.float64).sum() == 0
    return weights


HARD_CELLS = ["nan", "inf", "1e999", "", "text", "-1e300"]


@pytest.mark.parametrize("width", [2, 10, 31, 64])
@pytest.mark.parametrize("num", [150, 700])  # one pass, and several
def test_no_weights_make_one_record_move_another_records_gradient(
    study_of: Make, tmp_path: Path, sums: list[Total], width: int, num: int
) -> None:
    study = study_of(model={"name": "mlp", "hidden": [width]}, num_columns=30)
    weights, lines = cancelling(study), csv_lines(num, 30)
    sum_of = functools.partial(
        released, study, weights, path=tmp_path / "d.csv", sums=sums
    )

    whole = sum_of(lines)
    moves = [
        float(np.linalg.norm(whole - sum_of(lines[:i] + lines[i + 1 :])))
        for i in (0, 1, 63, 64, num // 2, num - 1)
    ]

    assert max(moves) <= study.privacy.clip_norm * (1 + 1e-9)
    assert max(moves) > 0.9 * study.privacy.clip_norm  # the attack does reach the sum


@pytest.mark.parametrize("cell", HARD_CELLS)
@pytest.mark.parametrize(
    "model", [{"name": "logistic"}, {"name": "mlp", "hidden": [9]}]
)
def test_a_hard_record_of_the_file_moves_the_sum_by_no_more(
    study_of: Make, tmp_path: Path, sums: list[Total], cell: str, model: dict[str, Any]
) -> None:
    study = study_of(model=model, num_columns=5)
    lines = csv_lines(200, 5)
    hard = ",".join([cell] * 5 + ["1"])
    sum_of = functools.partial(
        released,
        study,
        registry.initial(study),
        path=tmp_path / "d.csv",
        sums=sums,
    )

    move = sum_of([hard, *lines]) - sum_of(lines)

    assert np.linalg.norm(move) <= study.privacy.clip_norm * (1 + 1e-9)


def test_a_thousand_equal_records_move_the_sum_one_by_one(
    study_of: Make, tmp_path: Path, sums: list[Total]
) -> None:
    study = study_of(num_columns=7, privacy={"clip_norm": 0.01})
    lines = csv_lines(1, 7) * 1000
    weights = registry.initial(study)
    path = tmp_path / "d.csv"

    whole = released(study, weights, lines, path, sums)
    less = released(study, weights, lines[1:], path, sums)

    assert np.linalg.norm(whole) == pytest.approx(1000 * np.linalg.norm(whole - less))
    assert np.linalg.norm(whole - less) <= study.privacy.clip_norm


def pass_rows(study: Study, expected: float) -> int:
    like = torch.zeros(0, registry.num_inputs(study.data)), torch.zeros(0)
    with device.one_thread():
        engine = BookKeeping(registry.build(study), 1.0, isolated=True)
        return isolation.pass_rows(engine, LOSSES, like, expected=expected)


@pytest.mark.parametrize(
    ("model", "expected", "rows"),
    [
        ({"name": "logistic"}, 200.0, 256),
        ({"name": "mlp", "hidden": [64, 64]}, 2000.0, 2176),
        ({"name": "logistic"}, 1e9, isolation.MAX_PASS_ROWS),
        ({"name": "mlp", "hidden": [4096, 512]}, 200.0, 32),
    ],
)
def test_the_height_of_a_pass_is_public(
    study_of: Make, model: dict[str, Any], expected: float, rows: int
) -> None:
    study = study_of(model=model, num_columns=30)

    assert pass_rows(study, expected) in (rows, 1)  # 1: on a machine of worse kernels


def test_where_a_rows_place_changes_its_bits_rows_pass_alone(
    study_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    entering = isolation._entering

    def placed(*args: Any) -> list[Tensor]:
        found = entering(*args)
        found[-1][-1] *= 1 + 2**-22  # the last bit of the row in one place
        return found

    monkeypatch.setattr(isolation, "_tried", {})
    monkeypatch.setattr(isolation, "_entering", placed)

    assert pass_rows(study_of(num_columns=4), 100.0) == 1


def test_a_trial_puts_the_weights_back(study_of: Make) -> None:
    study = study_of(model={"name": "mlp", "hidden": [9]}, num_columns=4)
    model = registry.build(study)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    engine = BookKeeping(model, 1.0, isolated=True)

    isolation._is_isolated(engine, LOSSES, (torch.zeros(0, 4), torch.zeros(0)), 64)

    assert all(torch.equal(before[n], w) for n, w in model.state_dict().items())


def test_a_trial_that_gives_no_numbers_proves_nothing(study_of: Make) -> None:
    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        return LOSSES(outputs, targets) * torch.nan

    engine = BookKeeping(registry.build(study_of(num_columns=4)), 1.0, isolated=True)
    like = torch.zeros(0, 4), torch.zeros(0)

    assert isolation.pass_rows(engine, broken, like, expected=100.0) == 1
