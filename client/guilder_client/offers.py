"""Studies offered to this site, and what its people said of each.

An offer is kept when it comes, whatever the answer was, so that a person can look at it
while the server waits. A decision is a file of its own, named after the study's digest:
another study, however alike, has none. This module permits nothing by itself
(`consent.py`) and knows no row.

Review, mathematics: offers are public; decisions are a person's.
Review, crash order: a decision is durable before the command returns, and it is read
anew at every offer and every turn.
"""

import base64
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guilder_shared import durable
from guilder_shared.errors import PolicyRefused
from guilder_shared.messages import Answer, Offer, Plan
from guilder_shared.plain_text import one_line
from guilder_shared.study import Study

log = logging.getLogger(__name__)
MOST: Final = 100  # the oldest is forgotten; decisions are kept for ever
SEEN_EVERY_S: Final = 60.0  # an offer that is made again is written again
FEWEST: Final = 6  # characters that name a digest
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"


@dataclass(frozen=True)
class Offered:
    """A study as it was offered last.

    Attributes:
        digest: Of the study, 64 hexadecimal digits.
        run_id: The server's name for the run.
        study: Canonical JSON, as text.
        plan: As offered.
        first_s: When it came first, seconds since 1970.
        last_s: When it came last, to a minute.
        verdict: What the site answered.
        reason: Why; empty where it accepted.
    """

    digest: str
    run_id: str
    study: str
    plan: Plan
    first_s: float
    last_s: float
    verdict: str
    reason: str

    def read(self) -> Study:
        """The study itself."""
        return Study.from_canonical(self.study.encode())

    def offer(self) -> Offer:
        """The offer itself, without what the server remembers."""
        return Offer(self.run_id, self.study.encode(), self.plan)


class Offers:
    """The folder `studies/` of one site."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remember(self, offer: Offer, study: Study, answer: Answer) -> None:
        """Keep an offer and how it was answered.

        A disk that refuses is told in the log: the answer does not hang on it.
        """
        digest, now_s = study.digest(), time.time()
        known = self._load(digest)
        told = (offer.run_id, str(answer.verdict), answer.reason)
        if known is not None:
            before = (known.run_id, known.verdict, known.reason)
            if told == before and now_s - known.last_s < SEEN_EVERY_S:
                return
        body = {
            "digest": digest,
            "run_id": offer.run_id,
            "study": base64.b64encode(offer.study).decode(),
            "plan": offer.plan.facts(),
            "first_s": now_s if known is None else known.first_s,
            "last_s": now_s,
            "verdict": str(answer.verdict),
            "reason": answer.reason,
        }
        try:
            self._put(self._offer(digest), body)
            for old in self.all()[MOST:]:
                self._offer(old.digest).unlink(missing_ok=True)
        except OSError as error:
            log.error("an offer cannot be kept: %s", error.strerror)

    def all(self) -> list[Offered]:
        """All offers that are kept, the newest first."""
        found = [self._load(digest) for digest in self._digests()]
        known = [each for each in found if each is not None]
        return sorted(known, key=lambda each: each.last_s, reverse=True)

    def find(self, name: str) -> Offered:
        """The one offer whose digest begins with `name`, or whose study has it.

        Raises:
            PolicyRefused: GLD-S063 there is none, or there are several.
        """
        kept = self.all()
        found = [e for e in kept if e.digest == name or e.read().study.name == name]
        if not found and len(name) >= FEWEST:
            found = [e for e in kept if e.digest.startswith(name)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} offered studies are called" if found else "no study is"
        raise PolicyRefused(
            "GLD-S063",
            f"{what} {one_line(name, 80)!r} here",
            fix="Name its digest, as `guilder client studies list` shows it.",
        )

    def decide(self, digest: str, decision: str) -> None:
        """Keep a person's decision about the study of this digest; durable."""
        assert DIGEST.fullmatch(digest), digest
        assert decision in (ACCEPTED, REFUSED), decision
        self._put(self._decision(digest), {"decision": decision, "time_s": time.time()})

    def decision(self, digest: str) -> str:
        """What a person decided: "accepted", "refused" or, not yet, "".

        A file that cannot be read is a refusal.
        """
        try:
            told = json.loads(self._decision(digest).read_bytes())
        except FileNotFoundError:
            return ""
        except (OSError, ValueError):
            return REFUSED
        accepted = isinstance(told, dict) and told.get("decision") == ACCEPTED
        return ACCEPTED if accepted else REFUSED

    def _digests(self) -> Iterator[str]:
        for path in self._folder.glob("*.offer.json"):
            digest = path.name.removesuffix(".offer.json")
            if DIGEST.fullmatch(digest):
                yield digest

    def _load(self, digest: str) -> Offered | None:
        try:
            told: dict[str, Any] = json.loads(self._offer(digest).read_bytes())
            told["study"] = base64.b64decode(told["study"]).decode()
            found = Offered(**{**told, "plan": Plan(**told["plan"])})
            return found if found.read().digest() == digest else None
        except Exception:  # a file that was edited is no offer
            return None

    def _put(self, path: Path, body: dict[str, Any]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(path, json.dumps(body).encode(), mode=durable.OWNER_ONLY)

    def _offer(self, digest: str) -> Path:
        return self._folder / f"{digest}.offer.json"

    def _decision(self, digest: str) -> Path:
        return self._folder / f"{digest}.decision.json"
