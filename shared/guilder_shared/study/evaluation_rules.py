"""What [evaluation] and [privacy] must agree on. This module knows no data."""

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.parts import Evaluation, Privacy, Training


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
    for key in ("share", "every", "largest_loss"):
        if not charged and getattr(evaluation, key) is not None:
            what = f'given, with evaluation.on = "{evaluation.on}"'
            fix = 'Remove it, or write on = "charged".'
            where = ("evaluation", key)
            found.append(Contradiction(where, what, fix, "GLD-C132"))
    return found


def measured_rounds_are_whole(
    training: Training, evaluation: Evaluation
) -> list[Contradiction]:
    """Every figure has about the same noise, and is of the model that sites train."""
    every, where = evaluation.every, ("evaluation", "every")
    if every is None:
        return []
    found = []
    if training.rounds % every:
        what = f"is {every}, which does not divide training.rounds = {training.rounds}"
        fix = "Write a divisor: the last figure would have more noise than the others."
        found.append(Contradiction(where, what, fix, "GLD-C147"))
    if training.average is not None:
        what = "given, with training.average: a round begins from another model"
        fix = "Leave one of the two out: only the last model is measured without every."
        found.append(Contradiction(where, what, fix, "GLD-C147"))
    return found
