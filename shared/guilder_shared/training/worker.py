"""A process that computes a share of a site's turns: `python -m` this module.

It is started by `crew` alone, with one end of a socket pair, reads turns from it until
that closes, and releases nothing: it adds no noise, writes no file and opens no
connection but the exchange over loopback.

Review, mathematics: see `privacy.shares`.
Review, crash order: in memory only; whatever goes wrong ends this process, and with it
the turn.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from guilder_shared.errors import without_values
from guilder_shared.messages import Plan
from guilder_shared.privacy import witness
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.privacy.shares import Shares
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import crew, device, pipe
from guilder_shared.training.device import Speed

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve one crew; the exit code says whether the crew ended it."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    with socket.socket(fileno=int(sys.argv[1])) as source:
        try:
            _serve(source)
        except Exception as error:
            _log.error("worker: %s", without_values(error))
            return 1
    return 0


def _serve(source: socket.socket) -> None:
    first = pipe.receive(source)
    if first is None:
        return
    speed = Speed.model_validate(first.words["speed"])
    device.settle(speed)
    shares = crew.join(first.words["rank"], speed, first.words["meeting"])
    while (message := pipe.receive(source)) is not None:
        _take(message, shares)


def _take(message: pipe.Message, shares: Shares) -> None:
    """One turn's share."""
    from guilder_shared.training.fit import train

    words, arrays = message.words, message.arrays
    shares.watched = words["watched"]
    weights = {
        name.removeprefix("weights/"): array
        for name, array in arrays.items()
        if name.startswith("weights/")
    }
    with witness.watching() if shares.watched else nullcontext(), device.turn():
        train(
            weights,
            _study(words["study"]),
            Plan(**words["plan"]),
            Examples(arrays["inputs"], arrays["targets"], arrays.get("units")),
            public_size=words["public_size"],
            keys=TurnKeys(bytes.fromhex(words["keys"])),
            shares=shares,
        )


def _study(parts: Mapping[str, Any]) -> Study:
    """A study as the leader has it: a self-test's schedule need not be a sensible one.

    Each table is checked, what they must agree on is not.
    """
    fields: dict[str, Any] = {
        name: _adapter(field).validate_json(json.dumps(parts[name]))
        for name, field in Study.model_fields.items()
        if name in parts  # not the format's version, which has another name there
    }
    return Study.model_construct(**fields)


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    table: Any = Annotated[field.annotation, field]
    return TypeAdapter(table)


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # a broken exchange would be waited for
