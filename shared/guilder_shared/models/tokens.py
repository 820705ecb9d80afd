"""Texts become tokens, each text by itself and by a public rule.

Two rules: words hashed into a public number of tokens, which needs nothing installed;
and the word pieces that minilm was trained on (extra `text`). Neither learns from
rows. This module reads no file of a site.
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import StudyError
from guilder_shared.models.text import PADDING
from guilder_shared.study import TextData

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FIRST = 1  # stands before every hashed text
_RESERVED = 2  # padding and first
_WORD = re.compile(r"\w+|[^\w\s]")
# Longest text looked at, so that one row cannot hold a turn up.
_LONGEST_TOKEN = 32


def ready(data: TextData) -> None:
    """Check that this machine can cut texts as the study says, before any is read.

    Raises:
        StudyError: GLD-C100, GLD-C101 or GLD-C105: the tokenizer is not here.
    """
    _splitter(data)


def encode(texts: Iterable[str], data: TextData) -> NDArray[np.int64]:
    """Tokens of every text, cut or filled up with zeros to `max_tokens`.

    Args:
        texts: Any; an empty text is its first token alone.
        data: The contract: how words are cut, and how many tokens there are.

    Returns:
        Shape (texts, max_tokens), int64. Row i depends on text i alone.

    Raises:
        StudyError: GLD-C100, GLD-C101 or GLD-C105: the tokenizer is not here.
    """
    split = _splitter(data)
    longest = data.max_tokens * _LONGEST_TOKEN
    found = [split(text[:longest])[: data.max_tokens] for text in texts]
    rows = np.full((len(found), data.max_tokens), PADDING, np.int64)
    for row, tokens in zip(rows, found, strict=True):
        row[: len(tokens)] = tokens
    return rows


def _splitter(data: TextData) -> Callable[[str], list[int]]:
    if data.words == "hashed":
        return functools.partial(_hashed, num_tokens=data.vocabulary or _RESERVED + 1)
    return functools.partial(_pieces, tokenizer=_tokenizer(), most=data.max_tokens)


def _hashed(text: str, num_tokens: int) -> list[int]:
    words = _WORD.findall(text.lower())
    room = num_tokens - _RESERVED
    return [FIRST] + [_RESERVED + zlib.crc32(w.encode()) % room for w in words]


def _pieces(text: str, tokenizer: "Tokenizer", most: int) -> list[int]:
    """Word pieces between [CLS] and [SEP]; where a text is cut, [SEP] stays."""
    ids: list[int] = tokenizer.encode(text).ids
    return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]


@functools.cache
def _tokenizer() -> "Tokenizer":
    from guilder_shared.models import pretrained

    path = pretrained.file("tokenizer.json", pretrained.TOKENIZER_SHA256)
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise StudyError(
            "GLD-C105",
            "the package tokenizers is not installed here",
            why='words = "wordpiece" needs it; it comes with the extra `text`',
            fix="pip install --no-deps -c constraints.txt tokenizers",
        ) from None
    found = Tokenizer.from_file(str(path))
    # The published file cuts and fills up; here that is the study's to say.
    found.no_truncation()
    found.no_padding()
    return found
