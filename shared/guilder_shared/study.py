"""The study file: what is trained, on which columns, under which promise.

A study carries no code and no path; its digest is what a site approves. Every size
is bounded here, so that a hostile study is refused before anything is built from
it. This module knows no network, no ledger and no model.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import AfterValidator, Field, model_validator

from guilder_shared.settings.expectations import TEXT_PATTERN
from guilder_shared.settings.files import (
    File,
    Frozen,
    Listed,
    Name,
    Text,
    load_json,
    load_toml,
)
from guilder_shared.settings.mistakes import (
    Contradiction,
    ContradictionError,
    FileError,
    Mistake,
)

LARGEST_MODEL = 64_000_000  # weights: 256 MB in float32
LARGEST_EXACT = 2**53 - 1  # the largest integer of canonical JSON (RFC 8785)


class Header(Frozen):
    """What the study is called and what it is for."""

    name: Name = Field(description="short name of the study")
    recipe: Name = Field(description="an installed kind of task; no code travels")
    purpose: str = Field(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=400,
        description="why, for the officer who approves",
    )


class NumberColumn(Frozen):
    """A number with public bounds; rows outside are clipped to them."""

    kind: Literal["number"]
    low: float = Field(ge=-1e30, le=1e30, description="public; never learnt from rows")
    high: float = Field(ge=-1e30, le=1e30, description="public; never learnt from rows")

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low < self.high:
            return self
        what = f"is {self.low:g}, which is not below high = {self.high:g}"
        fix = "Give public bounds with low < high."
        raise ContradictionError([Contradiction(("low",), what, fix)])


class CategoryColumn(Frozen):
    """One of a public list of values; any other value counts as none of them."""

    kind: Literal["category"]
    values: Listed[Text] = Field(
        min_length=1, max_length=10_000, description="public; one model input each"
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = [value for value, count in Counter(self.values).items() if count > 1]
        if not twice:
            return self
        what = f'holds "{twice[0]}" more than once'
        fix = "Name each value once."
        raise ContradictionError([Contradiction(("values",), what, fix)])


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


def _canonical_order(columns: dict[str, Column]) -> dict[str, Column]:
    """Columns in the order of canonical JSON (UTF-16), wherever they were read.

    The order of columns is the order of the model's inputs: a site, which reads the
    canonical form, and the server, which reads the file, must agree on it.
    """
    names = sorted(columns, key=lambda name: name.encode("utf-16-be"))
    return {name: columns[name] for name in names}


class TableData(Frozen):
    """The contract with every site's table: kinds and PUBLIC bounds."""

    kind: Literal["table"] = Field(description="the rows of a table")
    dataset: Name = Field(description="each site maps this name to its own source")
    target: Text = Field(description="column with 0 or 1")
    person: Text | None = Field(
        default=None, description='column naming the person, for unit = "person"'
    )
    columns: Annotated[dict[Text, Column], AfterValidator(_canonical_order)] = Field(
        min_length=1, max_length=10_000, description="the model's inputs"
    )


class Model(Frozen):
    """Which registered model, and its public shape."""

    name: Name = Field(description='"logistic" or "mlp"')
    hidden: Listed[Annotated[int, Field(ge=1, le=16_384)]] = Field(
        default=(), max_length=16, description="units of each hidden layer"
    )
    prior: float | None = Field(
        default=None, gt=0, lt=1, description="public rate of ones: the output's bias"
    )


class Training(Frozen):
    """The schedule, all of it public."""

    rounds: int = Field(ge=1, le=100_000, description="rounds of the whole study")
    local_steps: int = Field(ge=1, le=100_000, description="private steps in a turn")
    sample_rate: float = Field(gt=0, le=1, description="Poisson; 1 = full batch")
    optimizer: Literal["sgd"] = Field(default="sgd", description="of the local steps")
    learning_rate: float = Field(gt=0, le=1e6, description="of the local steps")
    test_seed: int | None = Field(
        default=None, ge=0, le=LARGEST_EXACT, description="only with mechanism none"
    )


