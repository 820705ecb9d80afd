"""Tables: a CSV or Parquet file in, encoded rows out, by one public rule.

`files` reads, `contract` checks and encodes. This room knows no model, no network and
no budget; who reads, and when, is decided by its callers.
"""

from guilder_shared.tables.contract import check, check_cells, encode, needed
from guilder_shared.tables.files import FileKind, check_file, column_names, read

__all__ = [
    "FileKind",
    "check",
    "check_cells",
    "check_file",
    "column_names",
    "encode",
    "needed",
    "read",
]
