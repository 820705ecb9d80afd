"""The study file: what is trained, on which rows, under which promise.

A study carries no code and no path; its digest is what a site approves. `data` holds
the contract, `parts` the other tables, `rules` what they must agree on. Nothing here
knows a network, a ledger or a model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import rfc8785
from pydantic import Field, model_validator

from guilder_shared.settings.files import File, load_json, load_toml
from guilder_shared.settings.mistakes import Contradiction, FileError, Mistake
from guilder_shared.study.aggregation import Aggregation
from guilder_shared.study.asking import Statistics, with_unused
from guilder_shared.study.data import (
    CategoryColumn,
    Column,
    ColumnData,
    Data,
    ImageData,
    NumberColumn,
    TableData,
    TextData,
)
from guilder_shared.study.parts import (
    Evaluation,
    Header,
    Model,
    Privacy,
    Simulation,
    Training,
)
from guilder_shared.study.rules import RULES, RULES_OF_STATISTICS

__all__ = [
    "CategoryColumn",
    "Column",
    "ColumnData",
    "Data",
    "ImageData",
    "NumberColumn",
    "Simulation",
    "Study",
    "TableData",
    "TextData",
]


class Study(File):
    """One study, whole and checked."""

    study: Header
    data: Annotated[Data, Field(discriminator="kind")]
    model: Model
    training: Training
    privacy: Privacy
    aggregation: Aggregation
    evaluation: Evaluation
    statistics: Statistics | None = None
    simulation: Simulation | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, parts: Any) -> Any:
        return with_unused(parts)

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

    @property
    def identity(self) -> str | None:
        """The column that says whose row a row is; None where the unit is no person."""
        return self.data.person if self.privacy.unit == "person" else None

    @property
    def site_contract(self) -> Data:
        """The contract with a site: it names the person only where that is read."""
        return self.data.model_copy(update={"person": self.identity})

    @property
    def public_contract(self) -> Data:
        """The contract with public rows, which belong to nobody."""
        return self.data.model_copy(update={"person": None})

    @property
    def measuring_round(self) -> int | None:
        """The round after the last in which held-out units are measured, if any is."""
        if self.statistics is not None:
            return 1
        return self.training.rounds + 1 if self.evaluation.on == "charged" else None

    def measures(self, round_no: int) -> bool:
        """Whether sites measure in this round, beside training or after it.

        What they measure is the model that the round begins with.
        """
        every, past = self.evaluation.every, round_no - 1
        if every is None or not 0 < past < self.training.rounds:
            return round_no == self.measuring_round
        return past % every == 0

    @property
    def training_rounds(self) -> int:
        """How many rounds train a model; none where columns are asked about."""
        return self.training.rounds if self.statistics is None else 0

    @property
    def num_turns(self) -> int:
        """How many turns of a site the promise covers: of rounds, and spare ones."""
        rounds = self.measuring_round or self.training.rounds
        return rounds + self.aggregation.spare_turns

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
        named = [
            *RULES,
            *(((*needed, "statistics"), rule) for needed, rule in RULES_OF_STATISTICS),
        ]
        return [
            each
            for needed, rule in named
            if all(parts.get(name) is not None for name in needed[:-1] or needed)
            and (needed[-1] == "statistics" or parts.get(needed[-1]) is not None)
            for each in rule(*(parts.get(name) for name in needed))
        ]
