"""What is left of a stranger's text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guilder_shared.plain_text import is_name, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("site-1: épargne, 3 %", "site-1: épargne, 3 %"),
        ("a\nb\tc\u2028d", "a b c d"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("a\u202eb\ud800c\x00", "a?b?c?"),
        ("", ""),
    ],
)
def test_what_moves_the_cursor_is_taken_away(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text(), st.integers(1, 50))
def test_any_text_becomes_one_short_printable_line(text: str, longest: int) -> None:
    line = one_line(text, longest)

    assert len(line) <= longest
    assert all(unicodedata.category(each)[0] not in "C" for each in line)
    assert "\n" not in line


def test_a_name_is_short_and_printable() -> None:
    assert is_name("card-fraud-1a2b3c4d")
    assert not is_name("a" * 201)
    assert not is_name("a\nb")
