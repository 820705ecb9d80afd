"""verify.html in a real browser, opened as a file and without a network."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder import packing

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = Path(os.environ.get("GUILDER_AXE", "/nowhere"))  # axe.min.js of axe-core 4
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,1400",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",  # nobody listens there: every request would fail
)
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no Chromium and chromedriver here"
)


class Browser:
    """One window, by the WebDriver protocol on loopback."""

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/session"
        self._process = subprocess.Popen(
            [str(DRIVER), f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        options = {
            "binary": BROWSER,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        asked = {"capabilities": {"alwaysMatch": wanted}}
        self._id = self._begin(asked)["sessionId"]

    def _begin(self, asked: Any) -> Any:
        end = time.monotonic() + 60
        while True:
            try:
                return self._call("POST", "", asked)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asked, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, f"/{self._id}{path}", body)

    def open(self, path: Path) -> None:
        self.call("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script leaves in `done(...)`."""
        told = {"script": script, "args": list(arguments)}
        return self.call("POST", "/execute/async", told)

    def type(self, css: str, text: str) -> None:
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        (element,) = found.values()
        self.call("POST", f"/element/{element}/value", {"text": text})

    def click(self, css: str) -> None:
        self.run(f"document.querySelector({css!r}).click(); arguments[0]()")

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    started.call("POST", "/timeouts", {"script": 120_000})
    yield started
    started.close()


@pytest.fixture
def window(browser: Browser, tmp_path: Path) -> Browser:
    """The page, opened anew as a file."""
    packing.pack_page(tmp_path / "verify.html")
    browser.open(tmp_path / "verify.html")
    return browser


WAIT = """
const done = arguments[arguments.length - 1];
const box = document.getElementById('verdict');
const look = () => box.dataset.state && box.dataset.state !== 'busy'
  ? done([box.dataset.state, box.textContent]) : setTimeout(look, 5);
look();
"""

WIDE = "arguments[0](document.documentElement.scrollWidth > window.innerWidth)"

# Gives the page one file after another, as a person would choose them.
SWEEP = """
const [base64, changes] = arguments, done = arguments[arguments.length - 1];
const base = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const input = document.getElementById('report');
const box = document.getElementById('verdict');
const check = document.getElementById('check');
async function state(raw) {
  const held = new DataTransfer();
  held.items.add(new File([raw], 'x.json'));
  input.files = held.files;
  input.dispatchEvent(new Event('change'));
  check.click();
  while (box.dataset.state === 'busy') await new Promise((go) => setTimeout(go));
  return box.dataset.state;
}
(async () => {
  const told = [await state(base)];
  for (const [position, bit] of changes) {
    const raw = base.slice();
    raw[position] ^= 1 << bit;
    told.push(await state(raw));
  }
  done(told);
})();
"""


def verdict(window: Browser, report: Path, ledger: Path | None = None) -> list[str]:
    window.type("#report", str(report))
    if ledger is not None:
        window.type("#ledger", str(ledger))
    window.click("#check")
    found: list[str] = window.run(WAIT)
    return found


def test_a_sound_report_is_shown_with_its_figures(
    window: Browser, written: Any
) -> None:
    window.type("#keys", written.key.public_hex)

    state, text = verdict(window, written.report, written.ledger)

    assert state == "sound"
    assert not window.run(WIDE)
    for told in (
        "bank-a",
        "https://gone",
        "69 → 3",
        "study-0",
        "33 / 40",
        "4.7",
        "it is the one you gave",
    ):
        assert told in text, told


