"""The line of each key, in every way TOML has of writing one."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guilder_shared.settings import toml_lines

TEXT = '''\
schema = 1

a.b = 1
"quoted key" = """
[not.a.table]
x = 1
"""
list = [ # comment with ]
  "]",
  { inside = 1 },
]
[table."with.dot"]
key = 'a = [ "'
[[many]]
one = 1
[[many]]
one = { two = 2 } # x = 3
'''


def test_every_way_to_write_a_key_is_found() -> None:
    tomllib.loads(TEXT)

    assert toml_lines.find(TEXT) == {
        ("schema",): 1,
        ("a",): 3,
        ("a", "b"): 3,
        ("quoted key",): 4,
        ("list",): 8,
        ("table",): 12,
        ("table", "with.dot"): 12,
        ("table", "with.dot", "key"): 13,
        ("many",): 14,
        ("many", 0): 14,
        ("many", 0, "one"): 15,
        ("many", 1): 16,
        ("many", 1, "one"): 17,
    }


def test_a_key_without_a_line_has_its_parents() -> None:
    lines: dict[toml_lines.KeyPath, int] = {("a",): 3, ("a", "b"): 4}

    assert toml_lines.nearest(lines, ("a", "b", "c", 0)) == 4
    assert toml_lines.nearest(lines, ("z",)) is None


@given(st.text(alphabet="ab[]{}=.,#\"'\\\n 1", max_size=60))
def test_any_text_is_survived_and_valid_toml_loses_no_top_key(text: str) -> None:
    lines = toml_lines.find(text)

    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    plain = [key for key in raw if key.isalnum()]
    assert all((key,) in lines for key in plain)
