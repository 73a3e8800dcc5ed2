"""The table of roles, and which roles the groups of a provider have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, out_rows, say

if TYPE_CHECKING:
    from ledger.access.group_roles import GroupRow

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
Provider = Annotated[str, typer.Argument(help="Name of the provider, from access.providers.", show_default=False)]
Group = Annotated[str, typer.Argument(help="The group, as the provider sends it; for Entra its object id.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    roles = typer.Typer(
        invoke_without_command=True, help="Roles: what each may see and change, and which groups of a provider have them."
    )
    roles.callback(epilog="Example: rootcost roles --format json")(roles_list)
    mapping = typer.Typer(no_args_is_help=True, help="Roles of the groups of a provider of OpenID Connect.")
    mapping.command("add", epilog="Example: rootcost roles map add company finops --role finance")(map_add)
    mapping.command("list", epilog="Example: rootcost roles map list --format json")(map_list)
    mapping.command("remove", epilog="Example: rootcost roles map remove company finops")(map_remove)
    roles.add_typer(mapping, name="map")
    app.add_typer(roles, name="roles")


def roles_list(context: typer.Context, output: Format = "table") -> None:
    """List the roles, and what each may see and change. A role over a team (ROLE:TEAM) reaches that team's rows."""
    from ledger.access.roles import DESCRIPTIONS, ROLES
    from rootcost.terminal import tables

    if context.invoked_subcommand is not None:
        return
    rows = [
        {"role": role, "description": DESCRIPTIONS[role], "permissions": sorted(permission.value for permission in permissions)}
        for role, permissions in ROLES.items()
    ]
    if output == "json":
        out_rows(rows)
    else:
        shown_rows = [row | {"permissions": ", ".join(row["permissions"])} for row in rows]
        tables.draw(tables.table(["role", "description", "permissions"], shown_rows))


def map_add(
    provider: Provider,
    group: Group,
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE[:TEAM]",
            help="A role over the whole or over one team; repeatable. See `rootcost roles`.",
            show_default=False,
        ),
    ],
    output: Format = "table",
    home: Home = None,
) -> None:
    """Give the people of a group roles. They count at once for who is logged in."""
    from ledger.access.group_roles import map_group
    from ledger.access.principals import OPERATOR, Grant

    with open_books(home) as books:
        _show(map_group(books, provider, group, [Grant.parse(text) for text in role], actor=OPERATOR.id), output)


def map_list(output: Format = "table", home: Home = None) -> None:
    """List the groups that have roles."""
    from ledger.access.group_roles import list_groups
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = [_shown(row) for row in list_groups(books)]
    if output == "json":
        out_rows(rows)
    elif rows:
        shown_rows = [row | {"grants": ", ".join(row["grants"])} for row in rows]
        tables.draw(tables.table(["provider", "group", "grants"], shown_rows))
    else:
        say("No group has roles. Next: rootcost roles map add PROVIDER GROUP --role viewer")


def map_remove(
    provider: Provider,
    group: Group,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", metavar="ROLE[:TEAM]", help="A role to take; repeatable. Without, all of them.", show_default=False
        ),
    ] = None,
    output: Format = "table",
    home: Home = None,
) -> None:
    """Take roles from the people of a group. They no longer count within a second."""
    from ledger.access.group_roles import unmap_group
    from ledger.access.principals import OPERATOR, Grant

    with open_books(home) as books:
        _show(unmap_group(books, provider, group, [Grant.parse(text) for text in role or []], actor=OPERATOR.id), output)


def _show(row: GroupRow, output: str) -> None:
    if output == "json":
        out_json(_shown(row))
    else:
        out(f"{row.group} of {row.provider}: {', '.join(map(str, row.grants)) or 'no roles'}")


def _shown(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row) | {"grants": [str(grant) for grant in row.grants]}
