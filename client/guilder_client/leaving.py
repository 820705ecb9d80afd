"""A site leaves the consortium: studies ended, grants freed, a closing report written.

The ledger and all keys stay: what was charged is charged, and can be proven later. It
runs in place of the client, whose ledger it holds meanwhile, so that no study begins.

Review, mathematics: closing a grant frees what was not spent, as at a study's own end;
nothing is freed in a ledger that a server knows to be old (`rollback.py`).
Review, crash order: grants are closed durably, then the server is told, then the
report is written; killed anywhere, the same command does the rest.
"""

from collections.abc import Callable
from pathlib import Path

import httpx

from guilder_client import witnesses
from guilder_client.rollback import demand_newest
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import reports, tls
from guilder_shared.errors import EnrolmentError, NetworkError

Tell = Callable[[str], None]


def leave(settings: SiteFile, out: Path, *, resign: bool, tell: Tell) -> Path:
    """End this site's part in everything, and say what it cost.

    Args:
        settings: Of the site; its client must not be running.
        out: Folder for the closing report.
        resign: Tell the server; without it, a server that is gone is left behind.
        tell: Called with one line for each step.

    Returns:
        The report, JSON; the page lies beside it.

    Raises:
        IntegrityError: The client is running (GLD-I006), or a server knows a newer
            ledger (GLD-I080): nothing was ended.
        PolicyRefused: Another server that may know a newer one was not heard
            (GLD-S050).
        EnrolmentError: With a server that is gone and that the officer has not
            excused nothing is freed (GLD-E068).
        NetworkError: The server could not be told (GLD-N081).
    """
    from guilder_client.join import resign as tell_server

    site = Site.open(settings)
    try:
        ledger = site.ledger
        open_grants = [grant for grant in ledger.grants() if not grant.closed]
        if open_grants:
            _demand_newest(site, is_there=resign)
        for grant in open_grants:
            ledger.close(grant.grant_id)
            site.forget(grant.grant_id)
            tell(f"ended    {grant.study_name} ({len(grant.turns)} turns spent)")
        if resign:
            tell_server(settings)
            tell(f"left     {settings.site.server} calls this site no more")
        path = reports.write(ledger, out)
        tell(f"report   {path}")
        return path
    finally:
        site.ledger.shut()


def _demand_newest(site: Site, *, is_there: bool) -> None:
    """Free nothing in an old copy: every server is asked, our own included."""
    ledger, settings = site.ledger, site.settings
    own, url, keys = settings.site.ledger_name, settings.site.server, settings.keys
    if is_there:
        files = tls.KeyFiles(keys.key, keys.certificate, keys.authority)
        question = witnesses.Question(own, url, files, settings.proxy)
        try:
            remembered = witnesses.ask(question)
        except (httpx.HTTPError, ValueError) as error:
            raise NetworkError(
                "GLD-N081",
                f"{url} was not heard ({type(error).__name__}): nothing was ended",
                fix="The same command asks again; --offline if it is gone for good.",
            ) from None
        demand_newest(ledger, own, remembered)
    else:
        known = ledger.witnesses().get(own)
        if known is not None and known.heads and not known.excused:
            raise EnrolmentError(
                "GLD-E068",
                f"{own} was sent results and cannot be asked whether this ledger is "
                "the newest: nothing was ended",
                why="Grants of an old copy would be freed that were spent.",
                fix=f"The officer lets the site go on: `guilder privacy excuse {own}`.",
            )
    if site.witnesses is not None:
        site.witnesses.demand_heard(ledger, anew=True)
