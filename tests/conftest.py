"""Fixtures for whole rooms: a consortium with keys, a hub, nodes, three verifiers."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that all processes end together."""
    minutes: Counter[Path] = Counter()
    for item in items:
        if slow := item.get_closest_marker("slow"):
            minutes[item.path] += slow.kwargs.get("minutes", 0.1)
    items.sort(key=lambda item: -minutes[item.path])


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


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where the machine has one, for files that need no disk.

    An ordinary disk is slow at writing one file anew a hundred thousand times.
    """
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


BATCH = 128  # files of some 160 kB, 20 MB in all


@dataclass(frozen=True)
class Question:
    """A file to check, and what its reader knows."""

    raw: bytes
    keys: tuple[str, ...] = ()
    ledger: bytes | None = None
    officers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One verifier: bytes in, the id of its finding out, or "" for a sound file."""

    judge: Callable[[Sequence[Question]], Iterable[str]]

    def __call__(self, raw: bytes, **known: Any) -> str:
        (found,) = self.judge([Question(raw, **known)])
        return found

    def each(self, files: Iterable[bytes]) -> Iterator[str]:
        """The findings on many files, one after the other."""
        rest = iter(files)
        while some := [Question(raw) for raw in itertools.islice(rest, BATCH)]:
            yield from self.judge(some)


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


def second(asked: Question) -> str:
    from guilder_verifier.check import check
    from guilder_verifier.finding import Finding

    try:
        check(asked.raw, asked.keys, asked.ledger, asked.officers)
    except Finding as found:
        return found.error_id
    return ""


class Page:
    """The page's own checks in a process of node; started when first asked."""

    def __init__(self, folder: Path) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = folder
        self._base, self._numbers = b"", itertools.count()

    def ids(self, asked: Sequence[Question]) -> Iterator[str]:
        """The ids of its findings; what a sound file says is left out."""
        for told in self._answers(asked, full=False):
            assert told["id"] != "BUG", told["what"]
            yield str(told["id"])

    def said(self, raw: bytes) -> Any:
        """What the page would show of a file that is sound."""
        (told,) = self._answers([Question(raw)], full=True)
        return told["answer"]

    def _told(self, asked: Question, *, full: bool) -> Iterator[Any]:
        """A question as the driver hears it: what differs from the file it holds."""
        at, remove, insert = difference(self._base, asked.raw)
        if len(insert) > 4096:
            self._base, at, remove, insert = asked.raw, 0, 0, b""
            yield {"base": self._kept(asked.raw)}
        ledger = None if asked.ledger is None else self._kept(asked.ledger)
        told = {"at": at, "remove": remove, "insert": insert.hex(), "ledger": ledger}
        known = {"keys": asked.keys, "officers": asked.officers, "answer": full}
        yield {**told, **known}

    def _kept(self, raw: bytes) -> str:
        path = self._folder / str(next(self._numbers))
        path.write_bytes(raw)
        return str(path)

    def _answers(self, asked: Sequence[Question], *, full: bool) -> list[Any]:
        """The verdicts, and what the page would show if `full`: a line each way."""
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines = [line for each in asked for line in self._told(each, full=full)]
        self._process.stdin.write(json.dumps(lines) + "\n")
        self._process.stdin.flush()
        found: list[Any] = json.loads(self._process.stdout.readline())
        return found

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


def difference(old: bytes, new: bytes) -> tuple[int, int, bytes]:
    """Where two files differ: from where on, how many bytes go, and which come."""
    import numpy as np

    def num_alike(one: Any, other: Any) -> int:
        differ = one != other
        return int(differ.argmax()) if differ.any() else len(differ)

    most = min(len(old), len(new))
    one, other = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
    start = num_alike(one[:most], other[:most])
    most -= start
    end = num_alike(one[::-1][:most], other[::-1][:most])
    return start, len(old) - start - end, new[start : len(new) - end]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    started = Page(tmp_path_factory.mktemp("page"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def verifiers(page: Page, memory: Path) -> dict[str, Verdict]:
    """All three by name."""
    return {
        "first": Verdict(lambda asked: [first(each, memory) for each in asked]),
        "second": Verdict(lambda asked: map(second, asked)),
        "page": Verdict(page.ids),
    }


@pytest.fixture(params=["first", "second", "page"])
def verdict(request: pytest.FixtureRequest, verifiers: dict[str, Verdict]) -> Verdict:
    """Each verifier in turn: bytes in, the id of its finding out."""
    return verifiers[request.param]


@pytest.fixture
def verdicts(verifiers: dict[str, Verdict]) -> Callable[..., set[str]]:
    """All verifiers at once: the ids they give, one if they agree."""
    return lambda raw, **known: {
        verdict(raw, **known) for verdict in verifiers.values()
    }
