"""Every command that the pages show is typed by a test, or says why it is not."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import click

ROOT = Path(__file__).parents[3]


def leaf(words: list[str]) -> "tuple[click.Command, list[str]]":
    """The command that these words lead to, and what is left of them."""
    import click
    import typer

    from guilder.cli import app

    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group) and words:
        found = command.commands.get(words[0])
        assert found is not None, f"there is no {words[0]}"
        command, words = found, words[1:]
    return command, words


def test_every_line_of_every_block_is_typed_by_a_test_or_says_why_not(
    pages: Any,
) -> None:
    lines = pages.lines

    told = [e for e in lines if e.why_not or e.elsewhere]
    untold = [str(e) for e in lines if e not in told and e.page not in pages.typed]
    kinds = [*pages.not_typed, *pages.elsewhere]
    unused = [kind for kind in kinds if not any(e.text.startswith(kind) for e in lines)]

    assert untold == [], "type them below, or give the reason in NOT_TYPED"
    assert unused == [], "no page has a line of this kind any more"
    assert set(pages.typed) <= {line.page for line in lines}
    for by in pages.typed.values():
        file, _, test = by.partition("::")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text()
    for start, file in pages.elsewhere.items():
        words = start.removeprefix("guilder ").split(" --")[0].strip()
        assert words in (ROOT / file).read_text(), f"{file} types no {start!r}"
    num = sum(not each.why_not for each in lines)
    print(f"{len(lines)} lines: {num} typed, {len(lines) - num} not")


def test_what_is_not_typed_needs_what_a_test_cannot_bring(pages: Any) -> None:
    """Who adds a kind of line that no test types has to look at this list."""
    missing = {why.split(";")[0] for why in pages.not_typed.values()}

    assert missing == {"an index of packages", "systemd", "a container engine", "root"}


def test_a_block_without_a_command_is_known(pages: Any) -> None:
    silent = {page for page, found in pages.blocks.items() if not all(found)}

    assert silent == set(pages.shown)


def test_every_line_is_one_that_the_real_command_line_takes(pages: Any) -> None:
    import click

    wrong = []
    for line in pages.lines:
        words = shlex.split(line.text.split(" > ")[0])
        if "guilder" not in words or "-t" in words:  # the name of an image
            continue
        try:
            command, rest = leaf(words[words.index("guilder") + 1 :])
            context = click.Context(command, info_name=words[-1])
            _, left, _ = command.make_parser(context).parse_args(list(rest))
            assert left == [], f"what is {left}?"
        except (AssertionError, click.ClickException) as error:
            wrong.append(f"{line}: {error}")

    assert wrong == []


def test_every_pip_line_is_one_that_pip_takes(pages: Any) -> None:
    commands = pytest.importorskip("pip._internal.commands")
    lines = [e for e in pages.lines if e.text.startswith("pip ")]

    assert lines
    for line in lines:
        _, name, *words = shlex.split(line.text)
        told, left = commands.create_command(name).parse_args(words)
        assert bool(told.editables) != bool(left), str(line)
        assert all((ROOT / each).exists() for each in told.constraints), str(line)


def test_every_systemd_line_names_a_service_that_is_written_here(pages: Any) -> None:
    from guilder.units import Service

    lines = [e for e in pages.lines if e.text.startswith("systemctl ")]
    rooms = ("client", "server")
    known = {Service(room, "", [], []).name.removesuffix(".service") for room in rooms}

    assert lines
    for line in lines:
        _, user, verb, unit = shlex.split(line.text)
        assert (user, verb in ("start", "stop")) == ("--user", True), str(line)
        assert unit in known, str(line)


def test_what_is_no_command_of_ours_names_files_that_exist(pages: Any) -> None:
    for line in pages.lines:
        words = shlex.split(line.text)
        for word in words[1:]:
            if re.match(r"(deploy|benchmarks|simulations)/", word):
                place = ROOT / word
                assert place.exists() or "consortium" in word, str(line)
