"""API keys: what programs may see and send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, out_rows, say

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    keys = typer.Typer(no_args_is_help=True, help="API keys: what programs may see and send.")
    keys.command(
        "create",
        epilog="Example: rootcost keys create otel-collector --role ingest; rootcost keys create care-dashboard --role viewer:Care --days 90",
    )(keys_create)
    keys.command("list", epilog="Example: rootcost keys list --format json")(keys_list)
    keys.command("revoke", epilog="Example: rootcost keys revoke 3f9c21ab04de")(keys_revoke)
    app.add_typer(keys, name="keys")


def keys_create(
    name: Annotated[str, typer.Argument(help="What it is for, as lists and the audit log show it.", show_default=False)],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE[:TEAM]",
            help="What it may do, over the whole or over one team; repeatable. See `rootcost roles`.",
            show_default=False,
        ),
    ],
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires; without, it does not.")] = None,
    output: Format = "table",
    home: Home = None,
) -> None:
    """Create an API key and show it, once: only its hash is stored."""
    from datetime import timedelta

    from ledger.access.keys import create_key
    from ledger.access.principals import OPERATOR, Grant
    from ledger.periods import now

    with open_books(home) as books:
        expires_at = now() + timedelta(days=days) if days else None
        row, key = create_key(books, name, [Grant.parse(text) for text in role], actor=OPERATOR.id, expires_at=expires_at)
    if output == "json":
        out_json({"key": key, **_shown(row)})
        return
    out(key)
    say(f"Key {row.key_id} for {row.name}: {', '.join(map(str, row.grants))}. It is not shown again; send it as")
    say("`Authorization: Bearer KEY`.")


def keys_list(output: Format = "table", home: Home = None) -> None:
    """List the API keys, revoked and expired ones too; the keys themselves are stored nowhere."""
    from ledger.access.keys import list_keys
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = [_shown(row) for row in list_keys(books)]
    if output == "json":
        out_rows(rows)
    elif rows:
        columns = ["key_id", "name", "grants", "state", "last_used_at", "expires_at"]
        tables.draw(tables.table(columns, [row | {"grants": ", ".join(row["grants"])} for row in rows]))
    else:
        say("No API keys. Next: rootcost keys create NAME --role ingest")


def keys_revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="Id of the key, from `rootcost keys list`.", show_default=False)
    ],
    home: Home = None,
) -> None:
    """End a key. Running services refuse it within a second."""
    from ledger.access.keys import revoke_key
    from ledger.access.principals import OPERATOR

    with open_books(home) as books:
        row = revoke_key(books, key_id, actor=OPERATOR.id)
    out(f"{row.key_id} ({row.name}) is revoked")


def _shown(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row) | {"grants": [str(grant) for grant in row.grants]}