class Privacy(Frozen):
    """The promise made to each unit. No field here has a default."""

    unit: Literal["record", "person", "site"] = Field(
        description="whose presence is hidden"
    )
    mechanism: Literal["site-noise", "joint-noise", "none"] = Field(
        description="who adds the noise"
    )
    epsilon: float = Field(
        gt=0, le=100, description="rounds and spare turns together, per site"
    )
    delta: float = Field(gt=0, lt=1e-3, description="below 1 / records at a site")
    clip_norm: float = Field(gt=0, le=1e6, description="L2, in gradient units")


class Aggregation(Frozen):
    """How replies become one model, and how long they are waited for."""

    strategy: Literal["fedavg"] = Field(
        default="fedavg", description="mean weighted by public sizes"
    )
    min_sites: int = Field(ge=1, le=1_000_000, description="fewest replies of a round")
    round_deadline_s: float = Field(
        default=600.0, gt=0, le=604_800, description="longest wait for replies"
    )
    spare_turns: int = Field(
        default=2, ge=0, le=100, description="turns that may be lost; part of epsilon"
    )
    reply_quantum_s: float = Field(
        default=1.0, ge=0, le=60, description="replies leave at multiples of this"
    )


class Evaluation(Frozen):
    """On which rows the global model is measured."""

    on: Literal["public-holdout", "none"] = Field(
        description="rows that are public, or nothing"
    )
    rows: float = Field(
        default=0.2, gt=0, lt=1, description="share set aside in simulation"
    )


class Partition(Frozen):
    """How one source is dealt to simulated sites."""

    kind: Literal["by", "iid"] = Field(description='"by" a column, or at random')
    column: Text | None = Field(default=None, description='with kind = "by"')

    @model_validator(mode="after")
    def _column_with_by(self) -> Self:
        if (self.kind == "by") == (self.column is not None):
            return self
        missing = self.column is None
        what = 'missing, with kind = "by"' if missing else 'given, with kind = "iid"'
        fix = 'Write { kind = "by", column = "…" } or { kind = "iid" }.'
        raise ContradictionError([Contradiction(("column",), what, fix)])


class Simulation(Frozen):
    """Read by `guilder simulate` only; not part of the digest."""

    sites: int = Field(ge=1, le=1_000_000, description="how many sites to play")
    source: Text = Field(description="a generator's name, or a file")
    partition: Partition = Field(description="how rows are dealt to the sites")
    seed: int = Field(
        ge=0, le=LARGEST_EXACT, description="keys sampling and noise of a played site"
    )
    names: Listed[Name] | None = Field(
        default=None, description="one per site; site-1, site-2, … if left out"
    )
    public_sizes: Listed[Annotated[int, Field(ge=1, le=10**12)]] | None = Field(
        default=None, description="one per site; from the rows if left out"
    )


class Study(File):
    """One study, whole and checked."""

    study: Header
    data: TableData
    model: Model
    training: Training
    privacy: Privacy
    aggregation: Aggregation
    evaluation: Evaluation
    simulation: Simulation | None = None

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a study file and apply `--set a.b=value` overrides.

        Raises:
            FileError: With every mistake; see `settings.load_toml` for the ids.
        """
        return load_toml(path, cls, overrides)

    @classmethod
    def from_canonical(cls, data: bytes) -> Self:
        """The study as it travelled in an offer, from a server that may be hostile.

        Raises:
            FileError: GLD-C020 these are not the bytes `canonical` gives, so that
                nobody approves one text and runs another; else as in `load`.
        """
        study = load_json(data, cls, "the study offered")
        if study.canonical() != data:
            what = "its bytes are not the canonical form (RFC 8785) of what they say"
            fix = "Ask its sender for their version of Guilder."
            raise FileError([Mistake("GLD-C020", "the study offered", "", what, fix)])
        return study

    def canonical(self) -> bytes:
        """Canonical JSON (RFC 8785) of everything but `[simulation]`.

        Defaults are written out, keys without a value are left out: a new optional
        key does not change the digest of the studies that do not use it.
        """
        return rfc8785.dumps(
            self.model_dump(
                mode="json", by_alias=True, exclude={"simulation"}, exclude_none=True
            )
        )

    def digest(self) -> str:
        """SHA-256 of `canonical()`, as hex: what a site approves."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def contradictions(cls, parts: Mapping[str, Any]) -> list[Contradiction]:
        """What the tables of a study must agree on."""
        return [
            each
            for needed, rule in RULES
            if all(parts.get(name) is not None for name in needed)
            for each in rule(*(parts[name] for name in needed))
        ]


