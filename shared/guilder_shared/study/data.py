"""The data contract of a study: kinds and PUBLIC bounds, nothing learnt from rows.

A tagged union over what a site holds. This module opens no file and knows no model.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeVar

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
        _refuse_twice("values", self.values)
        return self


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


def _refuse_twice(key: str, values: Sequence[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        what = f'holds "{twice[0]}" more than once'
        fix = "Name each value once."
        raise ContradictionError([Contradiction((key,), what, fix)])


Each = TypeVar("Each")


def canonical_order(named: dict[str, Each]) -> dict[str, Each]:
    """In the order of canonical JSON (UTF-16), wherever it was read.

    The order of columns is the order of the model's inputs, that of questions the order
    of the numbers that answer them: a site, which reads the canonical form, and the
    server, which reads the file, must agree on it.
    """
    names = sorted(named, key=lambda name: name.encode("utf-16-be"))
    return {name: named[name] for name in names}


class TableData(Frozen):
    """The contract with every site's table: kinds and PUBLIC bounds."""

    kind: Literal["table"] = Field(description="the rows of a table")
    dataset: Name = Field(description="each site maps this name to its own source")
    target: Text = Field(description="column with 0 or 1, or with the class")
    classes: Listed[Text] | None = Field(
        default=None,
        min_length=2,
        max_length=10_000,
        description="public values of the target; left out where it is 0 or 1",
    )
    person: Text | None = Field(
        default=None, description='column naming the person, for unit = "person"'
    )
    columns: Annotated[dict[Text, Column], AfterValidator(canonical_order)] = Field(
        min_length=1, max_length=10_000, description="the model's inputs"
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        _refuse_twice("classes", self.classes or ())
        return self


class ImageData(Frozen):
    """The contract with every site's images: one public shape, 8 bits a number."""

    kind: Literal["images"] = Field(description="images of one shape")
    dataset: Name = Field(description="each site maps this name to its own source")
    image: Text = Field(default="image", description="column with the images")
    target: Text = Field(description="column with the class, or with the mask")
    person: Text | None = Field(
        default=None, description='column naming the person, for unit = "person"'
    )
    height: int = Field(ge=4, le=1024, description="pixels")
    width: int = Field(ge=4, le=1024, description="pixels")
    channels: int = Field(ge=1, le=64, description="1 = grey, 3 = colour")
    classes: Listed[Text] | None = Field(
        default=None,
        min_length=2,
        max_length=10_000,
        description="public values of the target; left out where it is a mask",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        _refuse_twice("classes", self.classes or ())
        return self


class TextData(Frozen):
    """The contract with every site's texts: public classes, and how words are cut."""

    kind: Literal["texts"] = Field(description="short texts")
    dataset: Name = Field(description="each site maps this name to its own source")
    text: Text = Field(default="text", description="column with the texts")
    target: Text = Field(description="column with the class")
    person: Text | None = Field(
        default=None, description='column naming the person, for unit = "person"'
    )
    max_tokens: int = Field(ge=2, le=512, description="longer texts are cut")
    classes: Listed[Text] = Field(
        min_length=2, max_length=10_000, description="public values of the target"
    )
    words: Literal["hashed", "wordpiece"] = Field(
        description='"hashed": by a public hash; "wordpiece": as minilm was trained'
    )
    vocabulary: int | None = Field(
        default=None, ge=16, le=1_000_000, description='tokens, with words = "hashed"'
    )

    @model_validator(mode="after")
    def _vocabulary_with_hashed(self) -> Self:
        _refuse_twice("classes", self.classes)
        if (self.words == "hashed") == (self.vocabulary is not None):
            return self
        missing = self.vocabulary is None
        what = f'{"missing" if missing else "given"}, with words = "{self.words}"'
        fix = 'Write words = "hashed" with vocabulary = 8192, or "wordpiece" without.'
        raise ContradictionError([Contradiction(("vocabulary",), what, fix)])


class ColumnData(Frozen):
    """The contract with every site's table, where columns are asked about as such."""

    kind: Literal["columns"] = Field(description="columns that are asked about")
    dataset: Name = Field(description="each site maps this name to its own source")
    person: Text | None = Field(
        default=None, description='column naming the person, for unit = "person"'
    )
    columns: Annotated[dict[Text, Column], AfterValidator(canonical_order)] = Field(
        min_length=1, max_length=10_000, description="with public bounds or values"
    )


Data = TableData | ImageData | TextData | ColumnData
