"""A dataset against a study's contract: a report for the engineer, which stays here.

It reads the rows, as `client check --study` says, and counts: types, missing cells,
cells beyond the public bounds, rows that are there twice, persons. It holds counts and
the study's own words, never a cell. Nothing of it may be sent, nor decide on a study.

Review, mathematics: counts of rows, not noised; for the eyes of those who may see the
rows themselves.
Review, crash order: in memory; a file is written only where the engineer names one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guilder.doctor.finding import Finding, fine, warning
from guilder_shared import tables
from guilder_shared.study import ColumnData, Data, NumberColumn, Study, TableData
from guilder_shared.tables import answers, contract, persons

if TYPE_CHECKING:
    import pyarrow as pa

MUCH_MISSING = 0.2  # shares of rows from which the engineer is told
MANY_BEYOND = 0.01
MANY_TWICE = 0.01
FAR_OFF = 2.0  # times the typed public size


@dataclass(frozen=True)
class ColumnReport:
    """One column, in counts.

    Attributes:
        name: As the study names it.
        kind: As the file holds it.
        missing: Cells that are empty, or no number where one is wanted.
        below: Numbers below the public bound; they count as the bound.
        above: Likewise above.
        unknown: Filled cells that are none of the public values.
    """

    name: str
    kind: str
    missing: int
    below: int = 0
    above: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class RowReport:
    """One dataset, in counts.

    Attributes:
        rows: In the file, without excluded persons.
        twice: Rows that are equal to an earlier one in all columns of the contract.
        persons: Different persons; None where the study names no such column.
        most_rows: Of one person.
        nobody: Rows that name no person.
        columns: Each column.
    """

    rows: int
    twice: int
    persons: int | None
    most_rows: int | None
    nobody: int | None
    columns: tuple[ColumnReport, ...]

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def report(table: "pa.Table", data: Data) -> RowReport:
    """Count what a table holds.

    Args:
        table: The contract's columns, as `tables.read` gives them.
        data: The contract; its person's column is counted if the table has it.
    """
    named = data.person is not None and data.person in table.column_names
    num_persons = most = nobody = None
    if named:
        units, there = persons.units(table.column(data.person))
        _, counts = np.unique(units[there], return_counts=True)
        num_persons, most = len(counts), int(counts.max(initial=0))
        nobody = int((~there).sum())
    columns = tuple(_column(table, name, data) for name in table.column_names)
    return RowReport(table.num_rows, _twice(table), num_persons, most, nobody, columns)


def findings(found: RowReport, study: Study, *, public_size: int) -> Iterator[Finding]:
    """What of a report the engineer should act on.

    Args:
        found: Of the study's dataset here.
        study: For the unit and the target.
        public_size: Rows, as typed.
    """
    name, part = study.data.dataset, "data"
    rows = max(1, found.rows)
    told = f"{name}: {found.rows} rows, {len(found.columns)} columns"
    if found.persons is not None:
        told += f", {found.persons} persons"
    yield fine(part, f"{told}; this report stays here")
    for each in found.columns:
        yield from _column_findings(each, rows)
    if found.twice > MANY_TWICE * rows:
        yield warning(
            part, "GLD-D060", f"{name}: {found.twice} of {rows} rows are there twice",
            why="They equal an earlier row in all columns of the study.",
            fix="Remove them at the source if they are one event; a study itself never "
            "looks for them.",
        )  # fmt: skip
    if found.nobody:
        yield warning(
            part, "GLD-D061", f"{name}: {found.nobody} rows name no person",
            why="Studies that protect persons leave such rows out.",
            fix=f"Fill the column {study.data.person!r} at the source.",
        )  # fmt: skip
    several = found.most_rows is not None and found.most_rows > 1
    if several and study.privacy.unit == "record":
        yield warning(
            part, "GLD-D064",
            f"{name}: one person has up to {found.most_rows} rows, and the study "
            "protects each record",
            why="A person with many rows may lose that many times what one row may.",
            fix='Ask for privacy.unit = "person" with max_records.',
        )  # fmt: skip
    ratio = max(found.rows, 1) / public_size
    if not 1 / FAR_OFF <= ratio <= FAR_OFF:
        yield warning(
            part, "GLD-D065", f"{name}: public_size is typed as {public_size}; there "
            f"are {found.rows} rows",
            why="The size scales every update: far off, a study learns badly. It is "
            "public, and not compared anywhere else.",
            fix="Type a better round number, and have the officer sign it anew.",
        )  # fmt: skip


def _column_findings(each: ColumnReport, rows: int) -> Iterator[Finding]:
    part = "data"
    if each.missing > MUCH_MISSING * rows:
        yield warning(
            part, "GLD-D062",
            f"column {each.name!r} ({each.kind}): {each.missing} of {rows} cells are "
            "missing",
            why="They are empty, or no numbers where the study wants some.",
            fix="Compare the column with the study's; see `map` in site.toml.",
        )  # fmt: skip
    beyond = each.below + each.above + each.unknown
    if beyond > MANY_BEYOND * rows:
        yield warning(
            part, "GLD-D063",
            f"column {each.name!r}: {each.below} cells below the study's bound, "
            f"{each.above} above, {each.unknown} of no value that it names",
            why="Another measure (euros or cents?), another code, or real extremes.",
            fix="Convert the column at the source; numbers beyond a bound count as the "
            "bound.",
        )  # fmt: skip


def _column(table: "pa.Table", name: str, data: Data) -> ColumnReport:
    column = table.column(name)
    kind = str(column.type)
    if isinstance(data, ColumnData) and name == data.person:
        return ColumnReport(name, kind, column.null_count)
    if not isinstance(data, TableData | ColumnData) or name in (
        data.person,
        getattr(data, "target", None),
    ):
        values = getattr(data, "classes", None)
        if data.kind == "table" and name == data.target and not values:
            numbers = contract.numbers(table, name)
            odd = int((~np.isnan(numbers) & ~np.isin(numbers, (0, 1))).sum())
            return ColumnReport(name, kind, int(np.isnan(numbers).sum()), unknown=odd)
        if values and name == getattr(data, "target", None):
            odd = int((answers.classes(column, values) < 0).sum()) - column.null_count
            return ColumnReport(name, kind, column.null_count, unknown=max(0, odd))
        return ColumnReport(name, kind, column.null_count)
    asked = data.columns[name]
    if isinstance(asked, NumberColumn):
        numbers = contract.numbers(table, name)
        return ColumnReport(
            name,
            kind,
            int(np.isnan(numbers).sum()),
            below=int((numbers < asked.low).sum()),
            above=int((numbers > asked.high).sum()),
        )
    odd = int((answers.classes(column, asked.values) < 0).sum()) - column.null_count
    return ColumnReport(name, kind, column.null_count, unknown=max(0, odd))


def _twice(table: "pa.Table") -> int:
    if table.num_rows == 0:
        return 0
    groups = table.group_by(table.column_names).aggregate([]).num_rows
    return int(table.num_rows - groups)


def read(study: Study, source: Any, leave_out: Any) -> "pa.Table":
    """The study's columns of a mapped file, without excluded persons."""
    data = study.data if leave_out is not None else study.site_contract
    wanted = list(tables.needed(data))
    person = study.data.person
    if person is not None and person not in wanted:
        present = tables.column_names(source.kind, source.path)
        if source.columns.get(person, person) in present:
            wanted.append(person)
    table = tables.read(source.kind, source.path, source.columns, wanted)
    if leave_out is None:
        return table
    return tables.without_persons(table, leave_out.person, leave_out.ids)
