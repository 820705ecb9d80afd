"""Stock Flower on loopback, running our two apps: one SuperLink, several SuperNodes.

For the test that proves it works and the benchmark that compares. Without TLS, hence
never for real rows: deploy/flower/README.md says what stock Flower leaves open.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from guilder.consortium import free_ports
from guilder_shared.errors import NetworkError

BUNDLE = Path(__file__).parents[1] / "flower"
BIN = Path(sys.executable).parent
CONFIG = """\
[superlink]
default = "loopback"

[superlink.loopback]
address = "127.0.0.1:{port}"
insecure = true
"""


class StockFlower:
    """The processes of one SuperLink and its SuperNodes; all end with the block.

    Args:
        folder: For Flower's own files and the logs; made if missing.
        site_files: A site.toml for each SuperNode.
    """

    def __init__(self, folder: Path, site_files: Sequence[Path]) -> None:
        self.folder = folder
        self._site_files = site_files
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, *self._node_ports = free_ports(1 + len(site_files))
        self._environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def __enter__(self) -> Self:
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        config = CONFIG.format(port=self._port)
        (self.folder / "home" / "config.toml").write_text(config, "utf-8")
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import psutil

        # Flower's helpers lead sessions of their own, and outlive their parent
        family = [
            member
            for process in self._processes
            if process.poll() is None
            for member in [
                *psutil.Process(process.pid).children(recursive=True),
                psutil.Process(process.pid),
            ]
        ]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)
        for process in self._processes:
            process.wait()

    def run(self, run_folder: Path, server_file: Path | None = None) -> None:
        """Submit, as a person would: `flwr run`; returns when it is accepted.

        Args:
            run_folder: Holds a study.toml, or a run to go on with.
            server_file: The server.toml that names the public hold-out.

        Raises:
            NetworkError: It was refused (GLD-N072).
        """
        config = f'run-folder="{run_folder}"'
        if server_file is not None:
            config += f' server-file="{server_file}"'
        command = [str(BIN / "flwr"), "run", str(BUNDLE), "loopback", "-c", config]
        done = subprocess.run(  # noqa: S603 - Flower's own command, no shell
            command,
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise NetworkError(
                "GLD-N072",
                "stock Flower took no run",
                why=(done.stdout + done.stderr).strip()[-500:],
                fix=f"read {self.folder}/*.log",
            )

    def _start_all(self) -> None:
        common = ["--insecure"]
        link = ["--host", "127.0.0.1", "--port", str(self._port)]
        self._start(
            "superlink", *common, *link, "--disable-runtime-dependency-installation"
        )
        self._await_port()
        for number, (file, port) in enumerate(
            zip(self._site_files, self._node_ports, strict=True), 1
        ):
            self._start(
                "supernode",
                *common,
                *("--superlink", f"127.0.0.1:{self._port}"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--node-config", f'site="{file}"'),
                log=f"supernode-{number}",
            )

    def _start(self, what: str, *arguments: str, log: str = "") -> None:
        with (self.folder / f"{log or what}.log").open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - Flower's own command, no shell
                [BIN / f"flower-{what}", *arguments],
                env=self._environment,
                cwd=self.folder,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the starter alone
            )
        self._processes.append(process)

    def _await_port(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._processes[0].poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise NetworkError(
            "GLD-N073",
            "the SuperLink did not come up",
            fix=f"read {self.folder / 'superlink.log'}",
        )
