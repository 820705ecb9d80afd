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
TYPED = {  # page: the test below that types every line of it but those of NOT_TYPED
    "docs/operator.md": "test_operator_engineer_and_officer_type_their_pages",
    "docs/site-engineer.md": "test_operator_engineer_and_officer_type_their_pages",
    "docs/officer.md": "test_operator_engineer_and_officer_type_their_pages",
    "docs/backup.md": "test_operator_engineer_and_officer_type_their_pages",
    "docs/researcher.md": "test_a_researcher_types_its_page",
    "docs/contracts.md": "test_a_researcher_types_its_page",
    "simulations/README.md": "test_a_researcher_types_its_page",
}
NOT_TYPED = {  # how a line begins: why no test types it, and what stands for it
    "make ": "it would run the tests inside the tests; targets: test_docs.py",
    "UV_TORCH_BACKEND=": "it installs; deploy/install.sh: test_install.py",
    "pip install": "it installs; the wheel is unpacked as pip would instead",
    "systemctl ": "there is no systemd here; unit files: tests/deploy/test_units.py",
    "docker ": "there is no Docker here; its files: tests/deploy/test_containers.py",
    "sudo ": "for containers; tests/deploy/test_containers.py",
    "guilder server init --local-sites": "for containers; typed by tests/deploy",
    "export FLWR": "tests/end_to_end/study/test_stock_flower.py",
    "flower-superlink": "tests/end_to_end/study/test_stock_flower.py",
    "flower-supernode": "tests/end_to_end/study/test_stock_flower.py",
    "flwr run": "tests/end_to_end/study/test_stock_flower.py",
    "mkdir /srv": "tests/end_to_end/study/test_stock_flower.py",
    "cp study.toml /srv": "tests/end_to_end/study/test_stock_flower.py",
    "python benchmarks/": "minutes; `make bench`",
}
SHOWN = {  # pages with a block that is no command: what it is
    "README.md": "what the demo prints, with other figures each time",
    "CONTRIBUTING.md": "the floors, which import-linter holds",
}
COMMANDS = re.compile(
    r"(guilder|make|python|pip|tar|systemctl|docker|sudo|export|mkdir|cp|flwr"
    r"|flower-\w+|[A-Z_]+=\w+) (?! *->).*"
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
        """Why no test types it; empty if one does."""
        found = (why for start, why in NOT_TYPED.items() if self.text.startswith(start))
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
        self.left = [line for line in all_lines() if not line.why_not]
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

    def shell(self, text: str, at: str, said: str = "") -> str:
        """Type something; it must do what it was asked."""
        done = subprocess.run(
            ["sh", "-c", text],
            cwd=self.folder / at, env=self.env, input=said,
            capture_output=True, text=True, timeout=300, check=False,
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
        pages = {page for page, by in TYPED.items() if by == test}
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
        shown=SHOWN,
    )
