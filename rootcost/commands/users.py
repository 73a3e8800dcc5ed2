"""People: who may log in, and what each may see and change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, out_rows, say

if TYPE_CHECKING:
    from ledger.access.users import UserRow
    from ledger.books import Books

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
Name = Annotated[str, typer.Argument(help="Name of the user, from `rootcost users list`.", show_default=False)]
Role = Annotated[
    list[str],
    typer.Option(
        "--role",
        metavar="ROLE[:TEAM]",
        help="A role over the whole or over one team; repeatable. See `rootcost roles`.",
        show_default=False,
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url", help="Where people reach the API. Default: serve.public_url, else where the service runs.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    users = typer.Typer(no_args_is_help=True, help="People: who may log in, and what each may see and change.")
    users.command("add", epilog="Example: rootcost users add ada --role viewer:Care")(users_add)
    users.command("list", epilog="Example: rootcost users list --format json")(users_list)
    users.command("disable", epilog="Example: rootcost users disable ada")(users_disable)
    users.command("enable", epilog="Example: rootcost users enable ada")(users_enable)
    users.command("grant", epilog="Example: rootcost users grant ada --role finance")(users_grant)
    users.command("revoke-grant", epilog="Example: rootcost users revoke-grant ada --role viewer:Care")(users_revoke_grant)
    users.command("link", epilog="Example: rootcost users link ada --url https://gateway.example.com")(users_link)
    users.command("log-out", epilog="Example: rootcost users log-out ada")(users_log_out)
    app.add_typer(users, name="users")


def users_add(
    name: Annotated[str, typer.Argument(help="Name to log in with; an address will do.", show_default=False)],
    role: Role,
    email: Annotated[str, typer.Option(help="Address of the person.")] = "",
    url: Url = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Add a person, and show a link by which a password is chosen: it holds for 15 minutes, once."""
    from ledger.access.links import user_link
    from ledger.access.principals import OPERATOR, Grant
    from ledger.access.users import add_user

    with open_books(home) as books:
        row = add_user(books, name, [Grant.parse(text) for text in role], actor=OPERATOR.id, email=email)
        token, _ = user_link(books, row.name, actor=OPERATOR.id)
        address = _address(books, url, token)
    _show_link(address, output, _shown(row), f"{row.name} chooses a password there")


def users_list(output: Format = "table", home: Home = None) -> None:
    """List the people, disabled ones too."""
    from ledger.access.users import list_users
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = [_shown(row) for row in list_users(books)]
    if output == "json":
        out_rows(rows)
    elif rows:
        columns = ["name", "grants", "state", "issuer", "last_login_at"]
        tables.draw(tables.table(columns, [row | {"grants": ", ".join(row["grants"])} for row in rows]))
    else:
        say("No people yet. Next: rootcost users add NAME --role admin")


def users_disable(name: Name, output: Format = "table", home: Home = None) -> None:
    """Keep a person out. Every log-in of it ends within a second."""
    _set_disabled(name, output, home, is_disabled=True)


def users_enable(name: Name, output: Format = "table", home: Home = None) -> None:
    """Let a disabled person in again."""
    _set_disabled(name, output, home, is_disabled=False)


def users_grant(name: Name, role: Role, output: Format = "table", home: Home = None) -> None:
    """Give a person roles. They count at once."""
    from ledger.access.principals import OPERATOR, Grant
    from ledger.access.users import add_grants

    with open_books(home) as books:
        _show_user(add_grants(books, name, [Grant.parse(text) for text in role], actor=OPERATOR.id), output)


def users_revoke_grant(name: Name, role: Role, output: Format = "table", home: Home = None) -> None:
    """Take roles from a person. They no longer count within a second."""
    from ledger.access.principals import OPERATOR, Grant
    from ledger.access.users import remove_grants

    with open_books(home) as books:
        _show_user(remove_grants(books, name, [Grant.parse(text) for text in role], actor=OPERATOR.id), output)


def users_link(name: Name, url: Url = "", output: Format = "table", home: Home = None) -> None:
    """Show a link by which a person chooses a new password: it holds for 15 minutes, once."""
    from ledger.access.links import user_link
    from ledger.access.principals import OPERATOR

    with open_books(home) as books:
        token, purpose = user_link(books, name, actor=OPERATOR.id)
        address = _address(books, url, token)
    _show_link(address, output, {"purpose": purpose}, f"{name} chooses a password there")


def users_log_out(name: Name, home: Home = None) -> None:
    """End every log-in of a person, within a second."""
    from ledger.access.principals import OPERATOR
    from ledger.access.users import end_user_sessions

    with open_books(home) as books:
        count = end_user_sessions(books, name, actor=OPERATOR.id)
    out(f"{count} log-ins of {name} ended")


def _set_disabled(name: str, output: str, home: Any, *, is_disabled: bool) -> None:
    from ledger.access.principals import OPERATOR
    from ledger.access.users import set_disabled

    with open_books(home) as books:
        _show_user(set_disabled(books, name, is_disabled=is_disabled, actor=OPERATOR.id), output)


def _show_user(row: UserRow, output: str) -> None:
    if output == "json":
        out_json(_shown(row))
    else:
        out(f"{row.name} is {row.state}: {', '.join(map(str, row.grants)) or 'no roles'}")


def _show_link(address: str, output: str, fields: dict[str, Any], purpose: str) -> None:
    if output == "json":
        out_json({"link": address, **fields})
        return
    out(address)
    say(f"{purpose}, within 15 minutes and once. Whoever has the link can use it: hand it over as you would a password.")


def _address(books: Books, url: str, token: str) -> str:
    """Where the link leads: where people reach the API, else where the running service answers, else where one would by the settings."""
    from ledger.locks import served_at

    serve = books.settings.serve
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    origin = url.rstrip("/") or serve.public_url or served_at(books.home) or f"http://{host}:{serve.port}"
    return f"{origin}/setup?token={token}"


def _shown(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row) | {"grants": [str(grant) for grant in row.grants]}
