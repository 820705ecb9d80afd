"""A dataset of one site: how a study's dataset name becomes rows.

Two readings are kept apart. `check` looks at column names and types, reads no row and
may decide about a study; `read` reads every row and is called only after the ledger
was charged. This module decides neither, and nothing of it travels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from guilder_shared import tables
from guilder_shared.study import Data
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa


class Mapped(Protocol):
    """The lines `[data.NAME]` of site.toml that a source needs."""

    @property
    def kind(self) -> tables.FileKind:
        """How the file is written."""

    @property
    def path(self) -> Path:
        """The file, absolute."""

    @property
    def map(self) -> Mapping[str, str]:
        """The study's column name to the file's, where they differ."""

    @property
    def public_size(self) -> int:
        """Rows, as a number that may be known to all."""

    @property
    def public_persons(self) -> int | None:
        """Persons, likewise; None where nobody typed it."""


@dataclass(frozen=True)
class LeaveOut:
    """Persons whose rows no study may see.

    Attributes:
        person: The study's column that says whose row a row is.
        ids: The persons, as text.
    """

    person: str
    ids: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class FileSource:
    """Rows in a CSV or Parquet file.

    Attributes:
        public_size: Rows; typed by a person, never counted.
        public_persons: Persons, likewise; None where nobody typed it.
    """

    kind: tables.FileKind
    path: Path
    columns: Mapping[str, str]
    public_size: int
    public_persons: int | None = None

    def check(self, data: Data) -> None:
        """Check the file's columns against the contract; no row is read.

        Raises:
            DataError: GLD-D001 the file cannot be opened, GLD-D002 it is of another
                kind, GLD-D003 a column is missing, GLD-D004 one has the wrong type.
        """
        tables.check_file(self.kind, self.path, self.columns, data)

    def check_cells(self, data: Data, leave_out: LeaveOut | None = None) -> None:
        """Read the rows and check that number columns hold numbers.

        For the engineer at this site: its outcome depends on rows, so it must not
        reach the server, nor decide whether a study is accepted or a turn runs.

        Raises:
            DataError: As `check`.
        """
        tables.check_cells(self._rows(data, leave_out), data)

    def read(self, data: Data, leave_out: LeaveOut | None = None) -> Examples:
        """All rows, encoded. Call it only after the ledger was charged.

        Args:
            data: The contract.
            leave_out: Whose rows to drop before anything else looks at them.

        Privacy: a row of the file becomes one example or none, by a public rule that
        sees that row alone. No cell raises; only a file that changed its columns since
        `check`, or that is gone, does.

        Raises:
            DataError: As `check`.
        """
        return tables.encode(self._rows(data, leave_out), data)

    def _rows(self, data: Data, leave_out: LeaveOut | None = None) -> "pa.Table":
        wanted = tables.needed(data)
        if leave_out is None:
            return tables.read(self.kind, self.path, self.columns, wanted)
        wanted = tuple(dict.fromkeys((*wanted, leave_out.person)))
        table = tables.read(self.kind, self.path, self.columns, wanted)
        return tables.without_persons(table, leave_out.person, leave_out.ids)


@dataclass(frozen=True)
class TableSource:
    """Rows in memory: what a simulated site was dealt."""

    table: "pa.Table" = field(repr=False)
    public_size: int
    public_persons: int | None = None

    def check(self, data: Data) -> None:
        """Check names and types.

        Raises:
            DataError: GLD-D003 a column is missing, GLD-D004 one has the wrong type.
        """
        tables.check(self.table, data)

    def read(self, data: Data, leave_out: LeaveOut | None = None) -> Examples:
        """All rows, encoded; see `FileSource.read`.

        Raises:
            DataError: As `check`.
        """
        table = self.table
        if leave_out is not None:
            table = tables.without_persons(table, leave_out.person, leave_out.ids)
        return tables.encode(table, data)


def open_source(mapped: Mapped) -> FileSource:
    """The source that `[data.NAME]` of site.toml describes; opens no file yet."""
    return FileSource(
        kind=mapped.kind,
        path=mapped.path,
        columns=mapped.map,
        public_size=mapped.public_size,
        public_persons=mapped.public_persons,
    )


def from_table(
    table: "pa.Table", public_size: int, public_persons: int | None = None
) -> TableSource:
    """A source over rows that are in memory already."""
    return TableSource(table, public_size, public_persons)
