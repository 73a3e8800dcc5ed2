"""Facts that should not be there: taken out again, with an audit row."""

from __future__ import annotations

from typing import Annotated

import typer

from rootcost.terminal.console import Home, open_books, out, say, source_lock, write_lock


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    facts = typer.Typer(no_args_is_help=True, help="Facts: what bills and logs brought.")
    facts.command("retract", epilog="Example: rootcost facts retract otlp --from 2099-12 --to 2100-01 --dry-run")(retract)
    app.add_typer(facts, name="facts")


def retract(
    source: Annotated[str, typer.Argument(help="The source that brought them.", show_default=False)],
    start: Annotated[str, typer.Option("--from", help="First day or month.", show_default=False)],
    end: Annotated[str, typer.Option("--to", help="First day or month that stays.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken out.")] = False,
    home: Home = None,
) -> None:
    """Take out what one source brought of a time: spans by their start, bills by whole invoice months.

    For spans that a wrong clock or a test sent, and bills that are not one's own. The audit trail keeps who did it, and how much it was.
    A file or sender that still holds them brings them back when it is read again.
    """
    from ingest.retraction import retract as retract_facts
    from ledger.errors import UsageError
    from ledger.periods import parse_instant
    from ledger.plurals import counted

    first, last = parse_instant(start, field="--from"), parse_instant(end, field="--to")
    if last <= first:
        raise UsageError("the range is empty", where="--to", remedy="--to is the first day or month that stays")
    with open_books(home) as books, source_lock(books, source), write_lock(books):
        result = retract_facts(books, source, first, last, actor="cli", dry_run=dry_run)
    rows = counted(result.rows, "row")
    if not result.rows:
        say(f"{source} has nothing from {start} to {end}.")
        return
    out(f"{rows} of {result.table} {'would be' if dry_run else 'were'} taken out ({', '.join(result.months)})")
    if result.emptied_months:
        out(f"No longer published, since no fact is left: {', '.join(result.emptied_months)}")
    if not dry_run:
        say("Next: rootcost attribute")
