"""Unit files for systemd, hardened, and a crontab line where there is no systemd.

Text only: nothing is written or started here. A client needs outbound sockets, its
state folder and, on a GPU, devices; a server needs one or two ports and its storage.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Exit codes that a restart does not mend: a wrong file, a refusal, a changed record.
LASTING: Final = "2 4 5"
# Works in the system's and in a user's manager, and takes nothing that Guilder needs.
# MemoryDenyWriteExecute is left out: torch makes code at run time.
ALWAYS: Final = """\
NoNewPrivileges=yes
UMask=0077
LimitCORE=0
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
# These need the system's manager.
SYSTEM: Final = """\
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
PrivateTmp=yes
PrivateDevices={private_devices}
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset={proc}
RemoveIPC=yes
KeyringMode=private
"""
UNIT: Final = """\
# Written by `guilder {room} install-service`. Edit it with `systemctl edit`.
[Unit]
Description={description}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
{user}ExecStart={command}
Restart=on-failure
RestartSec=10
RestartPreventExitStatus={lasting}
TimeoutStopSec=20
OOMPolicy=stop
{hardening}
[Install]
WantedBy={target}
"""


@dataclass(frozen=True)
class Service:
    """A resident process that shall run from the machine's start on.

    Attributes:
        room: "client" or "server".
        who: Of this site, or of the server, for the description.
        command: The program and its arguments.
        writable: Folders that it writes.
        low_port: Whether it listens below 1024.
        gpu: Whether it needs devices.
    """

    room: str
    who: str
    command: Sequence[str]
    writable: Sequence[Path]
    low_port: bool = False
    gpu: bool = False

    @property
    def name(self) -> str:
        """Of the unit."""
        return f"guilder-{self.room}.service"


def unit(service: Service, *, user: str | None) -> str:
    """The unit file.

    Args:
        service: What runs.
        user: As whom, in the system's manager; None for a user's own manager.
    """
    hardening = ALWAYS
    if user is not None:
        hardening += SYSTEM.format(
            capabilities="CAP_NET_BIND_SERVICE" if service.low_port else "",
            writable=" ".join(_quoted(str(each)) for each in service.writable),
            private_devices="no" if service.gpu else "yes",
            proc="all" if service.gpu else "pid",
        )
    return UNIT.format(
        room=service.room,
        description=f"Guilder {service.room}: {service.who}".replace("%", "%%"),
        user="" if user is None else f"User={user}\n",
        command=" ".join(_quoted(each) for each in service.command),
        lasting=LASTING,
        hardening=hardening,
        target="default.target" if user is None else "multi-user.target",
    )


def cron_line(service: Service, log: Path) -> str:
    """A line for `crontab -e`: starts at boot, and again 10 s after it has failed.

    It stops for good where a restart would not help, and after SIGTERM.
    """
    run = shlex.join(service.command)
    stops = "|".join(["0", *LASTING.split()])
    loop = (
        f"while :; do {run}; case $? in {stops}) break;; esac; sleep 10; done"
        f" >>{shlex.quote(str(log))} 2>&1"
    )
    return f"@reboot umask 077; {loop}".replace("%", "\\%")


def folder(*, user: str | None) -> Path:
    """Where the unit file goes."""
    if user is not None:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd" / "user"


def _quoted(word: str) -> str:
    """A word of ExecStart: systemd's quotes, and no specifier or variable in it."""
    word = word.replace("%", "%%").replace("$", "$$")
    if word and all(c.isalnum() or c in "-_./:@+=,%$" for c in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
