"""The table [statistics]: what is asked of columns, and with which noise.

A question names columns and public edges; its answer is a count, or computed from
counts. This module knows no data and no mechanism.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from guilder_shared.settings.files import Frozen, Listed, Name, Text
from guilder_shared.study.data import canonical_order

Edges = Listed[Annotated[float, Field(ge=-1e30, le=1e30)]]


class Count(Frozen):
    """How many rows there are, or persons where they are the units."""

    ask: Literal["count"] = Field(description="how many")


class Mean(Frozen):
    """Mean and variance of a number, clipped to the column's bounds."""

    ask: Literal["mean"] = Field(description="mean and variance of a number column")
    column: Text = Field(description="one of [data.columns]")


class Histogram(Frozen):
    """How many rows have each value, or lie between public edges."""

    ask: Literal["histogram"] = Field(description="how many by value, or by cell")
    column: Text = Field(description="one of [data.columns]")
    edges: Edges | None = Field(
        default=None,
        min_length=2,
        max_length=10_001,
        description="public, rising; of a number column; outer values count at the end",
    )


class Quantiles(Frozen):
    """Values below which shares of the rows lie, as near as the cells allow."""

    ask: Literal["quantiles"] = Field(description="values below which shares lie")
    column: Text = Field(description="a number column of [data.columns]")
    edges: Edges = Field(
        min_length=2, max_length=10_001, description="public, rising: the cells"
    )
    at: Listed[Annotated[float, Field(gt=0, lt=1)]] = Field(
        min_length=1, max_length=100, description="the shares, such as [0.5]"
    )


Question = Annotated[Count | Mean | Histogram | Quantiles, Field(discriminator="ask")]


class Statistics(Frozen):
    """Questions that are answered together, once, by one draw of noise."""

    noise: Literal["gaussian", "laplace", "discrete-gaussian"] = Field(
        description="gaussian for all; the others for few counts of single records"
    )
    ask: Annotated[dict[Name, Question], AfterValidator(canonical_order)] = Field(
        min_length=1, max_length=1000, description="questions by name"
    )


MOST_RECORDS = 10_000  # all of a person's rows are averaged into one
# What a study that trains nothing need not write.
UNUSED: dict[str, dict[str, Any]] = {
    "model": {"name": "none"},
    "training": {
        "rounds": 1,
        "local_steps": 1,
        "sample_rate": 1.0,
        "learning_rate": 1.0,
    },
    "evaluation": {"on": "none"},
    "aggregation": {"spare_turns": 0},
    "privacy": {"clip_norm": 1.0},
}


def with_unused(parts: Any) -> Any:
    """The parts of a study file, with what a study of statistics leaves out."""
    if not isinstance(parts, dict) or "statistics" not in parts:
        return parts
    found = dict(parts)
    for name, lines in UNUSED.items():
        written = found.get(name, {})
        if isinstance(written, dict):
            found[name] = {**lines, **written}
    privacy = found["privacy"]
    if isinstance(privacy, dict) and privacy.get("unit") == "person":
        privacy.setdefault("max_records", MOST_RECORDS)
    return found
