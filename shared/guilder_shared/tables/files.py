"""Reading tables: a CSV, Parquet or NPZ file in, a table of columns out.

DuckDB reads CSV, locked down: it may open this one file, loads no extension and asks
no network. Arrow reads Parquet, because DuckDB refuses a whole file for one cell that
is no UTF-8, and data may not stop a turn. This module knows the names it is asked for
and no contract's meaning.
"""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from guilder_shared.errors import DataError
from guilder_shared.study import Data
from guilder_shared.tables import arrays
from guilder_shared.tables.contract import UNTYPED, check_present
from guilder_shared.tables.kinds import check_types, needed

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FileKind = Literal["csv", "parquet", "npz"]

DELIMITERS = (",", ";", "\t", "|")
LONGEST_HEADER_BYTES = 1 << 20
LONGEST_LINE_BYTES = 1 << 25


def column_names(kind: FileKind, path: Path) -> tuple[str, ...]:
    """The column names of a file, without reading a row.

    Args:
        kind: How the file is written.
        path: The file. CSV is UTF-8 with a header line and one of , ; tab | between
            columns, the one that makes most columns of the header.

    Raises:
        DataError: GLD-D001 the file cannot be opened, GLD-D002 it is not of `kind`.
    """
    if kind == "csv":
        return _csv_header(path)[0]
    if kind == "npz":
        return arrays.names(path)
    return tuple(_parquet_schema(path).names)


def read(
    kind: FileKind,
    path: Path,
    columns_map: Mapping[str, str] | None = None,
    wanted: Iterable[str] | None = None,
) -> "pa.Table":
    """Read the wanted columns of a file, under the contract's names.

    A CSV line that is no line of the table (invalid UTF-8, over 32 MiB) is left out
    and cells missing at its end are empty, each line by itself. An opening quote
    without its closing one hides the lines after it: CSV has no rule for that.

    Args:
        kind: How the file is written.
        path: The file; nothing else on the machine can be read, nothing is loaded.
        columns_map: Contract's name to the file's; others keep their name.
        wanted: The contract's names to read; None reads every column of the file.

    Returns:
        A table of the wanted columns, in their order, rows in file order.

    Raises:
        DataError: GLD-D001 the file cannot be opened, GLD-D002 it is not of `kind`,
            GLD-D003 a column is missing; of an NPZ file also as `arrays.read`.
    """
    renamed = dict(columns_map or {})
    present = column_names(kind, path)
    theirs = {name: name for name in present}
    if wanted is not None:
        theirs = {name: renamed.get(name, name) for name in wanted}
        check_present(theirs, present, where=path.name)
    names = list(dict.fromkeys(theirs.values()))
    readers = {"csv": _query, "parquet": _columns, "npz": arrays.read}
    table = readers[kind](path, names)
    table = table.select(list(theirs.values())).rename_columns(list(theirs))
    return _marked_untyped(table) if kind == "csv" else table


def check_file(
    kind: FileKind, path: Path, columns_map: Mapping[str, str], data: Data
) -> None:
    """Check a file's columns against the contract without reading a row.

    The outcome depends on names and types alone, so a site may act on it before
    anything is charged.

    Raises:
        DataError: GLD-D001 and GLD-D002 as in `column_names`, GLD-D003 a column is
            missing, GLD-D004 or GLD-D027 a typed column has the wrong type.
    """
    theirs = {name: columns_map.get(name, name) for name in needed(data)}
    check_present(theirs, column_names(kind, path), where=path.name)
    if kind != "csv":
        names = list(dict.fromkeys(theirs.values()))
        npz = kind == "npz"
        schema = arrays.schema(path, names) if npz else _parquet_schema(path)
        fields = {name: schema.field(their) for name, their in theirs.items()}
        check_types(fields, data)


def _marked_untyped(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    fields = [
        pa.field(name, pa.string(), metadata=UNTYPED) for name in table.column_names
    ]
    return table.cast(pa.schema(fields))


def _csv_header(path: Path) -> tuple[tuple[str, ...], str]:
    """The column names and the delimiter, from the first line alone."""
    try:
        with _opened(path) as file:
            line = file.readline(LONGEST_HEADER_BYTES)
        header = line.removeprefix(codecs.BOM_UTF8).decode("utf-8").strip("\r\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _not_of_kind(path, "csv", "its header is not UTF-8 text") from error
    split = {
        mark: next(csv.reader([header], delimiter=mark), []) for mark in DELIMITERS
    }
    delimiter = max(DELIMITERS, key=lambda mark: len(split[mark]))
    names = tuple(split[delimiter])
    if not any(names):
        raise _not_of_kind(path, "csv", "it has no header line")
    if len(set(names)) < len(names):
        raise _not_of_kind(path, "csv", "two columns have the same name")
    return names, delimiter


def _parquet_schema(path: Path) -> "pa.Schema":
    import pyarrow as pa
    from pyarrow import parquet

    _opened(path).close()
    try:
        return parquet.read_schema(path)
    except pa.ArrowInvalid as error:
        raise _not_of_kind(path, "parquet", "it has no Parquet footer") from error


def _columns(path: Path, names: list[str]) -> "pa.Table":
    """Columns of a Parquet file; no cell is looked at, so none can be refused."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            return file.read(columns=names, use_threads=False)
    except (pa.ArrowException, OSError):
        # Arrow may quote cells in its messages, so its error is not passed on.
        raise _not_of_kind(path, "parquet", "it cannot be read to its end") from None


def _query(path: Path, names: list[str]) -> "pa.Table":
    import duckdb

    columns = ", ".join(_quoted(name) for name in names)
    header, delimiter = _csv_header(path)
    params: dict[str, Any] = {
        "path": str(path.resolve()),
        "delimiter": delimiter,
        "longest": LONGEST_LINE_BYTES,
    }
    types = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in header)
    # Every rule is fixed here: a sniffed one would depend on all rows at once.
    source = f"""read_csv($path, auto_detect=false, header=true, delim=$delimiter,
        quote='"', escape='"', columns={{{types}}}, max_line_size=$longest,
        ignore_errors=true, null_padding=true, strict_mode=false,
        parallel=false)"""
    with _locked_down(path) as connection:
        try:
            # Names are quoted identifiers and the path is a parameter.
            relation = connection.sql(
                f"SELECT {columns} FROM {source}",  # noqa: S608
                params=params,
            )
            return relation.to_arrow_table()
        except duckdb.Error:
            # DuckDB quotes cells in its messages, so its error is not passed on.
            raise _not_of_kind(path, "csv", "it cannot be read to its end") from None


def _locked_down(path: Path) -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        },
    )
    only = str(path.resolve()).replace("'", "''")
    connection.execute(f"SET allowed_paths = ['{only}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _opened(path: Path) -> BinaryIO:
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path))
        return path.open("rb")
    except OSError as error:
        raise DataError(
            "GLD-D001",
            f"{path} cannot be opened: {error.strerror}",
            fix="correct `path` in site.toml, or the rights of the file",
        ) from error


def _not_of_kind(path: Path, kind: FileKind, reason: str) -> DataError:
    return DataError(
        "GLD-D002",
        f"{path} is not a {kind} file that Guilder can read",
        why=reason,
        fix="set `kind` to how the file is written, or export it again",
    )
