"""The data contract of a study: kinds and PUBLIC bounds, nothing learnt from rows.

A tagged union over what a site holds. This module opens no file and knows no model.
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from guilder_shared.settings.files import Frozen, Listed, Name, Text
from guilder_shared.settings.mistakes import Contradiction, ContradictionError


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
