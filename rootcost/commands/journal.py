"""`rootcost journal`: what a month books to accounts and cost centers, as the file of an ERP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootcost.terminal.console import Home, open_books, say, write_bytes


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(epilog="Example: rootcost journal --month 2026-10 --profile netsuite --out journals")(journal)


def journal(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Invoice month.", show_default=False)],
    profile: Annotated[
        str, typer.Option(help="generic, netsuite, quickbooks, xero, sap or dynamics365.", metavar="NAME")
    ] = "generic",
    accounts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Accounts and cost centers. Default: accounts.toml of the home folder.", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write a file for each journal, and a manifest.", show_default=False),
    ] = None,
    home: Home = None,
) -> None:
    """Write the journal of a month: the actual cost and each adjustment of a closed one, else an accrual and its reversal.

    It always balances, and its cents sum to those of each invoice. A team without a cost center is booked to the suspense account,
    and the exit code is 1.
    """
    from ledger.closing.accounts import FILE_NAME, Accounts
    from rootcost.journals.manifest import journal_manifest
    from rootcost.journals.profiles import Profile
    from rootcost.operations.journals import month_journals

    form = Profile.named(profile)
    with open_books(home) as books:
        codes = Accounts.read(accounts or books.home / FILE_NAME)
        month_entries = month_journals(books, month, codes, max_lines=form.max_lines)
    if folder is None:
        typer.echo(form.csv(month_entries.journals, codes), nl=False)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            f"{entry.number.replace('/', '_')}.csv": form.csv([entry], codes).encode() for entry in month_entries.journals
        }
        manifest = journal_manifest(month, profile, month_entries.journals, contents)
        for name, content in [*contents.items(), ("manifest.json", manifest)]:
            write_bytes(content, folder / name)
    for currency, amount in month_entries.not_billed.items():
        say(f"{amount.normalize():f} {currency} is on no invoice, and in no journal: it is estimated.")
    if month_entries.holes:
        teams = ", ".join(team or "(no team: no_team)" for team in month_entries.holes)
        say(
            f"Booked to the suspense account {codes.suspense}, since they have no cost center: {teams}. Add them to [cost_centers]."
        )
        raise typer.Exit(1)
