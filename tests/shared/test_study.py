"""The study file: bounded, without contradictions, and one digest for one meaning."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study

# The digest of TEXT. If it moves, every approval ever given is void: say so.
GOLDEN = "27e205b988ff71393eee655f633ee7c89ccaf26eb25e287a8e1f58b1c1827a0e"

TEXT = """\
schema = 1

[study]
name = "card-fraud"
recipe = "tabular-classification"
purpose = "Find fraudulent card payments across four banks"

[data]
kind = "table"
dataset = "card-payments"
target = "fraud"
[data.columns]
kind = { kind = "category", values = ["pos", "web"] }
amount = { kind = "number", low = 0, high = 5000 }

[model]
name = "mlp"
hidden = [64, 64]
prior = 0.02

[training]
rounds = 20
local_steps = 25
sample_rate = 0.01
learning_rate = 16.0

[privacy]
unit = "record"
mechanism = "site-noise"
epsilon = 3.0
delta = 1e-6
clip_norm = 0.25

[aggregation]
min_sites = 3

[evaluation]
on = "public-holdout"

[simulation]
sites = 4
source = "card-payments"
partition = { kind = "by", column = "bank" }
seed = 7
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    return path


def ids(path: Path, *overrides: str) -> list[tuple[str, str]]:
    """Id and key of each mistake."""
    with pytest.raises(FileError) as caught:
        Study.load(path, overrides)
    return [(each.error_id, each.key) for each in caught.value.mistakes]


def offered(**changes: Any) -> bytes:
    """A study as a hostile server might send it: tables changed or replaced."""
    raw = json.loads(canonical())
    for key, value in changes.items():
        table, _, name = key.partition("__")
        if name:
            raw[table][name] = value
        else:
            raw[table] = value
    return json.dumps(raw).encode()


def canonical() -> bytes:
    import tomllib

    raw = tomllib.loads(TEXT)
    return Study.model_validate(raw).canonical()


def test_the_digest_of_a_study_does_not_move(path: Path) -> None:
    assert Study.load(path).digest() == GOLDEN


def test_order_of_keys_and_simulation_do_not_enter_the_digest(path: Path) -> None:
    digest = Study.load(path).digest()
    number = 'amount = { kind = "number", low = 0, high = 5000 }\n'
    head, tail = TEXT.replace(number, "").split("kind = { kind")
    path.write_text(f"{head}{number}kind = {{ kind{tail}")

    assert Study.load(path, ("simulation.seed=8",)).digest() == digest


@pytest.mark.parametrize(
    "override", ["training.rounds=19", "aggregation.spare_turns=3", "study.purpose=x"]
)
def test_every_other_change_moves_the_digest(path: Path, override: str) -> None:
    assert Study.load(path, (override,)).digest() != Study.load(path).digest()


def test_a_study_that_travelled_is_the_same_study_column_by_column(path: Path) -> None:
    study = Study.load(path)

    travelled = Study.from_canonical(study.canonical())

    assert travelled == study.model_copy(update={"simulation": None})
    columns = getattr(study.data, "columns", {})
    assert list(getattr(travelled.data, "columns", {})) == list(columns)
    assert travelled.digest() == study.digest()


def test_a_model_may_have_a_gibibyte(path: Path) -> None:
    """3 x 16,382 + 16,383 x 16,380 + 16,381 and biases: 2^28 less 7."""
    study = Study.load(path, ("model.hidden=[16382, 16380]",))

    assert study.model.hidden == (16_382, 16_380)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("data.columns.amount.low=5000",), "data.columns.amount.low"),
        (('data.columns.kind.values=["a", "a"]',), "data.columns.kind.values"),
        (("data.target=amount",), "data.columns.amount"),
        (("data.person=amount",), "data.columns.amount"),
        (("privacy.unit=person", "privacy.max_records=9"), "data.person"),
        (("privacy.unit=person", "data.person=who"), "privacy.max_records"),
        (("privacy.max_records=9",), "privacy.max_records"),
        (("model.name=logistic",), "model.hidden"),
        (("model.hidden=[]",), "model.hidden"),
        (("model.hidden=[16384, 16384]",), "model.hidden"),
        (("training.test_seed=1",), "training.test_seed"),
        (("privacy.mechanism=joint-noise",), "training.local_steps"),
        (("simulation.partition={ kind = 'by' }",), "simulation.partition.column"),
        (("simulation.partition.kind=iid",), "simulation.partition.column"),
        (('simulation.names=["a", "b"]',), "simulation.names"),
        (('simulation.names=["a", "b", "c", "a"]',), "simulation.names"),
        (("simulation.public_sizes=[9]",), "simulation.public_sizes"),
        (("simulation.sites=2",), "aggregation.min_sites"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    path: Path, overrides: tuple[str, ...], key: str
) -> None:
    assert ids(path, *overrides) == [("GLD-C013", key)]


