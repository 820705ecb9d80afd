"""The commands that the pages show, and somebody who types them."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/*/*.md"),
    }
)
PEOPLE = "test_people.py::test_operator_engineer_and_officer_type_their_pages"
RESEARCH = "test_people.py::test_a_researcher_types_its_page"
MAKE = "test_make.py::test_a_developer_types_make"
FLOWER = "test_flower.py::test_a_consortium_on_stock_flower_types_its_page"
TYPED = {  # page: the test beside this file that types all lines but those below
    "docs/operator.md": PEOPLE,
    "docs/site-engineer.md": PEOPLE,
    "docs/officer.md": PEOPLE,
    "docs/backup.md": PEOPLE,
    "docs/researcher.md": RESEARCH,
    "docs/contracts.md": RESEARCH,
    "simulations/README.md": RESEARCH,
    "README.md": MAKE,
    "CONTRIBUTING.md": MAKE,
    "benchmarks/README.md": MAKE,
    "deploy/flower/README.md": FLOWER,
    "docs/errors/GLD-N070.md": FLOWER,
    "docs/errors/GLD-N071.md": FLOWER,
}
ELSEWHERE = {  # how a line begins: the test of another folder that types it
    "guilder bundle ": "tests/deploy/bundle/test_whole.py",
    "sha256sum ": "tests/deploy/bundle/test_attacks.py",
    "sh install.sh ": "tests/deploy/bundle/test_attacks.py",
    "guilder server init --local-sites": "tests/deploy/test_containers.py",
}
NOT_TYPED = {  # how a line begins: what is missing here, and what stands for it
    "pip install": "an index of packages; its words: test_lines.py",
    "systemctl ": "systemd; words: test_lines.py; files: tests/deploy/test_units.py",
    "docker ": "a container engine; the files: tests/deploy/test_containers.py",
    "sudo ": "root; what it is for: tests/deploy/test_containers.py",
}
SHOWN = {  # pages with a block that is no command: what it is
    "README.md": "what the demo prints, with other figures each time",
    "CONTRIBUTING.md": "the floors, which import-linter holds",
}
COMMANDS = re.compile(
    r"(guilder|make|python|pip|tar|systemctl|docker|sudo|export|mkdir|cp|flwr|sh"
    r"|sha256sum|flower-\w+|[A-Z_]+=\w+) (?! *->).*"
)


@dataclass(frozen=True)
class Line:
    """A line of a fenced block that a person types.

    Attributes:
        page: Its file, from the repository's root.
        number: Of its first line.
        text: Without the prompt, the comment and the breaks by backslash.
    """

    page: str
    number: int
    text: str

    @property
    def why_not(self) -> str:
        """What is missing here to type it; empty if a test does."""
        return self._of(NOT_TYPED)

    @property
    def elsewhere(self) -> str:
        """The test of another folder that types it; empty if one here does."""
        return self._of(ELSEWHERE)

    def _of(self, kinds: dict[str, str]) -> str:
        found = (said for start, said in kinds.items() if self.text.startswith(start))
        return next(found, "")

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {self.text}"


def blocks(page: Path) -> Iterator[list[tuple[int, str]]]:
    """Fenced blocks without a language, or of a shell's: numbered lines."""
    block: list[tuple[int, str]] | None = None
    language = ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            if block is None:
                block, language = [], line.strip()[3:]
            else:
                if language in ("", "sh", "bash", "shell", "console"):
                    yield block
                block = None
        elif block is not None:
            block.append((number, line.strip()))


def commands(block: list[tuple[int, str]], page: str) -> Iterator[Line]:
    """The commands of a block; with prompts in it, only what follows one."""
    prompts = any(text.startswith("$ ") for _, text in block)
    whole, first = "", 0
    for number, text in block:
        if not whole:
            if prompts and not text.startswith("$ "):
                continue
            first = number
        whole += text.removeprefix("$ ")
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        plain = whole.split("  #")[0].split(" # ")[0].strip()
        whole = ""
        if COMMANDS.fullmatch(plain):
            yield Line(page, first, plain)


def all_lines() -> list[Line]:
    return [
        line
        for page in PAGES
        for block in blocks(page)
        for line in commands(block, str(page.relative_to(ROOT)))
    ]


class Reader:
    """Somebody who types the lines of the pages; what goes on ends with the test."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.left = [e for e in all_lines() if not (e.why_not or e.elsewhere)]
        tools = folder / "bin"
        tools.mkdir()
        for name, words in {"guilder": "-m guilder ", "python": ""}.items():
            script = f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n'
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
        path = f"{tools}:/usr/bin:/bin"
        installed = str(folder / "installed")
        self.env = {"PATH": path, "HOME": str(folder), "PYTHONPATH": installed}
        self.env["OMP_NUM_THREADS"] = "1"

    def line(self, page: str, start: str) -> Line:
        """The next line of a page that begins so; it counts as typed."""
        found = next(
            (e for e in self.left if e.page == page and e.text.startswith(start)), None
        )
        assert found is not None, f"{page} has no further line {start!r}"
        self.left.remove(found)
        return found

    def shell(
        self, text: str, at: str, said: str = "", *, patience_s: float = 300
    ) -> str:
        """Type something; it must do what it was asked."""
        done = subprocess.run(
            ["sh", "-c", text],
            cwd=self.folder / at, env=self.env, input=said,
            capture_output=True, text=True, timeout=patience_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def type(self, page: str, start: str, at: str, said: str = "", **own: str) -> str:
        """Type the next such line in the folder `at`, with `own` words put in."""
        return self.shell(put_in(self.line(page, start).text, own), at, said)

    def begin(
        self, page: str, start: str, at: str, **own: str
    ) -> subprocess.Popen[str]:
        """Type a line that goes on."""
        return self.go_on(put_in(self.line(page, start).text, own), at)

    def go_on(self, text: str, at: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {text}"],
            cwd=self.folder / at, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._stack.callback(process.wait, 60)
        self._stack.callback(process.terminate)
        return process

    def demand_all_typed(self, test: str) -> None:
        pages = {page for page, by in TYPED.items() if by.endswith(f"::{test}")}
        assert pages
        assert [str(each) for each in self.left if each.page in pages] == []


def put_in(text: str, own: dict[str, str]) -> str:
    for old, new in own.items():
        assert old in text, (old, text)
        text = text.replace(old, new)
    return text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with contextlib.ExitStack() as stack:
        yield Reader(tmp_path, stack)


@pytest.fixture
def pages() -> SimpleNamespace:
    """What is typed, what is not and why, and what every block holds."""
    return SimpleNamespace(
        lines=all_lines(),
        blocks={
            str(page.relative_to(ROOT)): [list(commands(each, "")) for each in found]
            for page in PAGES
            if (found := [each for each in blocks(page) if each])
        },
        typed=TYPED,
        not_typed=NOT_TYPED,
        elsewhere=ELSEWHERE,
        shown=SHOWN,
    )
