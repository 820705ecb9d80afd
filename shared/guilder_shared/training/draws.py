"""The draw of one private step: which rows, and whose they are.

Records by Poisson sampling; persons by Poisson sampling and then at most `max_records`
of each; a site whole. This module reads no row's content and computes no gradient.

Review, mathematics. The unit is drawn, independently of all others, with the public
rate; that is what is accounted. Which of a drawn person's records count is chosen by
fresh randomness from that person's own rows: whatever the choice, the person adds one
contribution of at most C, and a mixture over choices of pairs that differ by at most C
costs no more than the worst pair (the hockey-stick divergence is jointly convex). A
person's coin and choice follow from the person's number and the step's key, so no
person moves another's. Public: rate, cap, number of steps. Secret: everything in a
`Draw`, its length included.
Review, crash order: in memory only; a turn that runs again draws with new keys.
"""

from dataclasses import dataclass

import numpy as np

from guilder_shared.privacy.sampling import (
    Indices,
    TurnKeys,
    named_words,
    poisson,
    poisson_named,
)
from guilder_shared.study import Study
from guilder_shared.tasks import Examples


@dataclass(frozen=True)
class Draw:
    """The rows of one step.

    Attributes:
        rows: Row numbers, shape (rows drawn,), whole units together.
        units: Unit of each row, shape (rows drawn,), rising from 0 without gaps; None
            where each row is a unit of its own.
    """

    rows: Indices
    units: Indices | None = None

    def __len__(self) -> int:
        return len(self.rows)


class Sampler:
    """Draws the steps of one turn.

    Args:
        study: Names the unit, the rate and, for persons, the cap.
        examples: For persons with `units`; only their number and `units` are read.

    Raises:
        ValueError: The unit is a person and nobody says whose rows they are.
    """

    def __init__(self, study: Study, examples: Examples) -> None:
        self._unit = study.privacy.unit
        self._rate = study.training.sample_rate
        self._num_rows = len(examples)
        if self._unit != "person":
            return
        if examples.units is None or study.privacy.max_records is None:
            raise ValueError("persons can be drawn only where each row has its person")
        self._most = study.privacy.max_records
        # Rows of one person together, in the order of the source.
        self._order = np.argsort(examples.units, kind="stable")
        self._names, self._starts, self._counts = np.unique(
            examples.units[self._order], return_index=True, return_counts=True
        )

    def draw(self, keys: TurnKeys, step: int) -> Draw:
        """The rows of one step; none at all does happen and is answered by noise.

        Args:
            keys: Of this turn.
            step: From 0; each step is another draw.
        """
        key = keys.key("sampling", step)
        if self._unit == "record":
            return Draw(poisson(self._num_rows, self._rate, key))
        if self._unit == "person":
            return self._persons(key, keys.key("records", step))
        there = len(poisson(1, self._rate, key))  # one coin for the whole site
        num_rows = self._num_rows if there else 0
        rows = np.arange(num_rows, dtype=np.int64)
        return Draw(rows, np.zeros(num_rows, dtype=np.int64))

    def _persons(self, coin_key: bytes, choice_key: bytes) -> Draw:
        drawn = poisson_named(self._names, self._rate, coin_key)
        counts = self._counts[drawn]
        units = np.repeat(np.arange(len(drawn)), counts)
        ends = np.cumsum(counts)
        places = np.arange(len(units)) - np.repeat(ends - counts, counts)
        kept = np.ones(len(units), dtype=bool)
        several = np.flatnonzero(np.repeat(counts > self._most, counts))
        if several.size:
            names = np.repeat(self._names[drawn], counts)[several]
            words = named_words(names, places[several], choice_key)
            kept[several] = _among_the_lowest(words, units[several], self._most)
        rows = self._order[np.repeat(self._starts[drawn], counts) + places]
        return Draw(rows[kept], units[kept])


def _among_the_lowest(
    words: np.ndarray[tuple[int], np.dtype[np.uint64]], units: Indices, most: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which words are among the `most` lowest of their unit: uniform, none twice.

    Args:
        words: Independent and uniform.
        units: Unit of each word, rising; each has more than `most` of them.
        most: 1 or more.
    """
    by_word = np.lexsort((words, units))  # by unit, then by word
    starts = np.searchsorted(units, units)  # where each word's unit begins
    lowest = np.arange(len(words)) - starts < most
    chosen = np.zeros(len(words), dtype=bool)
    chosen[by_word[lowest]] = True
    return chosen
