"""A person adds one contribution of at most C, whatever it owns and whoever asks."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guilder_shared import tables, tasks
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.draws import Sampler
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
Total = NDArray[np.float64]
CLIP_MARGIN = 1 - 2.0**-10
KEYS = TurnKeys.seeded(8, site="site-1", round_no=1)
LOSSES = tasks.recipe("tabular-classification").losses
COUNTS = (500, 300, 120, 64, 33, 20, 19, 8, 5, 3, 2, *[1] * 12)


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


def people(study_of: Make, cap: int, **training: Any) -> Study:
    privacy = {"unit": "person", "max_records": cap, "clip_norm": 0.5}
    return study_of(privacy=privacy, person="who", **training)


def train(study: Study, examples: Examples, weights: Weights | None = None) -> None:
    fit(
        weights or registry.initial(study),
        study,
        Plan(1.5, 18, SENSITIVITY_SLACK),
        examples,
        public_size=20,  # typed by somebody: not the persons of the file
        keys=KEYS,
    )


def payments(counts: tuple[int, ...]) -> tuple[Study, Examples]:
    """Made-up card payments, dealt to persons that own so many of them."""
    from guilder_simulations import card_payments

    root = Path(__file__).parents[3]
    study = Study.load(
        root / "simulations/studies/card-fraud.toml",
        ("privacy.unit=person", "privacy.max_records=40", "model.hidden=[12, 8]"),
    )
    table = card_payments.generate(3).slice(0, sum(counts))
    names = np.repeat(np.arange(len(counts)), counts)
    who = np.random.default_rng(1).permutation(names).astype(str)
    place = table.column_names.index("customer_id")
    table = table.set_column(place, "customer_id", [who])
    return study, tables.encode(table, study.site_contract)


def exact(study: Study, weights: Weights) -> nn.Module:
    """The study's model in float64."""
    module = registry.build(study).double()
    state = {n: torch.from_numpy(w).double() for n, w in weights.items()}
    module.load_state_dict(state)
    return module


def contribution(study: Study, module: nn.Module, mine: Examples) -> Total:
    """One person's clipped gradient, in float64, by nothing but autograd."""
    inputs, targets = torch.from_numpy(mine.inputs), torch.from_numpy(mine.targets)
    loss = LOSSES(module(inputs.double()), targets.double()).sum()
    grads = torch.autograd.grad(loss, list(module.parameters()))
    grad = torch.cat([g.reshape(-1) for g in grads])
    limit = study.privacy.clip_norm * CLIP_MARGIN
    clipped: Total = (grad * min(1.0, limit / float(grad.norm()))).numpy()
    return clipped


def some(examples: Examples, rows: NDArray[Any]) -> Examples:
    assert examples.units is not None
    return Examples(examples.inputs[rows], examples.targets[rows], examples.units[rows])


@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
def test_every_persons_contribution_is_that_of_a_plain_loop(
    sums: list[Total], clip_norm: float
) -> None:
    study, examples = payments(COUNTS)
    privacy = study.privacy.model_copy(update={"clip_norm": clip_norm})
    schedule = study.training.model_copy(update={"sample_rate": 1.0, "local_steps": 1})
    study = study.model_copy(
        update={
            "privacy": privacy,
            "training": schedule.model_copy(update={"rounds": 16}),
        }
    )
    weights = registry.initial(study)
    module = exact(study, weights)
    drawn = Sampler(study, examples).draw(KEYS, 0)
    assert drawn.units is not None
    assert sorted(Counter(drawn.units.tolist()).values()) == sorted(
        min(count, 40) for count in COUNTS
    )

    wanted = np.zeros(sum(w.size for w in weights.values()))
    for unit in np.unique(drawn.units):
        mine = some(examples, drawn.rows[drawn.units == unit])
        alone = contribution(study, module, mine)
        sums.clear()
        train(study, mine, weights)
        assert np.linalg.norm(sums[0] - alone) <= 1e-5 * np.linalg.norm(alone)
        wanted += alone
    sums.clear()
    train(study, examples, weights)

    assert np.linalg.norm(sums[0] - wanted) <= 1e-5 * np.linalg.norm(wanted)


def csv_lines(counts: tuple[int, ...], num_columns: int) -> list[str]:
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return [
        ",".join(
            [
                *map(repr, map(float, rng.uniform(-1, 1, num_columns))),
                str(int(rng.random() < 0.3)),
                f"p{person}",
            ]
        )
        for person in who
    ]


def without(lines: list[str], person: str) -> list[str]:
    return [line for line in lines if not line.endswith(f",{person}")]


