"""`rootcost erase`: a person, or the facts of a period, are erased from the ledger; the money stays."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, say

if TYPE_CHECKING:
    from attribution.removal import RemovalReport
    from ledger.books import Books
    from ledger.erasure import ErasureReport
    from ledger.store import Store

_Confirmed = Annotated[bool, typer.Option("--yes", help="Erase. Without it only the plan is shown.")]
_Reason = Annotated[str, typer.Option(help="The reason, for the audit log. Name no person in it.")]
_Output = Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Erase a person, or the facts of a period. Without --yes it only says what would be erased."
    )
    group.command("person", epilog="Example: rootcost erase person ann@example.com u-4711 --yes")(person)
    group.command("period", epilog="Example: rootcost erase period --from 2025-08 --to 2025-09 --source otlp --yes")(period)
    app.add_typer(group, name="erase", epilog="Example: rootcost erase person ann@example.com")


def person(
    identifiers: Annotated[
        list[str],
        typer.Argument(metavar="ID…", help="E-mail addresses, user ids, or other names, as they are stored.", show_default=False),
    ],
    is_confirmed: _Confirmed = False,
    reason: _Reason = "",
    output: _Output = "text",
    home: Home = None,
) -> None:
    """Erase a person from tables, database, copies and logs; without --yes show what would be erased, and change nothing.

    Each identifier is replaced by a random pseudonym, so that no figure changes; prompts and other attributes of the person's traces go.
    Earlier versions of the tables are removed from the disk. It cannot be undone. Broken off, it goes on when it is repeated.
    """
    from ledger.erasure import erase_person, plan_erasure
    from rootcost.operations.erasures import named_person, undisturbed

    person_names = named_person(identifiers, reason)
    with open_books(home) as books:
        if is_confirmed:
            with undisturbed(books, partial(_drain, books), on_wait=_tell_of_waiting):
                report = erase_person(books, person_names, actor="cli", reason=reason)
        else:
            report = plan_erasure(books, person_names)
    if output == "json":
        out_json(asdict(report))
        return
    if report.is_empty and not report.files.remaining and not report.partitions:
        out("No record names this person.")
        return
    _show(report, is_done=is_confirmed)


def period(
    start: Annotated[str, typer.Option("--from", help="First day or month.", show_default=False)],
    end: Annotated[str, typer.Option("--to", help="First day or month that stays.", show_default=False)],
    source: Annotated[
        list[str] | None, typer.Option(help="Only facts of this source; may be repeated. Default: of all.", show_default=False)
    ] = None,
    is_confirmed: _Confirmed = False,
    reason: _Reason = "",
    output: _Output = "text",
    home: Home = None,
) -> None:
    """Erase the facts of a period: spans with their calls and chains by their start, bills by whole invoice months. Without --yes show what would go.

    The costs of its months stay as they are published, to the last digit, and are never computed again. Earlier versions of the tables are
    removed from the disk. It cannot be undone. Broken off, it goes on when it is repeated, or with the next maintenance.
    """
    from attribution.removal import erase_period, plan_erasure
    from ledger.backup import addresses_in_use
    from ledger.locks import attribution_lock
    from rootcost.operations.erasures import period_of, undisturbed

    erased_period = period_of(start, end, source or ())
    with open_books(home) as books:
        if is_confirmed:
            with undisturbed(books, partial(_drain, books), on_wait=_tell_of_waiting):
                report = erase_period(books, erased_period, actor="cli", reason=reason)
        else:
            with attribution_lock(books, on_wait=_tell_of_waiting):
                report = plan_erasure(books, erased_period)
        backups = addresses_in_use(books)
    if output == "json":
        out_json(asdict(report) | {"backups": backups})
    elif report.is_empty:
        out("There are no such facts, or other months are computed from them all." if report.kept else "There are no such facts.")
        _show_kept(report.kept)
    else:
        _show_period(report, backups, is_done=is_confirmed)


def _drain(books: Books, store: Store) -> None:
    from rootcost.service.receivers import SpoolingReceiver

    spool = SpoolingReceiver(books.home / "spool", books.settings.ingest)
    spool.drain(store)
    spool.close()


def _tell_of_waiting() -> None:
    say("Waiting for another rootcost process that is writing …")


def _show_period(report: RemovalReport, backups: dict[str, list[str]], *, is_done: bool) -> None:
    from ledger.plurals import counted

    for table, rows in sorted(report.rows.items()):
        out(f"{table:<22}{counted(rows, 'row')}")
    for name in report.files:
        out(f"{'removed copy':<22}{name}")
    if report.settled:
        out(f"The costs of {', '.join(report.settled)} stay as they are published, and are not computed again.")
    _show_kept(report.kept)
    _show_backups(backups)
    say("Bills, logs and senders that hold the facts bring them back when they are read again; then they are in no cost.")
    _show_state(is_done=is_done, is_purged=report.is_purged)


def _show_kept(kept_facts: dict[str, str]) -> None:
    for place, month in kept_facts.items():
        say(f"Facts of {place} stay: the costs of {month} are still being computed from them. Erase them when {month} is over.")


def _show_backups(backups: dict[str, list[str]]) -> None:
    from ledger.plurals import counted

    for address, backup_ids in backups.items():
        say(
            f"{counted(len(backup_ids), 'backup')} made to {address} may hold it. After the erasure: rootcost backup {address} --keep 1"
        )


def _show_state(*, is_done: bool, is_purged: bool) -> None:
    if not is_done:
        say("Nothing was changed. To erase: the same command with --yes")
    elif is_purged:
        out("Erased, also from earlier versions on disk.")
    else:
        out("Erased. Earlier versions are still being read; `rootcost serve` removes them from the disk within the hour.")


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
    _show_backups(report.backups)
    say("Bills, logs and senders that hold it bring it back when they are read again: erase it there as well.")
    _show_state(is_done=is_done, is_purged=report.is_purged)
