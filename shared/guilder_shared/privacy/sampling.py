"""Where a turn's randomness comes from, and which units a step draws.

Keys, the keystream and the Poisson draw. This module knows no gradient and no
noise, and it never touches a global generator: seeding NumPy, torch or `random`
changes nothing here.

Review, mathematics: each unit is in a step's batch independently with probability
floor(rate x 2**64) / 2**64, which is never above the stated rate; the uniform is 64
bits of AES-256, so no rate is rounded to what 24 bits can hold. Units that have names
(persons) are drawn by their name: AES is a permutation that nobody can tell from a
random one, names are distinct, so the coins are independent, and who else is there
moves nobody's coin. Public: the rate and the number of steps. Secret: who was drawn,
and how many.
Review, crash order: this room sends nothing and writes nothing. Keys live in memory
only; a turn that is run again after a crash draws new keys, hence a fresh batch and
fresh noise, and one output ever leaves.
"""

import hashlib
import hmac
import json
import math
import secrets
import sys
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from guilder_shared.study import Study

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]
Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
Names = np.ndarray[tuple[int], np.dtype[np.int64]]
Purpose = Literal["sampling", "records", "copies", "noise", "count", "metrics"]

_BLOCK_WORDS = 1 << 14  # 128 KiB at a time: the keystream stays in the cache
_ZEROS = bytes(8 * _BLOCK_WORDS)


@dataclass(frozen=True)
class TurnKeys:
    """All randomness of one turn, as one secret of 32 bytes.

    Attributes:
        root: Uniform 32 bytes. Never printed, stored or sent.
    """

    root: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.root) != 32:
            raise ValueError("a turn's root key has 32 bytes")

    @classmethod
    def from_os(cls) -> "TurnKeys":
        """Fresh keys from the operating system: the only choice of a deployed site."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def seeded(
        cls, seed: int, *, site: str, round_no: int, turn_no: int = 0
    ) -> "TurnKeys":
        """Keys that anybody who knows the seed can recompute.

        For simulation (`[simulation] seed`), and for mechanism "none" with a test
        seed, where `turn_no` stays 0 so that a disturbed run equals an undisturbed
        one. What is made with them carries no privacy guarantee.
        """
        label = json.dumps(["guilder turn keys 1", seed, site, round_no, turn_no])
        return cls(hashlib.sha256(label.encode()).digest())

    @classmethod
    def choose(
        cls,
        study: Study,
        *,
        site: str,
        round_no: int,
        turn_no: int,
        simulation_seed: int | None = None,
    ) -> "TurnKeys":
        """The keys of one turn: test seed, else simulation seed, else the OS.

        The test seed counts only with mechanism "none". A deployed site never
        passes `simulation_seed`.
        """
        test_seed = study.training.test_seed
        if test_seed is not None and study.privacy.mechanism == "none":
            return cls.seeded(test_seed, site=site, round_no=round_no)
        if simulation_seed is not None:
            return cls.seeded(
                simulation_seed, site=site, round_no=round_no, turn_no=turn_no
            )
        return cls.from_os()

    def key(self, purpose: Purpose, step: int) -> bytes:
        """An independent AES-256 key for one use in one step.

        Source: HKDF-Expand, RFC 5869, with SHA-256; `root` is already uniform.
        """
        info = b"guilder/1/" + purpose.encode() + b"/" + step.to_bytes(8, "big")
        # the only block of 32 bytes, in one call: each step needs a key or two
        return hmac.digest(self.root, info + b"\x01", "sha256")


class Keystream:
    """AES-256-CTR from counter 0, read as little-endian 64-bit words.

    One key makes one stream; use a key once. How the stream is cut into reads does
    not change its words, nor does where a read begins: `first_word`, even.
    """

    def __init__(self, key: bytes, first_word: int = 0) -> None:
        if first_word % 2:  # a counter stands for two words
            raise ValueError(f"first_word must be even, not {first_word}")
        counter = (first_word // 2).to_bytes(16, "big")
        cipher = Cipher(algorithms.AES256(key), modes.CTR(counter))
        self._encryptor = cipher.encryptor()

    def words(self, num: int) -> Words:
        """The next `num` words, uniform on 0 .. 2**64 - 1."""
        out = np.empty(num, dtype=np.uint64)
        self.fill(out)
        return out

    def fill(self, out: Words) -> None:
        """Overwrite `out`, contiguous, with the next words."""
        view = memoryview(out.data).cast("B")
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._encryptor.update_into(memoryview(_ZEROS)[: len(part)], part)
        if sys.byteorder == "big":
            out.byteswap(inplace=True)


def poisson(num_units: int, sample_rate: float, key: bytes) -> Indices:
    """Draw one step's batch: each unit by its own coin.

    Args:
        num_units: Units at this site; 0 is allowed. Secret.
        sample_rate: In (0, 1], public. 1 takes every unit and flips no coin.
        key: 32 bytes, used for this draw only.

    Returns:
        Shape (units drawn,), rising. Empty batches do happen and must be answered
        by a step of pure noise.

    Source: Poisson sampling as accounted by Mironov, Talwar and Zhang 2019.
    """
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must be in (0, 1], not {sample_rate!r}")
    if sample_rate == 1:
        return np.arange(num_units, dtype=np.int64)
    threshold = _threshold(sample_rate)
    stream = Keystream(key)
    drawn = [
        np.flatnonzero(stream.words(min(_BLOCK_WORDS, num_units - start)) < threshold)
        + start
        for start in range(0, num_units, _BLOCK_WORDS)
    ]
    if not drawn:
        return np.empty(0, dtype=np.int64)
    return np.concatenate(drawn).astype(np.int64, copy=False)


def named_words(names: Names, places: Indices, key: bytes) -> Words:
    """A uniform word for each (name, place), a function of these two and the key.

    Args:
        names: Shape (words,), any numbers.
        places: Shape (words,); together with `names` no pair comes twice.
        key: 32 bytes, used for this purpose only.

    Returns:
        Shape (words,), uniform on 0 .. 2**64 - 1, independent of each other up to
        the 2**-128 by which AES on distinct blocks differs from a random function.
    """
    blocks = np.empty((len(names), 2), dtype="<i8")
    blocks[:, 0], blocks[:, 1] = names, places
    # Not for secrecy: each block is a name, met once, and its image is the coin.
    cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305
    images = np.frombuffer(cipher.encryptor().update(blocks.tobytes()), dtype="<u8")
    return images[::2].astype(np.uint64)


def poisson_named(names: Names, sample_rate: float, key: bytes) -> Indices:
    """Draw one step's batch among units with names: each by its own coin.

    Whether a unit is drawn follows from its name and the key, whoever else is there.

    Args:
        names: Shape (units,), each once. Secret.
        sample_rate: In (0, 1], public. 1 takes every unit and flips no coin.
        key: 32 bytes, used for this draw only.

    Returns:
        Places in `names`, rising; none at all does happen.

    Source: As `poisson`.
    """
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must be in (0, 1], not {sample_rate!r}")
    if sample_rate == 1:
        return np.arange(len(names), dtype=np.int64)
    words = named_words(names, np.zeros(len(names), dtype=np.int64), key)
    return np.flatnonzero(words < _threshold(sample_rate)).astype(np.int64, copy=False)


def _threshold(sample_rate: float) -> np.uint64:
    # floor(rate x 2**64): a power of two changes no digit, and int cuts exactly
    return np.uint64(int(math.ldexp(sample_rate, 64)))
