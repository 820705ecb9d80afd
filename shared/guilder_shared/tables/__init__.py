"""Tables: a CSV, Parquet or NPZ file in, encoded rows out, by one public rule.

`files` and `arrays` read; `contract`, `pictures` and `sentences` check and encode,
`kinds` chooses between them. This room knows no network and no budget; who reads, and
when, is decided by its callers.
"""

from guilder_shared.tables.files import FileKind, check_file, column_names, read
from guilder_shared.tables.kinds import check, check_cells, encode, needed
from guilder_shared.tables.leaving_out import without_persons

__all__ = [
    "FileKind",
    "check",
    "check_cells",
    "check_file",
    "column_names",
    "encode",
    "needed",
    "read",
    "without_persons",
]
