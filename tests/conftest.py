"""Fixtures for whole rooms: a consortium with keys, a hub, nodes, three verifiers."""

import base64
import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples each time and no deadline: what fails here must fail for everyone.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

# A shell's background job ignores SIGINT, and so would every process started here.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NODE = shutil.which("node")
DRIVER = Path(__file__).parent / "deploy" / "verifiers" / "drive.js"


class Consortium:
    """Keys for some sites on this machine; hubs and nodes that end with the test."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        from guilder_shared.certificates import init_local_sites

        self.folder, self.names = folder, names
        init_local_sites(folder, names, ["127.0.0.1"])
        self._ends: list[Callable[[], None]] = []

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name

    def hub(self, port: int = 0, **options: Any) -> Any:
        from guilder_server.hub import Hub
        from guilder_shared.certificates import roster
        from guilder_shared.tls import server_context

        sites = {
            n: s.node_key for n, s in roster(self.folder / "server" / "sites").items()
        }
        tls = server_context(self.folder / "server")
        hub = Hub(("127.0.0.1", port), tls, sites, **options)
        hub.start()
        self._ends.append(hub.stop)
        return hub

    def node(self, name: str, port: int, app: Any, **options: Any) -> threading.Event:
        """Start a node in a thread; the event it returns stops it."""
        from guilder_client.node import Node

        url = f"https://127.0.0.1:{port}"
        node = Node(url, self.site(name), app, {"site": name}, **options)
        stop = threading.Event()
        thread = threading.Thread(target=node.run_forever, args=(stop,), daemon=True)
        thread.start()
        self._ends.append(stop.set)
        return stop

    def close(self) -> None:
        for end in reversed(self._ends):
            end()


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    made = Consortium(tmp_path / "consortium", ("alder", "birch", "cedar"))
    yield made
    made.close()


class Proxy:
    """A CONNECT proxy on loopback that knows one host and wants one password."""

    def __init__(self, host: str, target: int, tls_keys: Path | None = None) -> None:
        self._host, self._target = host, target
        self._tls = None
        if tls_keys is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls_keys / "server.pem", tls_keys / "server.key")
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._socket.accept()
                threading.Thread(
                    target=self._serve, args=(caller,), daemon=True
                ).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            caller = plain
            if self._tls is not None:
                caller = self._tls.wrap_socket(plain, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                head += caller.recv(4096)
            lines = head.decode().split("\r\n")
            self.asked.append(lines[0])
            secret = base64.b64encode(b"ward-3:s3cret").decode()
            if f"Proxy-Authorization: Basic {secret}" not in lines:
                caller.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
                )
                return
            if not lines[0].startswith(f"CONNECT {self._host}:"):
                caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._target)) as inner:
                caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_copy, args=(inner, caller), daemon=True)
                back.start()
                _copy(caller, inner)
                back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def connect_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """Starts proxies; what the environment says of proxies is not heard."""
    for name in ("http", "https", "no", "all"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    started: list[Proxy] = []

    def start(*args: Any, **settings: Any) -> Proxy:
        started.append(Proxy(*args, **settings))
        return started[-1]

    yield start
    for proxy in started:
        proxy.close()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait until something is true, and fail with its name if it never is."""

    def wait(what: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.01)
        raise AssertionError(f"not within {timeout_s} s")

    return wait


Verdict = Callable[..., str]  # the error's id, or "" for a sound file


@dataclass(frozen=True)
class Question:
    """A file to check, and what its reader knows."""

    raw: bytes
    keys: tuple[str, ...] = ()
    ledger: bytes | None = None
    officers: tuple[str, ...] = ()


def first(asked: Question, folder: Path) -> str:
    from guilder_shared import reports
    from guilder_shared.errors import IntegrityError

    path, beside = folder / "x.json", folder / "x.jsonl"
    path.write_bytes(asked.raw)
    if asked.ledger is not None:
        beside.write_bytes(asked.ledger)
    try:
        reports.verify_any(
            path,
            keys=asked.keys,
            officers=asked.officers,
            ledger=None if asked.ledger is None else beside,
        )
    except IntegrityError as error:
        return error.error_id
    return ""


def second(asked: Question, _: Path) -> str:
    from guilder_verifier.check import check
    from guilder_verifier.finding import Finding

    try:
        check(asked.raw, asked.keys, asked.ledger, asked.officers)
    except Finding as found:
        return found.error_id
    return ""


class Page:
    """The page's own checks in a process of node; started when first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp())
        self._base = b""

    def __call__(self, asked: Question, _: Path) -> str:
        told = self.answer(asked, full=False)
        assert told["id"] != "BUG", told["what"]
        return str(told["id"])

    def said(self, raw: bytes) -> Any:
        """What the page would show of a file that is sound."""
        return self.answer(Question(raw))["answer"]

    def answer(self, asked: Question, *, full: bool = True) -> Any:
        """The verdict, and what the page would show."""
        if self._process is None:
            self._process = self._start()
        at, remove, insert = difference(self._base, asked.raw)
        if len(insert) > 4096:
            (self._folder / "base").write_bytes(asked.raw)
            self._base, at, remove, insert = asked.raw, 0, 0, b""
            self._write({"base": str(self._folder / "base")})
        ledger = None
        if asked.ledger is not None:
            ledger = str(self._folder / "ledger")
            Path(ledger).write_bytes(asked.ledger)
        told = {"at": at, "remove": remove, "insert": insert.hex(), "ledger": ledger}
        known = {"keys": asked.keys, "officers": asked.officers, "answer": full}
        self._write({**told, **known})
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _write(self, line: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _start(self) -> "subprocess.Popen[str]":
        from guilder import packing

        if NODE is None:
            pytest.skip("no node here")
        end = "})();\n"
        script = packing.script_of(packing.CHECKS).removesuffix(end)
        driver = DRIVER.read_text("utf-8")
        (self._folder / "drive.js").write_text(script + driver + end, "utf-8")
        return subprocess.Popen(
            [NODE, str(self._folder / "drive.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)


def difference(old: bytes, new: bytes) -> tuple[int, int, bytes]:
    """Where two files differ: from where on, how many bytes go, and which come."""
    most = min(len(old), len(new))
    start = bisect_right(range(1, most + 1), False, key=lambda n: old[:n] != new[:n])
    most -= start
    end = bisect_right(range(1, most + 1), False, key=lambda n: old[-n:] != new[-n:])
    return start, len(old) - start - end, new[start : len(new) - end]


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    started = Page()
    yield started
    started.close()


@pytest.fixture(params=["first", "second", "page"])
def verdict(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Verdict:
    """Each verifier in turn: bytes in, the id of its finding out."""
    judges: dict[str, Callable[[Question, Path], str]] = {
        "first": first,
        "second": second,
        "page": page,
    }
    judge = judges[request.param]
    return lambda raw, **known: judge(Question(raw, **known), tmp_path)


@pytest.fixture
def verdicts(page: Page, tmp_path: Path) -> Callable[..., set[str]]:
    """All verifiers at once: the ids they give, one if they agree."""

    def all_of(raw: bytes, **known: Any) -> set[str]:
        asked = Question(raw, **known)
        return {judge(asked, tmp_path) for judge in (first, second, page)}

    return all_of