def test_what_is_not_sound_is_named_by_its_id(
    window: Browser, written: Any, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_bytes(written.report.read_bytes().replace(b"bank-a", b"bank-b", 1))

    assert verdict(window, changed)[0] == "GLD-I001"
    assert verdict(window, written.report, written.older)[0] == "GLD-I074"
    window.type("#keys", "0" * 64)
    assert verdict(window, written.report)[0] == "GLD-I072"


def test_the_page_asks_for_what_is_missing(window: Browser, written: Any) -> None:
    window.click("#check")
    assert window.run(WAIT)[0] == "asked"

    window.type("#keys", "not a key")
    assert verdict(window, written.report) == [
        "asked",
        "A public key is 64 hexadecimal digits.",
    ]


def test_the_page_finds_changed_bytes_as_the_others_do(
    window: Browser, written: Any, page: Any, tmp_path: Path
) -> None:
    for path in (written.report, written.ledger):
        raw = path.read_bytes()
        places = [*range(0, len(raw), 3_001), *range(len(raw) - 9, len(raw))]
        changes = [(position, position % 8) for position in places]

        first, *told = window.run(SWEEP, base64.b64encode(raw).decode(), changes)

        assert first == "sound"
        assert all(re.fullmatch(r"GLD-I0\d\d", state) for state in told)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_finds_many_changed_bytes(window: Browser, written: Any) -> None:
    for path in (written.report, written.ledger):
        raw = path.read_bytes()
        for start in range(0, len(raw), 20_000):
            places = range(start, min(start + 20_000, len(raw)), 113)
            changes = [(position, position % 8) for position in places]

            first, *told = window.run(SWEEP, base64.b64encode(raw).decode(), changes)

            assert first == "sound"
            assert all(state.startswith("GLD-I0") for state in told)


def test_nothing_is_fetched_and_no_other_script_runs(
    window: Browser, written: Any
) -> None:
    verdict(window, written.report)

    told = window.run(
        """
        const done = arguments[arguments.length - 1];
        window.ran = false;
        const other = document.createElement('script');
        other.textContent = 'window.ran = true';
        document.body.append(other);
        const loaded = performance.getEntriesByType('resource').length;
        fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')
          .then((answer) => done([window.ran, loaded, answer]));
        """
    )

    assert told == [False, 0, "refused"]
    html = (packing.PAGE / "page.html").read_text("utf-8")
    assert not re.search(r"https?:|src=|<link|@import|url\(", html)


def test_a_name_cannot_become_markup(
    window: Browser, made: Any, tmp_path: Path
) -> None:
    with made.open("<img src=x onerror=alert(1)>", made.key) as ledger:
        from guilder_shared.reports.export import export

        path = tmp_path / "x.jsonl"
        path.write_bytes(export(ledger))

    state, text = verdict(window, path)

    assert state == "sound"
    assert "<img src=x onerror=alert(1)>" in text
    count = "arguments[0](document.querySelectorAll('img').length)"
    assert window.run(count) == 0


@pytest.mark.skipif(not AXE.is_file(), reason="GUILDER_AXE names no axe.min.js")
@pytest.mark.parametrize("language", ["en", "zh-Hans"])
def test_axe_finds_nothing(window: Browser, written: Any, language: str) -> None:
    shown = "arguments[0](document.documentElement.lang)"
    if window.run(shown) != language:
        window.click("#language")
    assert window.run(shown) == language
    axe = AXE.read_text("utf-8") + (
        ";axe.run().then((r) => arguments[0](r.violations.map((v) => v.id)));"
    )

    before = window.run(axe)
    verdict(window, written.report)
    after = window.run(axe)

    assert (before, after) == ([], [])


def test_both_languages_say_everything() -> None:
    text = (packing.PAGE / "texts.js").read_text("utf-8")
    html = (packing.PAGE / "page.html").read_text("utf-8")
    code = (packing.PAGE / "page.js").read_text("utf-8")
    named = set(re.findall(r"^  (\w+): \[", text, re.MULTILINE))

    asked = set(re.findall(r'data-say="(\w+)"', html))
    asked |= set(re.findall(r'say\("(\w+)"\)', code))
    asked |= set(re.findall(r'\? "(\w+)" : "(?:\w+)"\)', code))

    assert asked - named == set()
    assert not re.search(r"anonym|complian|gdpr|匿名|合规", text, re.IGNORECASE)
