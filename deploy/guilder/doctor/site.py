"""What the doctor looks at for a site, and in which order.

Nothing is sent but what `network` says, nothing is charged, and rows are read only
where a study is named; what is found of them stays here.
"""

from collections.abc import Generator, Iterator

from guilder.doctor import keys, machine, network, rows, start, versions
from guilder.doctor.finding import Finding, fine, of, skipped, warning
from guilder_client import policy, terms
from guilder_client.data.source import open_source
from guilder_client.exclusions import Exclusions
from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile
from guilder_client.site import Site, read_ledger
from guilder_shared import tls
from guilder_shared.errors import GuilderError, IntegrityError, PolicyRefused
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

IN_USE = "GLD-I006"  # another process writes the ledger: the client runs
LOW_SHARE = 0.1  # of a budget's epsilon


def check(
    settings: SiteFile, study: Study | None = None, *, offline: bool = False
) -> Iterator[Finding]:
    """Everything that a site needs for a study.

    Args:
        settings: site.toml.
        study: Also policy, columns, rows and the self-test of this study.
        offline: Leave the network out.
    """
    files = settings.keys
    own = tls.KeyFiles(files.key, files.certificate, files.authority)
    if offline:
        yield skipped("network", "not looked at (--offline)")
    else:
        yield from network.check(settings.site.server, own, proxy=settings.proxy)
    yield from keys.check(own, site=settings.site.name)
    yield from machine.check(settings.site.state_dir, device=settings.speed.device)
    yield from versions.check()
    opened = yield from _ledger(settings)
    yield from start.files(settings)
    if opened is None:
        return
    try:
        if study is not None:
            yield from _study(opened, study)
    finally:
        opened.ledger.shut()


def _ledger(settings: SiteFile) -> Generator[Finding, None, Site | None]:
    """Open it as the client does, or read it beside a client that runs."""
    running = ""
    try:
        try:
            opened = Site.open(settings)
        except IntegrityError as error:
            if error.error_id != IN_USE:
                raise
            running = "; the client is running"
            opened = _beside_a_client(settings)
        num = len(opened.ledger.entries())
        yield fine("privacy", f"ledger intact, {num} entries, chain ok{running}")
        terms.demand_signed(settings, opened.ledger)
        yield fine("privacy", "the officer signed what site.toml says")
        yield from _budgets(opened.ledger)
        return opened
    except GuilderError as error:
        yield of("privacy", error)
        return None


def _budgets(ledger: Ledger) -> Iterator[Finding]:
    for name, each in ledger.totals().items():
        left, limit = each.left_epsilon, each.budget.epsilon
        told = f"budget {name}: epsilon {left:g} of {limit:g} left"
        if left < LOW_SHARE * limit:
            yield warning(
                "privacy", "GLD-S065", told,
                why="Studies have taken nearly all that may ever be learnt here.",
                fix="Ask the officer; `guilder privacy budget` shows who took what.",
            )  # fmt: skip
        else:
            yield fine("privacy", told)


def _study(site: Site, study: Study) -> Iterator[Finding]:
    name = study.study.name
    try:
        policy.permit(site.settings, study)
        public_size = site.public_size(study)
        policy.demand_small_delta(site, study)
        yield fine("privacy", f"study {name}: the policy allows it")
        policy.demand_columns(site, study)
        leave_out = site.exclusions.of(study) if site.exclusions else None
        source = open_source(site.settings.data[study.data.dataset])
        source.check_cells(study.site_contract, leave_out)
        yield fine("data", f"study {name}: its columns fit the contract")
        table = rows.read(study, source, leave_out)
        found = rows.report(table, study.data)
        yield from rows.findings(found, study, public_size=source.public_size)
        yield from _self_test(study, public_size)
    except GuilderError as error:
        part = "privacy" if isinstance(error, PolicyRefused) else "data"
        yield of(part, error)


def _self_test(study: Study, public_size: int) -> Iterator[Finding]:
    from guilder_shared.training import selftest

    try:
        plan = accounting.solve(study)
        passed = selftest.ensure(study, plan, public_size=public_size)
    except GuilderError as error:
        yield of("privacy", error)
        return
    if passed is None:
        yield skipped("privacy", "without protection there is nothing to self-test")
        return
    yield fine("privacy", f"self-test passed: {', '.join(passed.checks)}")


def _beside_a_client(settings: SiteFile) -> Site:
    """The site over its files, with a ledger that is only read."""
    state = settings.site.state_dir
    return Site(
        name=settings.site.name,
        settings=settings,
        ledger=read_ledger(settings),
        sealed=SealedTurns(state / "turns"),
        sources={name: open_source(each) for name, each in settings.data.items()},
        exclusions=Exclusions(settings.data, state / "cohorts"),
    )
