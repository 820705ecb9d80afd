"""What [evaluation] and [privacy] must agree on. This module knows no data."""

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.parts import Evaluation, Privacy


def charged_evaluation_is_possible(
    privacy: Privacy, evaluation: Evaluation
) -> list[Contradiction]:
    """Units can be held out one by one, and there is noise to hide them."""
    charged = evaluation.on == "charged"
    found = []
    if charged and privacy.unit == "site":
        what = 'is "charged", with privacy.unit = "site"'
        fix = 'A site cannot hold itself out: write "public-holdout" or "none".'
        found.append(Contradiction(("evaluation", "on"), what, fix, "GLD-C130"))
    if charged and privacy.mechanism != "site-noise":
        what = f'is "charged", with privacy.mechanism = "{privacy.mechanism}"'
        fix = 'Write mechanism = "site-noise", or on = "public-holdout" or "none".'
        found.append(Contradiction(("evaluation", "on"), what, fix, "GLD-C131"))
    if charged and evaluation.share is None:
        what = 'missing; evaluation.on = "charged" needs it'
        fix = "Write share = 1.0: a held-out unit may pay as much as a trained one."
        found.append(Contradiction(("evaluation", "share"), what, fix, "GLD-C132"))
    for key in ("share", "largest_loss"):
        if not charged and getattr(evaluation, key) is not None:
            what = f'given, with evaluation.on = "{evaluation.on}"'
            fix = 'Remove it, or write on = "charged".'
            where = ("evaluation", key)
            found.append(Contradiction(where, what, fix, "GLD-C132"))
    return found
