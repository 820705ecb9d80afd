"""What [aggregation] must agree on, with itself and with how sites train."""

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.aggregation import Aggregation
from guilder_shared.study.parts import Privacy, Training

_EXAMPLES = {
    "proximal": "proximal = 0.01",
    "server_learning_rate": "server_learning_rate = 0.1",
    "server_betas": "server_betas = [0.9, 0.99]",
    "server_floor": "server_floor = 0.001",
    "trim": "trim = 0.2",
    "norm_bound": "norm_bound = 1.0",
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "fedprox": ("proximal",),
    "fedadam": ("server_learning_rate",),
    "trimmed-mean": ("trim",),
    "norm-bound": ("norm_bound",),
}
_ALLOWED: dict[str, tuple[str, ...]] = {"fedadam": ("server_betas", "server_floor")}
_SEE_EACH_SITE = ("scaffold", "median", "trimmed-mean", "norm-bound")


def strategy_has_its_keys(aggregation: Aggregation) -> list[Contradiction]:
    """A key of another strategy would be read by nobody."""
    strategy, found = aggregation.strategy, []
    needed = _NEEDED.get(strategy, ())
    for key, example in _EXAMPLES.items():
        given = getattr(aggregation, key) is not None
        if given and key not in (*needed, *_ALLOWED.get(strategy, ())):
            what = f'given, with strategy = "{strategy}"'
            fix = "Remove it, or name the strategy that it is for."
        elif not given and key in needed:
            what = f'missing; strategy = "{strategy}" needs it'
            fix = f"Write {example}."
        else:
            continue
        found.append(Contradiction(("aggregation", key), what, fix, "GLD-C140"))
    return found


def each_site_is_seen(
    aggregation: Aggregation, privacy: Privacy
) -> list[Contradiction]:
    """Where the server sees a sum alone there is nothing to compare or to compress."""
    if privacy.mechanism != "joint-noise":
        return []
    found = []
    fix = 'Write mechanism = "site-noise", or '
    if aggregation.strategy in _SEE_EACH_SITE:
        what = (
            f'is "{aggregation.strategy}", which reads each site\'s update; with '
            'privacy.mechanism = "joint-noise" the server sees their sum alone'
        )
        where = ("aggregation", "strategy")
        more = 'strategy = "fedavg", "fedprox" or "fedadam".'
        found.append(Contradiction(where, what, fix + more, "GLD-C141"))
    if aggregation.compression is not None:
        what = 'given, with privacy.mechanism = "joint-noise": its sum is in integers'
        where = ("aggregation", "compression")
        found.append(Contradiction(where, what, fix + "remove it.", "GLD-C141"))
    return found


def enough_sites_for_the_rule(aggregation: Aggregation) -> list[Contradiction]:
    """A rule that leaves nobody out protects from nobody."""
    num = aggregation.min_sites
    if aggregation.strategy == "median" and num < 3:
        what = f"is {num}; the median of fewer than 3 sites is their mean"
        fix = "Write min_sites = 3 or more."
        return [Contradiction(("aggregation", "min_sites"), what, fix, "GLD-C142")]
    if aggregation.trim is not None and not aggregation.num_trimmed(num):
        least = 1 / num
        what = f"is {aggregation.trim:g}; of min_sites = {num} it leaves nobody out"
        fix = f"Write trim = {least:.2g} or more, or a larger min_sites."
        if least >= 0.5:
            fix = "Write min_sites = 3 or more."
        return [Contradiction(("aggregation", "trim"), what, fix, "GLD-C142")]
    return []


def noise_is_known(aggregation: Aggregation, training: Training) -> list[Contradiction]:
    """A bound on the norm allows for the noise, whose norm must be public."""
    if aggregation.strategy != "norm-bound":
        return []
    keys = {
        "optimizer": training.optimizer == "adam",
        "adaptive_clip": training.adaptive_clip is not None,
    }
    what = 'bends the noise; strategy = "norm-bound" must know how large it is'
    fix = 'Write optimizer = "sgd" and no adaptive_clip, or another strategy.'
    return [
        Contradiction(("training", key), what, fix, "GLD-C143")
        for key, given in keys.items()
        if given
    ]


def variates_fit_the_steps(
    aggregation: Aggregation, training: Training
) -> list[Contradiction]:
    """Control variates are mean gradients, read off an update of plain descent."""
    if aggregation.strategy != "scaffold":
        return []
    keys = {
        "optimizer": training.optimizer != "sgd",
        "momentum": training.momentum is not None,
    }
    what = 'given, with strategy = "scaffold", which reads gradients off an update'
    fix = 'Write optimizer = "sgd" without momentum, or another strategy.'
    return [
        Contradiction(("training", key), what, fix, "GLD-C144")
        for key, given in keys.items()
        if given
    ]


def steps_can_drift(
    aggregation: Aggregation, training: Training
) -> list[Contradiction]:
    """What holds local steps together needs a second step, and a gentle pull."""
    strategy, found = aggregation.strategy, []
    if strategy in ("fedprox", "scaffold") and training.local_steps == 1:
        what = f'is 1; strategy = "{strategy}" acts from a turn\'s second step on'
        fix = 'Write local_steps = 2 or more, or strategy = "fedavg".'
        where = ("training", "local_steps")
        found.append(Contradiction(where, what, fix, "GLD-C145"))
    pull = (aggregation.proximal or 0.0) * training.learning_rate
    if strategy == "fedprox" and training.optimizer == "sgd" and pull >= 1:
        what = f"times training.learning_rate is {pull:g}: each step overshoots"
        fix = f"Write proximal below {1 / training.learning_rate:.3g}."
        where = ("aggregation", "proximal")
        found.append(Contradiction(where, what, fix, "GLD-C146"))
    return found