def _target_is_no_input(data: TableData) -> list[Contradiction]:
    """A model that reads its answer, or who somebody is, has learnt nothing."""
    fix = "Remove it from [data.columns]."
    roles = {"target": data.target, "person": data.person}
    return [
        Contradiction(("data", "columns", name), f"is the {role}, not an input", fix)
        for role, name in roles.items()
        if name in data.columns
    ]


def _person_is_named(data: TableData, privacy: Privacy) -> list[Contradiction]:
    if privacy.unit != "person" or data.person is not None:
        return []
    what = 'missing; privacy.unit = "person" needs it'
    fix = 'Write person = "…", the column that says whose row it is.'
    return [Contradiction(("data", "person"), what, fix)]


def _model_fits(data: TableData, model: Model) -> list[Contradiction]:
    """Only an mlp has hidden layers, and no model is too large to be built."""
    if bool(model.hidden) != (model.name == "mlp"):
        what = "missing" if model.name == "mlp" else "given"
        what += f', with name = "{model.name}"'
        fix = 'Write name = "mlp" with hidden = [64, 64], or "logistic" without.'
        return [Contradiction(("model", "hidden"), what, fix)]
    inputs = sum(
        len(column.values) if isinstance(column, CategoryColumn) else 1
        for column in data.columns.values()
    )
    widths = [inputs, *model.hidden, 1]
    weights = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    if weights <= LARGEST_MODEL:
        return []
    what = f"{inputs:,} inputs and these layers make {weights:,} weights"
    fix = f"Give fewer values or smaller layers: at most {LARGEST_MODEL:,} weights."
    return [Contradiction(("model", "hidden"), what, fix)]


def _seed_is_for_tests(training: Training, privacy: Privacy) -> list[Contradiction]:
    """Who knows the seed can take the noise off again."""
    if training.test_seed is None or privacy.mechanism == "none":
        return []
    what = f'given, with privacy.mechanism = "{privacy.mechanism}"'
    fix = "Remove it: randomness that protects somebody comes from no seed."
    return [Contradiction(("training", "test_seed"), what, fix)]


def _joint_noise_is_one_step(
    training: Training, privacy: Privacy
) -> list[Contradiction]:
    if privacy.mechanism != "joint-noise" or training.local_steps == 1:
        return []
    what = f"is {training.local_steps}; joint-noise releases one step at a time"
    fix = 'Write local_steps = 1, or mechanism = "site-noise".'
    return [Contradiction(("training", "local_steps"), what, fix)]


def _enough_sites(
    aggregation: Aggregation, simulation: Simulation
) -> list[Contradiction]:
    """The sites that are played make a quorum, and the lists name each of them."""
    found = []
    if aggregation.min_sites > simulation.sites:
        what = f"is {aggregation.min_sites}, but simulation.sites is {simulation.sites}"
        fix = "Play more sites, or ask for fewer."
        found.append(Contradiction(("aggregation", "min_sites"), what, fix))
    for key in ("names", "public_sizes"):
        values = getattr(simulation, key)
        if values is not None and len(values) != simulation.sites:
            what = f"has {len(values)} entries for {simulation.sites} sites"
            fix = "Give one entry per site, or leave the key out."
            found.append(Contradiction(("simulation", key), what, fix))
    names = simulation.names or ()
    if len(set(names)) < len(names):
        what, fix = "names a site twice", "Give each site a name of its own."
        found.append(Contradiction(("simulation", "names"), what, fix))
    return found


RULES: tuple[tuple[tuple[str, ...], Callable[..., list[Contradiction]]], ...] = (
    (("data",), _target_is_no_input),
    (("data", "privacy"), _person_is_named),
    (("data", "model"), _model_fits),
    (("training", "privacy"), _seed_is_for_tests),
    (("training", "privacy"), _joint_noise_is_one_step),
    (("aggregation", "simulation"), _enough_sites),
)
