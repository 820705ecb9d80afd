"""What the tables of a study must agree on, each rule for itself.

A rule looks at whole tables and gives contradictions with their fix. This module reads
no file.
"""

from collections.abc import Callable

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.aggregation import Aggregation
from guilder_shared.study.aggregation_rules import (
    each_site_is_seen,
    enough_sites_for_the_rule,
    noise_is_known,
    steps_can_drift,
    strategy_has_its_keys,
    variates_fit_the_steps,
)
from guilder_shared.study.asking_rules import (
    noise_fits_the_questions,
    questions_fit_their_columns,
    statistics_are_whole,
)
from guilder_shared.study.data import (
    ColumnData,
    Data,
    ImageData,
    TableData,
    TextData,
)
from guilder_shared.study.evaluation_rules import (
    charged_evaluation_is_possible,
    measured_rounds_are_whole,
)
from guilder_shared.study.fitting import model_fits
from guilder_shared.study.learning_rules import (
    copies_come_before_features,
    copies_fit_the_rows,
    optimizer_has_its_keys,
    turns_are_long_enough,
)
from guilder_shared.study.parts import (
    Privacy,
    Simulation,
    Training,
)


def _target_is_no_input(data: Data) -> list[Contradiction]:
    """A model that reads its answer, or who somebody is, has learnt nothing."""
    if isinstance(data, ColumnData):
        return []
    if not isinstance(data, TableData):
        return _columns_differ(data)
    fix = "Remove it from [data.columns]."
    roles = {"target": data.target, "person": data.person}
    return [
        Contradiction(("data", "columns", name), f"is the {role}, not an input", fix)
        for role, name in roles.items()
        if name in data.columns
    ]


def _columns_differ(data: ImageData | TextData) -> list[Contradiction]:
    key = "image" if isinstance(data, ImageData) else "text"
    named = getattr(data, key)
    if named not in (data.target, data.person):
        return []
    what = f'is "{named}", as the target or the person'
    return [Contradiction(("data", key), what, "Give each role a column of its own.")]


def _person_is_named(data: Data, privacy: Privacy) -> list[Contradiction]:
    target = None if isinstance(data, ColumnData) else data.target
    if data.person is not None and data.person == target:
        fix = "Name the column that says whose row it is."
        return [Contradiction(("data", "person"), "is the target as well", fix)]
    if privacy.unit != "person" or data.person is not None:
        return []
    what = 'missing; privacy.unit = "person" needs it'
    fix = 'Write person = "…", the column that says whose row it is.'
    return [Contradiction(("data", "person"), what, fix)]


def _persons_are_capped(privacy: Privacy) -> list[Contradiction]:
    """How many records of a person count is part of the promise, so it is written."""
    where = ("privacy", "max_records")
    if privacy.unit == "person" and privacy.max_records is None:
        fix = "Write max_records = 20: most records of one person in a step, public."
        what = 'missing; privacy.unit = "person" needs it'
        return [Contradiction(where, what, fix)]
    what = f'given, with privacy.unit = "{privacy.unit}"'
    fix = 'Remove it, or write unit = "person" and data.person.'
    return [
        Contradiction(("privacy", key), what, fix)
        for key in ("max_records", "max_sites_per_person")
        if privacy.unit != "person" and getattr(privacy, key) is not None
    ]


def _seed_is_for_tests(training: Training, privacy: Privacy) -> list[Contradiction]:
    """Who knows the seed can take the noise off again."""
    if training.test_seed is None or privacy.mechanism == "none":
        return []
    what = f'given, with privacy.mechanism = "{privacy.mechanism}"'
    fix = "Remove it: randomness that protects somebody comes from no seed."
    return [Contradiction(("training", "test_seed"), what, fix)]


def _joint_noise_is_one_step(
    training: Training, privacy: Privacy
) -> list[Contradiction]:
    if privacy.mechanism != "joint-noise" or training.local_steps == 1:
        return []
    what = f"is {training.local_steps}; joint-noise releases one step at a time"
    fix = 'Write local_steps = 1, or mechanism = "site-noise".'
    return [Contradiction(("training", "local_steps"), what, fix)]


def _enough_sites(
    aggregation: Aggregation, simulation: Simulation
) -> list[Contradiction]:
    """The sites that are played make a quorum, and the lists name each of them."""
    found = []
    if aggregation.min_sites > simulation.sites:
        what = f"is {aggregation.min_sites}, but simulation.sites is {simulation.sites}"
        fix = "Play more sites, or ask for fewer."
        found.append(Contradiction(("aggregation", "min_sites"), what, fix))
    for key in ("names", "public_sizes"):
        values = getattr(simulation, key)
        if values is not None and len(values) != simulation.sites:
            what = f"has {len(values)} entries for {simulation.sites} sites"
            fix = "Give one entry per site, or leave the key out."
            found.append(Contradiction(("simulation", key), what, fix))
    names = simulation.names or ()
    if len(set(names)) < len(names):
        what, fix = "names a site twice", "Give each site a name of its own."
        found.append(Contradiction(("simulation", "names"), what, fix))
    return found


RULES: tuple[tuple[tuple[str, ...], Callable[..., list[Contradiction]]], ...] = (
    (("data",), _target_is_no_input),
    (("data", "privacy"), _person_is_named),
    (("privacy",), _persons_are_capped),
    (("data", "model"), model_fits),
    (("training",), optimizer_has_its_keys),
    (("training",), turns_are_long_enough),
    (("data", "training"), copies_fit_the_rows),
    (("model", "training"), copies_come_before_features),
    (("training", "privacy"), _seed_is_for_tests),
    (("training", "privacy"), _joint_noise_is_one_step),
    (("privacy", "evaluation"), charged_evaluation_is_possible),
    (("training", "evaluation"), measured_rounds_are_whole),
    (("aggregation", "simulation"), _enough_sites),
    (("aggregation",), strategy_has_its_keys),
    (("aggregation", "privacy"), each_site_is_seen),
    (("aggregation",), enough_sites_for_the_rule),
    (("aggregation", "training"), noise_is_known),
    (("aggregation", "training"), variates_fit_the_steps),
    (("aggregation", "training"), steps_can_drift),
)

# These also look at [statistics], which most studies do not have: last, perhaps None.
RULES_OF_STATISTICS: tuple[
    tuple[tuple[str, ...], Callable[..., list[Contradiction]]], ...
] = (
    (("study", "data"), statistics_are_whole),
    (("data",), questions_fit_their_columns),
    (("privacy",), noise_fits_the_questions),
)