def released(
    study: Study, weights: Weights, lines: list[str], path: Path, sums: list[Total]
) -> Total:
    """The first sum of a turn on a CSV file with these lines."""
    data = study.site_contract
    path.write_text("\n".join([",".join(tables.needed(data)), *lines, ""]))
    table = tables.read("csv", path, {}, tables.needed(data))
    sums.clear()
    train(study, tables.encode(table, data), weights)
    return sums[0]


def cancelling(study: Study) -> Weights:
    """A hostile server's weights: only rounding decides a row's error, 0 or 1."""
    weights = registry.initial(study)
    rng = np.random.default_rng(5)
    width = weights["0.bias"].size
    weights["0.weight"][:] = rng.normal(0, 0.2, weights["0.weight"].shape[1])
    weights["0.bias"][:] = 3.0
    out = np.rint(rng.normal(0, 1, width) * 2**20)
    out[-1] = -out[:-1].sum()
    weights["2.weight"][0] = out * 2.0**20
    weights["2.bias"][:] = 0.0
    return weights


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("hostile", [True, False])
def test_a_person_removed_from_the_file_moves_the_sum_by_no_more_than_c(
    study_of: Make, tmp_path: Path, sums: list[Total], hostile: bool, rate: float
) -> None:
    model = {"name": "mlp", "hidden": [31]}
    study = people(study_of, 10, model=model, num_columns=20, sample_rate=rate)
    counts = (200, 60, 11, 10, 9, 4, 2, *[1] * 60, *[3] * 40)
    lines = csv_lines(counts, 20)
    weights = cancelling(study) if hostile else registry.initial(study)
    sum_of = functools.partial(
        released, study, weights, path=tmp_path / "d.csv", sums=sums
    )

    whole = sum_of(lines)
    moves = [
        float(np.linalg.norm(whole - sum_of(without(lines, f"p{person}"))))
        for person in (0, 1, 2, 3, 6, 7, 50, 106)
    ]

    assert max(moves) <= study.privacy.clip_norm * (1 + 1e-9)
    assert max(moves) > 0.9 * study.privacy.clip_norm  # somebody did reach the sum
    assert np.linalg.norm(whole) > max(moves)


@pytest.mark.parametrize("cell", ["nan", "inf", "1e999", "", "text", "-1e300"])
def test_a_person_of_hard_records_moves_the_sum_by_no_more(
    study_of: Make, tmp_path: Path, sums: list[Total], cell: str
) -> None:
    study = people(study_of, 5, num_columns=4)
    lines = csv_lines((30, 5, 2, 1, 1), 4)
    hard = [",".join([cell] * 4 + ["1", "stranger"])] * 40
    sum_of = functools.partial(
        released, study, registry.initial(study), path=tmp_path / "d.csv", sums=sums
    )

    move = sum_of([*hard, *lines]) - sum_of(lines)

    assert np.linalg.norm(move) <= study.privacy.clip_norm * (1 + 1e-9)


@pytest.mark.parametrize("who", ["", "  ", "nan"])
def test_rows_of_nobody_add_nothing(
    study_of: Make, tmp_path: Path, sums: list[Total], who: str
) -> None:
    study = people(study_of, 5, num_columns=4)
    lines = csv_lines((3, 2), 4)
    sum_of = functools.partial(
        released, study, registry.initial(study), path=tmp_path / "d.csv", sums=sums
    )

    with_nobody = sum_of([f"0.5,0.5,0.5,0.5,1,{who}", *lines])

    assert np.array_equal(with_nobody, sum_of(lines))


def test_one_person_who_owns_all_rows_adds_at_most_c(
    study_of: Make, tmp_path: Path, sums: list[Total]
) -> None:
    study = people(study_of, 10_000, num_columns=4)
    lines = csv_lines((6_000,), 4)  # more than a pass holds

    whole = released(study, registry.initial(study), lines, tmp_path / "d.csv", sums)

    assert np.linalg.norm(whole) == pytest.approx(study.privacy.clip_norm * CLIP_MARGIN)


def test_a_record_of_a_person_may_move_the_sum_by_twice_c(
    study_of: Make, tmp_path: Path, sums: list[Total]
) -> None:
    """Why a person's epsilon is not a record's: decision 014."""
    study = people(study_of, 10, num_columns=1)
    weights = registry.initial(study)
    sum_of = functools.partial(
        released, study, weights, path=tmp_path / "d.csv", sums=sums
    )

    moved = np.linalg.norm(
        sum_of(["1,1,ann", *["1,0,ann"] * 2]) - sum_of(["1,0,ann"] * 2)
    )
    turned = np.linalg.norm(sum_of([*["1,1,ann"] * 3]) - sum_of(["1,0,ann"] * 3))

    assert moved <= 2 * study.privacy.clip_norm
    assert turned == pytest.approx(2 * study.privacy.clip_norm * CLIP_MARGIN)
