"""The study file: what is trained, on which columns, under which promise.

A study carries no code and no path; its digest is what a site approves. This
module knows no network, no ledger and no model.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """A part of a file a person edits: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Header(Frozen):
    """What the study is called and what it is for."""

    name: Name
    recipe: Name  # an installed kind of task; a study carries no code
    purpose: str = Field(min_length=1, max_length=400)


class NumberColumn(Frozen):
    """A number with public bounds; rows outside are clipped to them."""

    kind: Literal["number"]
    low: Finite
    high: Finite


class CategoryColumn(Frozen):
    """One of a public list of values; any other value counts as none of them."""

    kind: Literal["category"]
    values: tuple[str, ...] = Field(min_length=1)


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


class TableData(Frozen):
    """The contract with every site's table: kinds and PUBLIC bounds."""

    kind: Literal["table"]
    dataset: Name  # each site maps this name to its own source
    target: str  # column with 0 or 1
    person: str | None = None  # required when privacy.unit = "person"
    columns: dict[str, Column] = Field(min_length=1)


class Model(Frozen):
    """Which registered model, and its public shape."""

    name: Name
    hidden: tuple[PositiveInt, ...] = ()
    prior: Annotated[float, Field(gt=0, lt=1)] | None = None  # public base rate


class Training(Frozen):
    """The schedule, all of it public."""

    rounds: PositiveInt
    local_steps: PositiveInt  # private steps in one turn
    sample_rate: Annotated[float, Field(gt=0, le=1)]  # Poisson; 1 = full batch
    optimizer: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat
    test_seed: Annotated[int, Field(ge=0)] | None = None  # only with mechanism none


class Privacy(Frozen):
    """The promise made to each unit. No field here has a default."""

    unit: Literal["record", "person", "site"]  # whose presence is hidden
    mechanism: Literal["site-noise", "joint-noise", "none"]
    epsilon: Annotated[float, Field(gt=0, le=100)]  # rounds + spare turns, per site
    delta: Annotated[float, Field(gt=0, lt=1e-3)]
    clip_norm: PositiveFloat  # L2, gradient units


class Aggregation(Frozen):
    """How replies become one model, and how long they are waited for."""

    strategy: Literal["fedavg"] = "fedavg"
    min_sites: PositiveInt
    round_deadline_s: PositiveFloat = 600.0
    spare_turns: Annotated[int, Field(ge=0, le=100)] = 2
    reply_quantum_s: Annotated[float, Field(ge=0, le=60)] = 1.0


class Evaluation(Frozen):
    """On which rows the global model is measured."""

    on: Literal["public-holdout", "none"]
    rows: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share set aside, simulation


class Partition(Frozen):
    """How one source is dealt to simulated sites."""

    kind: Literal["by", "iid"]
    column: str | None = None  # with kind = "by"


class Simulation(Frozen):
    """Read by `guilder simulate` only; not part of the digest."""

    sites: PositiveInt
    source: str  # a generator's name, or a file
    partition: Partition
    seed: Annotated[int, Field(ge=0)]
    names: tuple[Name, ...] | None = None
    public_sizes: tuple[PositiveInt, ...] | None = None


class Study(Frozen):
    """One study, whole and checked."""

    schema_version: Literal[1] = Field(alias="schema")
    study: Header
    data: TableData
    model: Model
    training: Training
    privacy: Privacy
    aggregation: Aggregation
    evaluation: Evaluation
    simulation: Simulation | None = None

    @classmethod
    def load(cls, path: Path, overrides: tuple[str, ...] = ()) -> Self:
        """Read a study file and apply `--set a.b=value` overrides."""
        import tomllib

        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        for override in overrides:
            key, _, value = override.partition("=")
            *parents, last = key.split(".")
            place = raw
            for parent in parents:
                place = place.setdefault(parent, {})
            try:
                place[last] = tomllib.loads(f"v = {value}")["v"]
            except tomllib.TOMLDecodeError:
                place[last] = value
        return cls.model_validate(raw)

    @classmethod
    def from_canonical(cls, data: bytes) -> Self:
        """The study as it travelled in an offer."""
        return cls.model_validate(json.loads(data))

    def canonical(self) -> bytes:
        """Canonical JSON (RFC 8785) of everything but `[simulation]`."""
        return rfc8785.dumps(
            self.model_dump(mode="json", by_alias=True, exclude={"simulation"})
        )

    def digest(self) -> str:
        """SHA-256 of `canonical()`, as hex: what a site approves."""
        return hashlib.sha256(self.canonical()).hexdigest()
