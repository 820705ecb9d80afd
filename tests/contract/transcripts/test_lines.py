"""Every command that the pages show is typed by a test, or says why it is not."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    untold = [str(e) for e in lines if not e.why_not and e.page not in pages.typed]
    kinds = pages.not_typed
    unused = [kind for kind in kinds if not any(e.text.startswith(kind) for e in lines)]

    assert untold == [], "type them below, or give the reason in NOT_TYPED"
    assert unused == [], "no page has a line of this kind any more"
    assert set(pages.typed) <= {line.page for line in lines}
    people = (Path(__file__).parent / "test_people.py").read_text()
    assert all(f"def {test}(" in people for test in pages.typed.values())
    typed = sum(not each.why_not for each in lines)
    print(f"{len(lines)} lines: {typed} typed, {len(lines) - typed} not")


def test_a_block_without_a_command_is_known(pages: Any) -> None:
    silent = {page for page, found in pages.blocks.items() if not all(found)}

    assert silent == set(pages.shown)


def test_every_line_is_one_that_the_real_command_line_takes(pages: Any) -> None:
    import click

    wrong = []
    for line in pages.lines:
        words = shlex.split(line.text.split(" > ")[0])
        if words[0] != "guilder":
            continue
        try:
            command, rest = leaf(words[1:])
            context = click.Context(command, info_name=words[-1])
            _, left, _ = command.make_parser(context).parse_args(list(rest))
            assert left == [], f"what is {left}?"
        except (AssertionError, click.ClickException) as error:
            wrong.append(f"{line}: {error}")

    assert wrong == []


def test_what_is_no_command_of_ours_names_files_that_exist(pages: Any) -> None:
    for line in pages.lines:
        words = shlex.split(line.text)
        for word in words[1:]:
            if re.match(r"(deploy|benchmarks|simulations)/", word):
                place = ROOT / word
                assert place.exists() or "consortium" in word, str(line)
