"""The processes that share this site's turns: started, given rows, ended.

One for each further device. They are started by the name of an installed module, get
rows and weights through `pipe` and exchange sums over loopback (`privacy.shares`). No
code and no pickle passes. This module computes nothing.

Review, mathematics: see `privacy.shares`.
Review, crash order: a turn begins after its charge was made durable. If a worker ends
in the middle, the turn raises, all workers are ended and nothing was released; asked
again, the turn is taken anew with fresh keys under the same charge. If this process
ends, its workers read the end of their pipe, or a broken exchange, and end too.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from guilder_shared.errors import DeviceError
from guilder_shared.messages import Plan, Weights
from guilder_shared.privacy import witness
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device, pipe
from guilder_shared.training.device import Speed

if TYPE_CHECKING:
    from guilder_shared.privacy.shares import Shares

MOST_WAIT_S = 600  # for another process, in the exchange of one step
_DYING_S = 1.0
_WORKER = "guilder_shared.training.worker"

_lock = threading.Lock()  # one turn at a time: the exchange is this process's only one
_crew: "Crew | None" = None


class Crew:
    """This process and its workers, on one exchange.

    Args:
        speed: How all of them compute.

    Raises:
        DeviceError: GLD-G010 a worker ended while it started.
    """

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self._folder = tempfile.TemporaryDirectory(prefix="guilder-crew-")
        self._pipes: list[socket.socket] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self.shares: Shares | None = None
        meeting = os.path.join(self._folder.name, "meeting")
        try:
            for rank in range(1, speed.devices):
                self._start(rank, meeting)
            self.shares = join(0, speed, meeting)
        except BaseException:
            self.end()
            raise

    def whole(self) -> bool:
        """Whether every worker is there."""
        return all(worker.poll() is None for worker in self.workers)

    def broke(self) -> bool:
        """Whether a worker ended; one that is about to is waited for."""
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=_DYING_S)
                return True
        return False

    def tell(self, message: pipe.Message) -> None:
        """Give every worker a turn to share."""
        for each in self._pipes:
            pipe.send(each, message)

    def end(self) -> None:
        """End every worker, whatever it does, and the exchange."""
        for each in self._pipes:
            each.close()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self._pipes, self.workers = [], []
        if self.shares is not None:
            self.shares = None
            leave()
        self._folder.cleanup()

    def _start(self, rank: int, meeting: str) -> None:
        ours, theirs = socket.socketpair()
        self._pipes.append(ours)
        with theirs:
            command = [sys.executable, "-P", "-m", _WORKER, str(theirs.fileno())]
            worker = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self.workers.append(worker)
        words = {"rank": rank, "meeting": meeting, "speed": self.speed.model_dump()}
        pipe.send(ours, pipe.Message(words, {}))


def join(rank: int, speed: Speed, meeting: str) -> "Shares":
    """Meet the other processes of a crew; waits for them.

    Args:
        rank: Of this process; 0 leads.
        speed: As everywhere in the crew.
        meeting: A file in a folder of this user alone, where they learn of each other.

    Raises:
        RuntimeError: Somebody did not come.
    """
    from datetime import timedelta

    import torch
    from torch import distributed
    from torch.distributed import FileStore  # type: ignore[attr-defined]  # untyped

    from guilder_shared.privacy.shares import Shares

    # Nothing but loopback: what passes is a sum before its noise.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    place = "cpu"
    if speed.device == "cuda":
        place = f"cuda:{rank}"
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if speed.device == "cuda" else "gloo",
        store=FileStore(meeting, speed.devices),
        rank=rank,
        world_size=speed.devices,
        timeout=timedelta(seconds=MOST_WAIT_S),
    )
    return Shares(rank, speed.devices, place)


def leave() -> None:
    """End this process's part in the exchange."""
    from torch import distributed

    with contextlib.suppress(RuntimeError):  # the others may be gone
        distributed.destroy_process_group()


@contextmanager
def sharing(
    weights: Weights,
    study: Study,
    plan: Plan,
    examples: Examples,
    *,
    public_size: int,
    keys: TurnKeys,
) -> Iterator["Shares | None"]:
    """Give a turn to all devices; None where this process has one alone.

    Args are those of `fit`.

    Raises:
        DeviceError: GLD-G010 a worker ended before the turn did.
    """
    if device.current().devices == 1:
        yield None
        return
    words = {
        "study": study.model_dump(mode="json", by_alias=True, exclude_none=True),
        "plan": asdict(plan),
        "public_size": public_size,
        "keys": keys.root.hex(),
        "watched": witness.watched(),
    }
    arrays: dict[str, NDArray[Any]] = {
        "inputs": examples.inputs,
        "targets": examples.targets,
        **{f"weights/{name}": array for name, array in weights.items()},
    }
    if examples.units is not None:
        arrays["units"] = examples.units
    with _lock, _ended_if_broken() as crew:
        crew.tell(pipe.Message(words, arrays))
        assert crew.shares is not None
        crew.shares.watched = witness.watched()
        yield crew.shares


@contextmanager
def _ended_if_broken() -> Iterator[Crew]:
    """The crew, which does not outlive a turn that failed."""
    crew: Crew | None = None
    try:
        crew = _ready()
        yield crew
    except BaseException as error:
        broken = crew is None or crew.broke()
        end()
        if broken and isinstance(error, RuntimeError | OSError):
            raise DeviceError(
                "GLD-G010",
                "a process that shares this site's turns ended in the middle of one.",
                fix="Look at its last lines above; the turn is taken again when the "
                "server asks. devices = 1 under [speed] needs no such process.",
            ) from error
        raise


def _ready() -> Crew:
    """The crew for how this process computes, started anew where it is not whole."""
    global _crew  # noqa: PLW0603 - the exchange is the process's own, as torch has it
    if _crew is not None and (_crew.speed != device.current() or not _crew.whole()):
        end()
    if _crew is None:
        _crew = Crew(device.current())
        atexit.register(end)
    return _crew


def end() -> None:
    """End the workers; the next turn starts others."""
    global _crew
    crew, _crew = _crew, None
    if crew is not None:
        atexit.unregister(end)
        crew.end()