def test_contradictions_are_told_together_with_wrong_values(path: Path) -> None:
    found = ids(path, "data.target=amount", "privacy.unit=none", "simulation.sites=2")

    assert found == [
        ("GLD-C013", "data.columns.amount"),
        ("GLD-C013", "aggregation.min_sites"),
        ("GLD-C012", "privacy.unit"),
    ]


def test_a_test_seed_is_fine_where_nothing_is_promised(path: Path) -> None:
    study = Study.load(path, ("training.test_seed=1", "privacy.mechanism=none"))

    assert study.training.test_seed == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.columns.amount.high", "nan"),
        ("data.columns.amount.high", "1e31"),
        ("data.columns.amount.kind", "numbre"),
        ("privacy.epsilon", "0"),
        ("privacy.epsilon", "inf"),
        ("privacy.epsilon", "true"),
        ("privacy.delta", "0.001"),
        ("privacy.clip_norm", "0"),
        ("training.sample_rate", "1.01"),
        ("training.sample_rate", "0"),
        ("training.rounds", "20.0"),
        ("training.rounds", "0"),
        ("training.learning_rate", "-1"),
        ("model.prior", "1"),
        ("model.hidden", "[16385]"),
        ("study.name", "Card"),
        ("study.purpose", '""'),
        ("aggregation.min_sites", "0"),
        ("evaluation.rows", "1"),
    ],
)
def test_values_out_of_bounds_are_refused(path: Path, key: str, value: str) -> None:
    overrides = [f"{key}={value}"]
    if key.startswith("model.hidden"):
        key = "model.hidden.0"

    assert ids(path, *overrides) == [("GLD-C012", key)]


@pytest.mark.parametrize("key", ["unit", "mechanism", "epsilon", "delta", "clip_norm"])
def test_no_privacy_field_has_a_default(path: Path, key: str) -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith(f"{key} =")]
    path.write_text("\n".join(lines))

    assert ids(path) == [("GLD-C011", f"privacy.{key}")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"schema":' + b"9" * 5000 + b"}",
        b'{"schema": NaN}',
        b'{"schema": 1, "schema": 1}',
        b" " * (5 << 20),
    ],
)
def test_what_is_no_study_is_refused_without_a_raw_error(data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        Study.from_canonical(data)

    assert caught.value.error_id in {"GLD-C004", "GLD-C020"}


@pytest.mark.parametrize(
    "changes",
    [
        {"data__columns": {f"c{i}": {} for i in range(20_000)}},
        {"data__columns": {"x" * 300: {"kind": "number", "low": 0, "high": 1}}},
        {"data__columns": {}},
        {"data__columns": {"a": {"kind": ["number"]}}},
        {"data__columns": {"a": {"kind": {"kind": 1}}}},
        {"data__columns": {"a": 5}},
        {"data__columns": 7},
        {"data__target": "\x1b[2J"},
        {"model__hidden": [1] * 17},
        {"training__rounds": 10**30},
        {"training__learning_rate": 10**400},
        {"study__purpose": "x" * 401},
        {"study__purpose": "safe \u202e sdrawkcab"},
        {"privacy": []},
        {"privacy": None},
        {"extra": {"\x1b[31m": 1}},
    ],
)
def test_a_hostile_study_is_refused_in_short_and_harmless_words(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(FileError) as caught:
        Study.from_canonical(offered(**changes))

    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert all(len(line) < 400 for line in str(caught.value).splitlines())


def test_a_study_of_nothing_but_mistakes_is_refused_in_few_words() -> None:
    columns = {f"c{number}": {"kind": "number"} for number in range(9_000)}

    with pytest.raises(FileError) as caught:
        Study.from_canonical(offered(data__columns=columns))

    assert len(str(caught.value).splitlines()) <= 101


def test_a_study_in_other_than_its_canonical_bytes_is_refused() -> None:
    spaced = json.dumps(json.loads(canonical())).encode()

    with pytest.raises(FileError) as caught:
        Study.from_canonical(spaced)

    assert caught.value.error_id == "GLD-C020"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.sampled_from(["study", "data", "model", "training", "privacy", "aggregation"]),
)
def test_any_json_in_place_of_a_table_is_refused_as_a_mistake(
    value: Any, table: str
) -> None:
    with pytest.raises(FileError):
        Study.from_canonical(offered(**{table: value}))
