"""`rootcost erase`: a person is erased from the ledger; the money stays."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, say

if TYPE_CHECKING:
    from ledger.books import Books
    from ledger.erasure import ErasureReport
    from ledger.identifiers import Identifiers


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Erase a person from the ledger. Without --yes it only says what would be erased."
    )
    group.command("person", epilog="Example: rootcost erase person ann@example.com u-4711 --yes")(person)
    app.add_typer(group, name="erase", epilog="Example: rootcost erase person ann@example.com")


def person(
    identifiers: Annotated[
        list[str],
        typer.Argument(metavar="ID…", help="E-mail addresses, user ids, or other names, as they are stored.", show_default=False),
    ],
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Erase. Without it only the plan is shown.")] = False,
    reason: Annotated[str, typer.Option(help="The reason, for the audit log. Name no person in it.")] = "",
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")] = "text",
    home: Home = None,
) -> None:
    """Erase a person from tables, database, copies and logs; without --yes show what would be erased, and change nothing.

    Each identifier is replaced by a random pseudonym, so that no figure changes; prompts and other attributes of the person's traces go.
    Earlier versions of the tables are removed from the disk. It cannot be undone. Broken off, it goes on when it is repeated.
    """
    from ledger.errors import UsageError
    from ledger.identifiers import Identifiers

    named_person = Identifiers.of(identifiers)
    if named_person.is_in(reason):
        raise UsageError("names the person", where="--reason", remedy="leave the person out: the reason stays in the audit log")
    with open_books(home) as books:
        report = _erase(books, named_person, reason) if is_confirmed else _plan(books, named_person)
    if output == "json":
        out_json(asdict(report))
        return
    if report.is_empty and not report.files.remaining and not report.partitions:
        out("No record names this person.")
        return
    _show(report, is_done=is_confirmed)


def _plan(books: Books, named_person: Identifiers) -> ErasureReport:
    from ledger.erasure import plan_erasure

    return plan_erasure(books, named_person)


def _erase(books: Books, named_person: Identifiers, reason: str) -> ErasureReport:
    from ledger.erasure import erase_person
    from ledger.locks import attribution_lock, backup_lock, write_lock
    from rootcost.service.receivers import SpoolingReceiver

    def tell() -> None:
        say("Waiting for another rootcost process that is writing …")

    with backup_lock(books, on_wait=tell), attribution_lock(books, on_wait=tell), write_lock(books, on_wait=tell):
        spool = SpoolingReceiver(books.home / "spool", books.settings.ingest)
        spool.drain(books.store)
        spool.close()
        return erase_person(books, named_person, actor="cli", reason=reason)


def _show(report: ErasureReport, *, is_done: bool) -> None:
    from ledger import money
    from ledger.plurals import counted

    for table, rows in sorted(report.rows.items()):
        out(f"{table:<22}{counted(rows, 'row')}")
    if report.spans_with_content:
        out(f"{'attributes':<22}{counted(report.spans_with_content, 'span')}: prompts and all else that senders added")
    if report.audit_entries:
        out(f"{'audit log':<22}{counted(report.audit_entries, 'entry', 'entries')}")
    for name in report.files.removed:
        out(f"{'removed copy':<22}{name}")
    for name in report.files.blotted:
        out(f"{'blotted log':<22}{name}")
    cost = f", {money.text(report.list_cost)} at list price" if report.list_cost is not None else ""
    billed_text = "".join(f", {money.text(amount)} {currency} billed" for currency, amount in report.billed_cost.items())
    out(f"The money stays where it is booked: {counted(report.calls, 'call')}{cost}{billed_text}.")
    for name in (*report.partitions, *report.files.remaining):
        say(f"Still names the person, and is yours to change: {name}")
    for address, backup_ids in report.backups.items():
        say(
            f"{counted(len(backup_ids), 'backup')} made to {address} may hold it. After the erasure: rootcost backup {address} --keep 1"
        )
    say("Bills, logs and senders that hold it bring it back when they are read again: erase it there as well.")
    if not is_done:
        say("Nothing was changed. To erase: the same command with --yes")
    elif report.is_purged:
        out("Erased, also from earlier versions on disk.")
    else:
        out("Erased. Earlier versions are still being read; `rootcost serve` removes them from the disk within the hour.")
