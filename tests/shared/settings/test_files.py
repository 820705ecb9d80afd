"""Files a person edits: every mistake at once, each with its place and its fix."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from guilder_shared.errors import StudyError
from guilder_shared.settings.files import (
    File,
    FilePath,
    Frozen,
    Listed,
    Name,
    load_toml,
)
from guilder_shared.settings.mistakes import FileError, dotted, shown


class Tap(Frozen):
    litres: float = Field(gt=0, le=10, description="how much a minute")
    open: bool = False


class Bath(File):
    tap: Tap
    taps: dict[Name, Tap] = Field(default_factory=dict)
    guests: Listed[Name] = ()
    plug: FilePath | None = None


RIGHT = """\
schema = 1
# a comment with [brackets] and "quotes"
guests = [
    "ann",
    "bob",
]

[tap]
litres = 2.5

[taps.hot]
litres = 1
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "bath.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(folder: Path, text: str | bytes, *overrides: str) -> list[tuple[str, str]]:
    """The ids and headlines of every mistake."""
    with pytest.raises(FileError) as caught:
        load_toml(write(folder, text), Bath, overrides)
    return [(each.error_id, each.headline) for each in caught.value.mistakes]


def test_a_right_file_is_read(tmp_path: Path) -> None:
    bath = load_toml(write(tmp_path, RIGHT), Bath)

    assert bath.tap == Tap(litres=2.5)
    assert bath.taps == {"hot": Tap(litres=1)}
    assert bath.guests == ("ann", "bob")


def test_all_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = RIGHT.replace("2.5", "-1").replace("litres = 1", "litre = 1\nopen = 1")

    assert told(tmp_path, text) == [
        (
            "GLD-C012",
            "bath.toml:9 tap.litres: is -1, not a number above 0 and at most 10",
        ),
        (
            "GLD-C010",
            "bath.toml:12 taps.hot.litre: unknown key (did you mean taps.hot.litres?)",
        ),
        ("GLD-C012", "bath.toml:13 taps.hot.open: is 1, not true or false"),
    ]


def test_the_text_of_the_error_names_every_mistake_and_its_fix(tmp_path: Path) -> None:
    text = RIGHT.replace("2.5", "-1").replace("litres = 1", "litres = 11")

    with pytest.raises(StudyError) as caught:
        load_toml(write(tmp_path, text), Bath)

    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ["GLD-C012", "fix:"] * 2
    assert caught.value.exit_code == 2
    assert caught.value.error_id == "GLD-C012"
    assert caught.value.what.endswith("(and 1 more)")


def test_a_missing_key_is_told_at_its_table(tmp_path: Path) -> None:
    text = RIGHT.replace("litres = 2.5", "open = true")

    assert told(tmp_path, text) == [
        (
            "GLD-C011",
            "bath.toml:8 tap.litres: missing; it is a number above 0 and at most 10",
        )
    ]


def test_a_misspelt_table_is_one_mistake_not_two(tmp_path: Path) -> None:
    assert told(tmp_path, RIGHT.replace("[tap]", "[tp]")) == [
        ("GLD-C010", "bath.toml:8 tp: unknown key (did you mean tap?)")
    ]


def test_a_key_in_the_wrong_table_is_sent_to_its_own(tmp_path: Path) -> None:
    text = RIGHT.replace("[tap]", "litres = 1\n[tap]")

    assert told(tmp_path, text)[0] == (
        "GLD-C010",
        "bath.toml:8 litres: unknown key (did you mean tap.litres?)",
    )


def test_a_key_like_no_other_is_told_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        load_toml(write(tmp_path, RIGHT + "zzz = 1\n"), Bath)

    assert caught.value.fix == "Remove it. Known here: litres, open."


