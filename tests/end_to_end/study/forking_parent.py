"""Loads all of Guilder once, then forks a process for each command that it is told.

Run as `python forking_parent.py`. Each line of its input is a JSON object: the `log`
and the `command` of a process, such as ["client", "start"]; the answer is its process
id. A forked process runs what the command runs; only the loading is spared. The parent
has one thread: libraries that begin threads as they load would not survive a fork.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

LOADED = (  # what both residents load as they start, and what they warm up
    "dp_accounting.pld",
    "torch",
    "guilder_client.commands",
    "guilder_client.resident",
    "guilder_server.app",
    "guilder_server.commands",
    "guilder_server.resident",
    "guilder_shared.training.evaluate",
    "guilder_shared.training.selftest",
)


def become(log: str, command: list[str]) -> None:
    """Be the process of one command, in a session of its own."""
    from guilder.cli import main

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(log).open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["guilder", *command]
    main()


def run() -> None:
    """Fork until the input ends."""
    for module in LOADED:
        import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be forked"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are gone at once
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(asked["log"], asked["command"])
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    run()
