"""The torch module of the text encoder; it imports torch, `text` does not.

Every layer sees one row per row, positions included, and nothing is changed in place,
so that the private engine can follow all of it. There is no dropout: its draws could
not be repeated. This module knows no study and no tokenizer.

Legend: B rows, T places, W width, H heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.models.text import PADDING, Sizes

_EPSILON = 1e-12  # BERT's own


class Embeddings(nn.Module):
    """Word, position and type of each token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocabulary, sizes.width)
        self.position_embeddings = nn.Embedding(sizes.positions, sizes.width)
        self.token_type_embeddings = nn.Embedding(2, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, _EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) to (B, T, W)."""
        # A copy for every row: the rule for embeddings wants one row per row.
        places = torch.arange(tokens.shape[1], device=tokens.device)
        positions = places.repeat(len(tokens), 1)
        found = self.word_embeddings(tokens) + self.position_embeddings(positions)
        found = found + self.token_type_embeddings(torch.zeros_like(tokens))
        normed: Tensor = self.LayerNorm(found)
        return normed


class Mixing(nn.Module):
    """The three projections of an attention, and the attention itself."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = nn.Linear(sizes.width, sizes.width)
        self.key = nn.Linear(sizes.width, sizes.width)
        self.value = nn.Linear(sizes.width, sizes.width)

    def forward(self, x: Tensor, shut: Tensor) -> Tensor:
        """(B, T, W) and what is added before the softmax, (B, 1, 1, T)."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed: Tensor = torch.softmax(scores + shut, dim=-1) @ value
        return mixed.transpose(1, 2).flatten(2)


class Adding(nn.Module):
    """A projection, added to what went past it, then normalised."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(before, width)
        self.LayerNorm = nn.LayerNorm(width, _EPSILON)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """(B, T, before) and (B, T, W) to (B, T, W)."""
        found: Tensor = self.LayerNorm(self.dense(x) + past)
        return found


class Layer(nn.Module):
    """Attention, then a feed-forward part with GELU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, inner = sizes.width, sizes.inner
        self.attention = nn.ModuleDict(
            {"self": Mixing(sizes), "output": Adding(width, width)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Adding(inner, width)

    def forward(self, x: Tensor, shut: Tensor) -> Tensor:
        """(B, T, W) to (B, T, W)."""
        y = self.attention["output"](self.attention["self"](x, shut), x)
        found: Tensor = self.output(F.gelu(self.intermediate["dense"](y)), y)
        return found


class Encoder(nn.Module):
    """Tokens to one vector a text: the mean over its tokens, of length 1.

    Args:
        sizes: Its public shape.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(sizes)
        layers = [Layer(sizes) for _ in range(sizes.layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T), int64, padded by zeros behind, to (B, W).

        The first place always counts, so that a row of nothing but padding has a
        vector too and no division by zero.
        """
        told = tokens != PADDING
        told = torch.cat([torch.ones_like(told[:, :1]), told[:, 1:]], dim=1)
        x = self.embeddings(tokens)
        shut = torch.zeros_like(told, dtype=x.dtype).masked_fill(~told, -1e30)
        for layer in self.encoder["layer"].children():
            x = layer(x, shut[:, None, None])
        weights = told.to(x.dtype)
        mean = (x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)