@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("schema = 1\ntap = 1 2\n", "bath.toml:2: no TOML: Expected newline"),
        ("schema = 1\n[tap\n", "bath.toml:2: no TOML: Expected ']'"),
        ('schema = 1\na = "x', "bath.toml:2: no TOML: Unterminated string"),
        ("schema = 1\n[tap]\n[tap]\n", "bath.toml:3: written twice: Cannot declare"),
        ("schema = 1\na = 1\na = 2\n", "bath.toml:3: written twice: Cannot overwrite"),
        ("a = " + "[" * 9000, "bath.toml: nested too deeply"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(
    tmp_path: Path, text: str, headline: str
) -> None:
    ((error_id, told_headline),) = told(tmp_path, text)

    assert error_id == "GLD-C003"
    assert told_headline.startswith(headline)


def test_what_is_no_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    assert told(tmp_path, RIGHT.encode() + b"# caf\xe9\n") == [
        ("GLD-C002", "bath.toml:13: not UTF-8 (byte 136)")
    ]


def test_windows_line_ends_and_byte_order_mark_are_fine(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + RIGHT.replace("\n", "\r\n").encode()

    assert load_toml(write(tmp_path, data), Bath).tap.litres == 2.5


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file") as caught:
        load_toml(tmp_path / "no.toml", Bath)

    assert caught.value.error_id == "GLD-C001"


def test_a_file_of_data_is_not_read_to_its_end(tmp_path: Path) -> None:
    ((error_id, headline),) = told(tmp_path, b"#" * (5 << 20))

    assert error_id == "GLD-C001"
    assert headline.endswith("larger than 4,194,304 bytes")


@pytest.mark.parametrize("first", ["schema = 2", 'schema = "1"', "schema = true", ""])
def test_another_schema_is_refused_before_anything_else(
    tmp_path: Path, first: str
) -> None:
    ((error_id, headline),) = told(tmp_path, f"{first}\nnonsense = 1\n")

    assert error_id == "GLD-C004"
    assert "this version of Guilder understands 1" in headline


def test_an_override_is_a_toml_value_or_else_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, RIGHT)
    overrides = ("tap.litres=3", "taps.cold={ litres = 4 }", "guests=[]", "plug=x.txt")

    bath = load_toml(path, Bath, overrides)

    assert (bath.tap.litres, bath.taps["cold"].litres, bath.guests) == (3, 4, ())
    assert bath.plug == tmp_path / "x.txt"


def test_a_mistake_in_an_override_names_the_override(tmp_path: Path) -> None:
    assert told(tmp_path, RIGHT, "tap.litres=2,5", "tapp.x=1") == [
        (
            "GLD-C012",
            '--set tap.litres=2,5 tap.litres: is "2,5", '
            "not a number above 0 and at most 10",
        ),
        ("GLD-C010", "--set tapp.x=1 tapp: unknown key (did you mean tap?)"),
    ]


@pytest.mark.parametrize(
    "override", ["tap.litres", "=1", "a b=1", "tap.litres.x=1", "a=1\nb=2", "a=1\x1b"]
)
def test_an_override_that_names_no_key_is_refused(
    tmp_path: Path, override: str
) -> None:
    ((error_id, headline),) = told(tmp_path, RIGHT, override)

    assert error_id == "GLD-C005"
    assert headline.isprintable()


def test_paths_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, f"plug = 'sub/plug.txt'\n{RIGHT}")
    monkeypatch.chdir(tmp_path)

    bath = load_toml(Path("bath.toml"), Bath)

    assert bath.plug == tmp_path / "sub/plug.txt"


def test_a_quoted_key_with_a_dot_has_its_line(tmp_path: Path) -> None:
    ((_, headline),) = told(tmp_path, f"{RIGHT}\n[taps.'no.name']\nlitres = 1\n")

    assert headline.startswith('bath.toml:14 taps."no.name": this key is not a name')


def test_an_error_with_many_mistakes_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        load_toml(write(tmp_path, RIGHT.replace("2.5", "0")), Bath)

    copy = pickle.loads(pickle.dumps(caught.value))

    assert str(copy) == str(caught.value)


@given(st.text() | st.integers() | st.binary() | st.floats() | st.booleans())
def test_a_shown_value_is_short_and_cannot_move_the_cursor(value: Any) -> None:
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()


@given(st.lists(st.text(max_size=80) | st.integers(), max_size=4))
def test_a_dotted_key_cannot_move_the_cursor(path: list[str | int]) -> None:
    assert dotted(path).isprintable()
