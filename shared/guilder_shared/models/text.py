"""A BERT-like encoder of texts: tokens in, one vector of unit length out.

Sizes and starting values are here, without torch; the module with the same names is in
`encoder`. Names are those of BERT's published files, so that these load strictly by
name. This module knows no tokenizer and trains nothing.

Source: Devlin et al. 2019; Wang et al. 2020 for MiniLM; Reimers and Gurevych 2019 for
the mean over tokens.
"""

from dataclasses import dataclass

from guilder_shared.models.starting import Starts, dense, flat_table, norm, table

PADDING = 0  # the token that fills a text up


@dataclass(frozen=True)
class Sizes:
    """The public shape of an encoder.

    Attributes:
        vocabulary: Tokens there are.
        positions: Longest text, in tokens.
        width: Numbers of a token; a multiple of `heads`.
        inner: Numbers between the two layers of a feed-forward part.
        layers: How many.
        heads: Of each attention.
    """

    vocabulary: int
    positions: int
    width: int
    inner: int
    layers: int
    heads: int


MINILM = Sizes(30_522, 512, 384, 1536, 6, 12)


def small(vocabulary: int, positions: int, width: int) -> Sizes:
    """A small encoder for texts of a domain of their own: two layers, two heads."""
    return Sizes(vocabulary, positions, width, 4 * width, 2, 2)


def starts(sizes: Sizes) -> Starts:
    """All parameters."""
    width = sizes.width
    found = table("embeddings.word_embeddings", sizes.vocabulary, width)
    found |= table("embeddings.position_embeddings", sizes.positions, width)
    # All texts here are of one type: as noise it would be the same for all of them.
    found |= flat_table("embeddings.token_type_embeddings", 2, width)
    found |= norm("embeddings.LayerNorm", width)
    for layer in range(sizes.layers):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            found |= dense(f"{name}.attention.self.{part}", width, width)
        found |= dense(f"{name}.attention.output.dense", width, width)
        found |= norm(f"{name}.attention.output.LayerNorm", width)
        found |= dense(f"{name}.intermediate.dense", width, sizes.inner)
        found |= dense(f"{name}.output.dense", sizes.inner, width)
        found |= norm(f"{name}.output.LayerNorm", width)
    return found
