"""`guilder server invite|sites|approve|refuse|revoke|remove|log`: who belongs here.

Each is one call to the running server, by the admin's certificate of server.toml.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from guilder_server.commands import HERE, JsonOption, PassphraseOption, ServerOption
from guilder_shared.errors import EnrolmentError
from guilder_shared.plain_text import one_line

NameArgument = Annotated[
    str, typer.Argument(help="The site's or person's name.", metavar="NAME")
]
DAY_S = 86_400


def invite(
    name: NameArgument,
    role: Annotated[
        str, typer.Option("--role", help="site, operator, officer or admin.")
    ] = "site",
    hours: Annotated[
        float, typer.Option("--hours", help="How long the token is good.")
    ] = 72,
    approve: Annotated[
        bool, typer.Option("--approve", help="Look at the request before it is signed.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = HERE,
) -> None:
    """Invite NAME: prints a token, good once, to be handed over by a safe way.

    It holds the server's address, how to know the server, and a secret; no private key.
    """
    with _desk(server) as control:
        token = control.invite(name, role=role, hours=hours, needs_approval=approve)
    if as_json:
        typer.echo(json.dumps({"token": token}))
        return
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + hours * 3600))
    group = "client" if role == "site" else "run"
    typer.echo(f"good once, until {until}; by telephone or encrypted mail:", err=True)
    typer.echo(token)
    typer.echo(f"there: guilder {group} join TOKEN", err=True)


def sites(
    approve: Annotated[
        str | None,
        typer.Option("--approve", help="Sign what NAME requested.", metavar="NAME"),
    ] = None,
    refuse: Annotated[
        str | None,
        typer.Option("--refuse", help="Refuse what NAME requested.", metavar="NAME"),
    ] = None,
    as_json: JsonOption = False,
    server: ServerOption = HERE,
) -> None:
    """List members and invitations; approve or refuse what waits for you.

    Compare the code with the one that the site's engineer sees, by telephone.
    """
    with _desk(server) as control:
        if approve:
            control.decide(approve, "approve")
        if refuse:
            control.decide(refuse, "refuse")
        for row in control.members():
            typer.echo(json.dumps(row) if as_json else _line(row))


def revoke(
    name: NameArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    server: ServerOption = HERE,
) -> None:
    """Shut NAME out at once: what it has open is cut within a second.

    Its certificate counts no more, until --undo or a new invitation and new keys.
    """
    with _desk(server) as control:
        control.decide(name, "reinstate" if undo else "revoke")
    typer.echo(f"{name} is let in again" if undo else f"{name} is shut out")


def remove(name: NameArgument, server: ServerOption = HERE) -> None:
    """Strike NAME off for good; only a new invitation brings the name back."""
    with _desk(server) as control:
        control.decide(name, "remove")
    typer.echo(f"{name} is removed")


def reissue(
    root_key: Annotated[
        Path, typer.Option("--root-key", help="The root's key, from where it is kept.")
    ],
    passphrase_file: PassphraseOption = None,
    server: ServerOption = HERE,
) -> None:
    """Make a new issuing key, before the old one's three years are over.

    With the server stopped. Members' certificates stay good; open invitations too.
    """
    from guilder_server import passphrase
    from guilder_server.settings import ServerFile
    from guilder_shared import authority

    folder = ServerFile.load(server).keys.authority.parent
    made = authority.reissue(folder, root_key, passphrase.read(passphrase_file))
    typer.echo(
        f"issuing key until {made.not_valid_after_utc:%Y-%m-%d}; start the server"
    )


def log(
    after: Annotated[
        int, typer.Option("--after", min=0, help="Only entries with a higher number.")
    ] = 0,
    as_json: JsonOption = False,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            exists=True,
            dir_okay=False,
            help="Check a file that --json wrote; asks no server.",
            metavar="FILE",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="The public key that must have signed FILE."),
    ] = None,
    server: ServerOption = HERE,
) -> None:
    """Print the signed log of who was invited, joined, renewed, was revoked, asked.

    With --json each line is an entry whole: seq, kind, body, prev, hash, signature, as
    docs/wire.md has them. Entry 1 names the key that signs; the last line is a signed
    end. --check reads such a file on any computer: chain, signatures, end, and that
    nobody did what was not theirs; exit code 5 if anything is wrong.
    """
    if check is not None:
        _check_log(check, key, as_json)
        return
    with _desk(server) as control:
        for entry in control.log(after):
            if as_json or entry["kind"] != "end":
                typer.echo(json.dumps(entry) if as_json else _entry_line(entry))


def _check_log(file: Path, key: str | None, as_json: bool) -> None:
    from guilder_server import exported_log

    found = exported_log.check(file.read_text("utf-8", "replace"), key)
    if as_json:
        rows = {m.name: {"role": m.role, "state": m.state} for m in found.members}
        typer.echo(json.dumps({**vars(found), "members": rows}))
        return
    typer.echo(
        f"{found.num_entries} entries: chain, signatures, end and roles in order"
    )
    typer.echo(f"whole until {found.moment}; pin {found.pin}")
    compared = "the key that was given" if key else "compare it: --key"
    typer.echo(f"signed by {found.key}, {compared}")
    for member in found.members:
        typer.echo(one_line(f"{member.name:20}  {member.role:8}  {member.state}"))


def _desk(server: Path) -> Any:
    """The admin's end of the control channel, to be used in a `with`."""
    from guilder_server.console.control import ControlClient
    from guilder_server.settings import ServerFile, load_console

    settings = load_console(server)
    if isinstance(settings, ServerFile) and settings.enrolment is None:
        raise EnrolmentError(
            "GLD-E065",
            f"{server} has no [enrolment]: its sites are certificates in a folder",
            fix="`guilder server init` without --local-sites makes one that enrols.",
        )
    return ControlClient.from_settings(settings)


def _line(row: dict[str, Any]) -> str:
    days = (row["expires"] - time.time()) / DAY_S
    tail = f"code {row['code']}" if row.get("code") else f"{days:.0f} days left"
    state = "online" if row.get("online") else row["state"]
    if row["role"] == "site" and "online" in row:
        tail = f"{_sighting(row)}  {tail}"
    line = f"{row['name']:20}  {row['role']:8}  {state:20}  {tail}"
    return one_line(line)


def _sighting(row: dict[str, Any]) -> str:
    moment = row.get("last_seen")
    if moment is None:
        return "never seen"
    return time.strftime("seen %Y-%m-%d %H:%M UTC", time.gmtime(moment))


def _entry_line(entry: dict[str, Any]) -> str:
    body = entry["body"]
    by = f"  by {body['by']}" if body.get("by") else ""
    what = body.get("name") or f"{body.get('call', '')} {body.get('about', '')}"
    return one_line(f"{entry['seq']:5}  {body['time']}  {entry['kind']:14} {what}{by}")
