"""An error of Guilder on its way between two processes: whole, and fit for a terminal.

It travels as the proto message Error. What arrives may come from somebody hostile, so
an unknown id becomes a bug's, and no text moves a cursor. This module opens nothing.
"""

import re

from guilder_shared.errors import GuilderError, RunFailed
from guilder_shared.plain_text import one_line
from guilder_shared.proto import control_pb2 as messages

LONGEST_PART = 1500  # characters of an error's part; metadata holds 8 KiB
ERROR_KEY = "guilder-error-bin"  # in the trailing metadata of a call
ERROR_ID = re.compile(r"GLD-[A-Z][0-9]{3}")
UNKNOWN = "GLD-R012"  # what an id that is none is told as


def pack(error: GuilderError) -> bytes:
    """The error as bytes; long parts are cut."""
    parts = (error.error_id, error.what, error.why, error.fix)
    id_, what, why, fix = (part[:LONGEST_PART] for part in parts)
    packed: bytes = messages.Error(
        id=id_, what=what, why=why, fix=fix
    ).SerializeToString()
    return packed


def unpack(sent: bytes) -> GuilderError:
    """The error as it was raised, of the class that its id belongs to."""
    try:
        error = messages.Error.FromString(sent)
    except Exception:  # whatever the other side sent in its place
        error = messages.Error()
    kinds = {kind.letter: kind for kind in GuilderError.__subclasses__()}
    known = ERROR_ID.fullmatch(error.id) and error.id[4] in kinds
    kind, error_id = (kinds[error.id[4]], error.id) if known else (RunFailed, UNKNOWN)
    what, why, fix = (
        one_line(part, LONGEST_PART) for part in (error.what, error.why, error.fix)
    )
    return kind(error_id, what, why=why, fix=fix)
