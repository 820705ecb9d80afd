"""The officer's decisions: `guilder privacy officer-key | budget | approve | …`.

They run where the officer's key is, which may be another computer: all they need there
is a copy of site.toml, and what they write is carried to the site's drop box.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from guilder_client.settings import SiteFile
    from guilder_shared.orders import Order
    from guilder_shared.privacy.ledger import Ledger

SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file, or a copy.", metavar="SITE.TOML")
]
KeyOption = Annotated[
    Path, typer.Option("--key", help="The officer's key.", metavar="OFFICER.KEY")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the order's file; else the site's own drop box."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
HERE = Path("site.toml")


def officer_key(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for officer.key and officer.pub.")
    ] = Path(),
) -> None:
    """Make the officer's key, on the officer's own computer if wanted.

    officer.key stays there; officer.pub goes to the site ([keys] officer in site.toml).
    """
    from guilder_shared.officer import make_key

    public_hex = make_key(out)
    typer.echo(f"wrote {out / 'officer.key'} (keep it) and {out / 'officer.pub'}")
    typer.echo(f"public key: {public_hex}")


def budget(
    site: SiteOption = HERE,
    sign: Annotated[
        bool, typer.Option("--sign", help="Sign what the site file says.")
    ] = False,
    key: KeyOption = Path("officer.key"),
    days: Annotated[
        float,
        typer.Option(help="How long the policy stands as a rule; 0: no rule."),
    ] = 365.0,
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", help="With --sign: this budget ends. Repeatable."),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each budget: limit, spent, reserved, left; or sign what site.toml asks.

    With --sign the budgets, the public sizes and, where accept = "auto", the policy
    as a standing rule become orders that the site obeys from then on. What was charged
    to a withdrawn budget stays counted.
    """
    from guilder import standing
    from guilder_client import terms
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    if sign:
        officer = _officer(settings, key)
        orders = [*terms.sign(settings, officer, days=days or None)]
        orders += [officer.withdraw(name) for name in withdraw or ()]
        _write(orders, out or settings.site.state_dir / "orders", as_json=as_json)
        return
    with _ledger(settings) as ledger:
        found = standing.of(settings, ledger)
    typer.echo(json.dumps(found) if as_json else standing.text(found))


def approve(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    site: SiteOption = HERE,
    key: KeyOption = Path("officer.key"),
    days: Annotated[
        float | None, typer.Option(help="No run begins later; else it stays.")
    ] = None,
    out: OutOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what STUDY would cost here, then sign an approval of just this study.

    The approval is for the study's digest: an edited study needs another one.
    """
    from guilder_client import forecasts
    from guilder_client.settings import SiteFile
    from guilder_shared.study import Study

    settings, asked = SiteFile.load(site), Study.load(study)
    officer = _officer(settings, key)
    typer.echo("\n".join(forecasts.lines(settings, asked)), err=as_json)
    if not yes:
        typer.confirm("Approve this study at this cost?", abort=True, err=as_json)
    order = officer.approve(
        asked.digest(),
        asked.study.name,
        epsilon=asked.privacy.epsilon,
        delta=asked.privacy.delta,
        days=days,
    )
    _write([order], out or settings.site.state_dir / "orders", as_json=as_json)


def revoke(
    order_id: Annotated[
        str, typer.Argument(help="Of an approval or rule, as `budget` shows it.")
    ],
    site: SiteOption = HERE,
    key: KeyOption = Path("officer.key"),
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an approval or a rule back: no new study and no new turn under it."""
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    order = _officer(settings, key).revoke(order_id)
    _write([order], out or settings.site.state_dir / "orders", as_json=as_json)


def acknowledge(
    head: Annotated[
        str,
        typer.Argument(help="As the refusal names it.", metavar="NUMBER:COMMITMENT"),
    ],
    budget: Annotated[str, typer.Option("--budget", help="Whose people were read.")],
    epsilon: Annotated[float, typer.Option("--epsilon", help="Of all that is lost.")],
    delta: Annotated[float, typer.Option("--delta", help="Of all that is lost.")],
    server: Annotated[
        str | None,
        typer.Option("--server", help="Who remembers it, if not the site's own."),
    ] = None,
    site: SiteOption = HERE,
    key: KeyOption = Path("officer.key"),
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Charge what a lost ledger had charged, so that the site may go on (GLD-I080).

    Ask the server's operator which studies ran since the copy was made, and charge
    their whole epsilon and delta. From then on the budget's plain sum alone decides.
    """
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    number, _, commitment = head.partition(":")
    if not number.isdecimal():
        raise typer.BadParameter("it is written NUMBER:COMMITMENT")
    order = _officer(settings, key).acknowledge(
        server or settings.site.ledger_name,
        int(number),
        commitment,
        budget=budget,
        epsilon=epsilon,
        delta=delta,
    )
    _write([order], out or settings.site.state_dir / "orders", as_json=as_json)


def excuse(
    server: Annotated[
        str, typer.Argument(help="Its address, as GLD-S050 names it.", metavar="SERVER")
    ],
    days: Annotated[
        float | None, typer.Option(help="It is asked again after them; else never.")
    ] = None,
    site: SiteOption = HERE,
    key: KeyOption = Path("officer.key"),
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the site spend though SERVER cannot say what it remembers (GLD-S050).

    Whoever asks for this may have put an old copy of the ledger back, which SERVER
    would have shown: ask its operator for `guilder server witnessed` first, if you can.
    `revoke` takes it back.
    """
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    order = _officer(settings, key).excuse(server, days=days)
    _write([order], out or settings.site.state_dir / "orders", as_json=as_json)


def hand_over(
    successor: Annotated[
        Path,
        typer.Argument(help="The new key's officer.pub.", metavar="NEW.PUB"),
    ],
    site: SiteOption = HERE,
    key: KeyOption = Path("officer.key"),
    out: OutOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let another key decide at this site from here on: a successor's, or a new one.

    Budgets, approvals and rules that the old key signed stay in force until the new one
    says otherwise; from the order on the old key signs nothing that counts. Then the
    site needs the new officer.pub, else its client does not start again (GLD-B017).
    """
    from guilder_client.settings import SiteFile
    from guilder_shared.officer import read_public_key

    settings = SiteFile.load(site)
    officer, public_hex = _officer(settings, key), read_public_key(successor)
    if public_hex == officer.public_hex:
        raise typer.BadParameter(f"{successor} is the public half of {key} itself")
    told = f"site {settings.site.name}: {officer.public_hex} hands over to {public_hex}"
    typer.echo(told, err=as_json)
    if not yes:
        typer.confirm(
            "Compared with the new officer's own copy, and right?",
            abort=True,
            err=as_json,
        )
    order = officer.hand_over(public_hex)
    _write([order], out or settings.site.state_dir / "orders", as_json=as_json)
    typer.echo(
        f"next: copy {successor} to {settings.keys.officer} at the site", err=True
    )


def _officer(settings: "SiteFile", key: Path) -> Any:
    from guilder_shared.identity import SigningKey
    from guilder_shared.officer import Officer

    return Officer(SigningKey.load(key), site=settings.site.name)


def _ledger(settings: "SiteFile") -> "Ledger":
    from guilder_client.site import read_ledger

    return read_ledger(settings)


def _write(orders: "Iterable[Order]", folder: Path, *, as_json: bool) -> None:
    from guilder_shared.officer import put

    for order in orders:
        path = put(order, folder)
        told = {"order_id": order.order_id, "file": str(path), **order.content}
        text = (
            f"signed {order.say} {order.subject[1]!r}, order {order.order_id}: {path}"
        )
        typer.echo(json.dumps(told) if as_json else text)
