"""`rootcost audit`: who changed what, who was denied, and whether the log is as it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, out_rows, say

if TYPE_CHECKING:
    from ledger.audit import Head

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    audit = typer.Typer(no_args_is_help=True, help="The audit log: a chain of every change and denial.")
    audit.command("list", epilog="Example: rootcost audit list --action budget.change --from 2026-10 --format json")(audit_list)
    audit.command("verify", epilog="Example: rootcost audit verify --format json")(audit_verify)
    audit.command("head", epilog="Example: rootcost audit head >> heads.txt")(audit_head)
    audit.command("erase", epilog="Example: rootcost audit erase ann@example.com")(audit_erase)
    app.add_typer(audit, name="audit")


def audit_list(
    start: Annotated[str | None, typer.Option("--from", help="First day or month.", show_default=False)] = None,
    end: Annotated[str | None, typer.Option("--to", help="First day or month left out.", show_default=False)] = None,
    actor: Annotated[str | None, typer.Option(help="Only of this actor.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(help="Only this action.", show_default=False)] = None,
    object_name: Annotated[str | None, typer.Option("--object", help="Only about this object.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of entries.")] = 100,
    output: Format = "table",
    home: Home = None,
) -> None:
    """List the entries of the audit log, newest first."""
    from api.queries import AuditQuery, audit_entries, of_operator

    conditions = {"actor": actor, "action": action, "subject": object_name}
    with open_books(home) as books:
        query = AuditQuery.parse(start=start, end=end, timezone=books.settings.report.timezone, **conditions)
        page = audit_entries(of_operator(books), query).page(limit=limit)
    if output == "json":
        out_rows(row.model_dump() for row in page.rows)
        return
    for row in page.rows:
        people = "".join(f" {name}={value or '(erased)'}" for name, value in row.personal.items())
        out(f"{row.sequence:>6} {row.at:%Y-%m-%d %H:%M:%S} {row.actor} {row.action} {row.object}{people}")
    if page.total > len(page.rows):
        say(f"{page.total - len(page.rows):,} more: --limit, --from, --to")


def audit_verify(
    head: Annotated[
        list[str] | None, typer.Option("--head", help="A head that was kept elsewhere, SEQUENCE:HASH.", show_default=False)
    ] = None,
    output: Format = "table",
    home: Home = None,
) -> None:
    """Check that the audit log is the chain that was written: every entry that was edited, removed or moved is named.

    A log whose end was cut off or written anew shows only against a head that was kept elsewhere: give it with --head, or set
    `audit.heads_uri`. Exit code 1 if something is damaged.
    """
    from ledger.audit_heads import kept_heads, parse_head
    from ledger.audit_verify import verify_audit
    from ledger.plurals import counted

    given_heads = [parse_head(text) for text in head or ()]
    with open_books(home) as books:
        heads = [*given_heads, *kept_heads(books)]
        report = verify_audit(books.database, heads)
    if output == "json":
        damages = [{"first": d.first, "last": d.last, "reason": d.reason} for d in report.damages]
        counts = {"entries": report.entries, "verified": report.verified, "first_bad": report.first_bad}
        out_json({**counts, "head": _text(report.head), "heads_compared": len(heads), "damages": damages})
    else:
        is_compared = (
            f"compared with {counted(len(heads), 'head')} kept elsewhere" if heads else "no head kept elsewhere was given"
        )
        out(f"{report.entries:,} entries, {report.verified:,} as they were written; {is_compared}")
        for damage in report.damages:
            say(f"{damage.place} {damage.reason}")
        out("✗ the log is damaged" if report.damages else f"✓ one chain; its head is {_text(report.head)}")
    if report.damages:
        raise typer.Exit(1)


def audit_head(output: Format = "table", home: Home = None) -> None:
    """Print the head of the audit log, to be kept where nobody who can write to the ledger can; write it to `audit.heads_uri` if that is set."""
    from ledger.audit_heads import keep_head
    from ledger.audit_verify import read_head

    with open_books(home) as books:
        with books.database.session() as session:
            head = read_head(session)
        kept_head = keep_head(books)
        uri = books.settings.audit.heads_uri
    if kept_head is not None:
        say(f"Written to {uri}")
    if output == "json":
        out_json({"sequence": head.sequence, "hash": head.hash})
    else:
        out(_text(head))


def audit_erase(
    value: Annotated[str, typer.Argument(help="The name or address, exactly as it is listed.", show_default=False)],
    home: Home = None,
) -> None:
    """Erase a name or an address of a person from the audit log. The chain stays as it is; what was done is an entry without the value."""
    from ledger.audit import erase

    with open_books(home) as books, books.database.session() as session:
        count = erase(session, "cli", value)
    out(f"Erased in {count:,} entries" if count else "No entry has it.")


def _text(head: Head) -> str:
    return f"{head.sequence}:{head.hash}"
