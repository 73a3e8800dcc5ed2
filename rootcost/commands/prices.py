"""Price book commands: compare a list, import it, review staged rates, show history and coverage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ledger.plurals import counted
from rootcost.terminal.console import Home, open_books, out, out_rows, say, write_lock, write_table

if TYPE_CHECKING:
    import polars as pl

    from ingest.prices.updates import PriceList, Update
    from ledger.books import Books

Format = Literal["table", "json", "csv"]
Origin = Literal["list", "contract", "observed"]

_File = Annotated[
    Path | None,
    typer.Argument(
        help="A price list: litellm's or genai-prices' JSON, or a CSV with provider, model, meter, unit, rate, currency. "
        "Default: the map of the installed litellm.",
        show_default=False,
    ),
]
_Output = Annotated[Format, typer.Option("--format", help="table, json or csv; rates are per unit in json and csv.")]
_FromDay = Annotated[
    str,
    typer.Option(
        help="Usage from this day on is priced with rates that name no day themselves. Default: now, or always if the book is empty.",
        show_default=False,
    ),
]
_Origin = Annotated[
    Origin,
    typer.Option(
        help="list: public prices; contract: what you negotiated, goes before lists; observed: what --month's bill came to."
    ),
]
_Book = Annotated[str, typer.Option(help="Name of the list; a later edition is compared with it.", show_default=False)]
_From = Annotated[
    Literal["", "gcp"],
    typer.Option(
        "--from", help="gcp: ask Google's Cloud Catalog for its list prices, instead of reading a file.", show_default=False
    ),
]
_Month = Annotated[str, typer.Option(help="Only this month: 2026-10.", show_default=False)]
_Times = Annotated[int, typer.Option("--factor", min=2, help="A rate that moves by more than this factor is doubted.")]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    prices = typer.Typer(no_args_is_help=True, help="The price book that estimates are made with.")
    prices.command("import", epilog="Example: rootcost prices import contract.csv --origin contract --valid-from 2026-10-01")(
        prices_import
    )
    prices.command("diff", epilog="Example: rootcost prices diff model_prices.json --format csv")(prices_diff)
    prices.command("accept", epilog="Example: rootcost prices accept --model gpt-4o")(prices_accept)
    prices.command("reject", epilog="Example: rootcost prices reject")(prices_reject)
    prices.command("history", epilog="Example: rootcost prices history claude-sonnet-4-6 --meter input_tokens")(prices_history)
    prices.command("coverage", epilog="Example: rootcost prices coverage --month 2026-10 --template > missing.csv")(
        prices_coverage
    )
    app.add_typer(prices, name="prices")


def prices_import(
    file: _File = None,
    origin: _Origin = "list",
    valid_from: _FromDay = "",
    book: _Book = "",
    month: Annotated[str, typer.Option(help="With --origin observed: the month whose bill is read.", show_default=False)] = "",
    seller: _From = "",
    accept: Annotated[bool, typer.Option("--accept", "--yes", "-y", help="Take in what looks wrong as well.")] = False,
    factor: _Times = 10,
    output: _Output = "table",
    home: Home = None,
) -> None:
    """Bring prices into the price book, each valid from a date. Earlier prices stay in force for earlier usage.

    Only what differs from the rates in force is added, as dated rows. A rate that looks wrong (ten times the one before, free all at
    once, another currency, a past that is published already) is staged instead: it prices nothing until you accept it, and the exit code
    is 1. Negative rates, unknown units and unknown currencies are refused. The same list twice adds nothing.
    """
    from ingest.prices.updates import apply_update
    from rootcost.terminal import prices as price_tables
    from rootcost.terminal import run_reports

    with open_books(home) as books:
        read_list = _catalog_prices(books, file, origin, book) if seller else _read(books, file, origin, book, month)
        with write_lock(books):
            update = _difference(books, read_list, valid_from, factor)
            result = apply_update(books, update, accept=accept)
    if output == "table":
        out(
            f"{counted(result.added, 'price')} added ({result.changed:,} of them changed), {result.unchanged:,} unchanged; "
            f"{_dates(update)}; {result.book}"
        )
        if result.staged:
            price_tables.changes(
                update.doubtful, title=f"{counted(result.staged, 'price')} staged: {_looks(result.staged)} wrong"
            )
        price_tables.removed_models(update.missing_models)
    else:
        _write(price_tables.change_rows(update.changes, update.missing_models), output)
    run_reports.left_out(result.problems)
    if result.staged:
        say("Nothing is priced with what is staged. Next: rootcost prices accept, or rootcost prices reject")
    elif result.added:
        say("Next: rootcost attribute")
    if result.staged or any(problem.severity == "error" for problem in result.problems):
        raise typer.Exit(1)


def prices_diff(
    file: _File = None,
    origin: _Origin = "list",
    valid_from: _FromDay = "",
    book: _Book = "",
    month: Annotated[str, typer.Option(help="With --origin observed: the month whose bill is read.", show_default=False)] = "",
    seller: _From = "",
    only_staged: Annotated[bool, typer.Option("--staged", help="Show what waits to be accepted instead.")] = False,
    factor: _Times = 10,
    output: _Output = "table",
    home: Home = None,
) -> None:
    """Show what a price list would change against the rates in force, and what of it looks wrong. Changes nothing."""
    from rootcost.terminal import prices as price_tables
    from rootcost.terminal import run_reports

    with open_books(home) as books:
        if only_staged:
            _show_staged(books, output)
            return
        read_list = _catalog_prices(books, file, origin, book) if seller else _read(books, file, origin, book, month)
        update = _difference(books, read_list, valid_from, factor)
    if output != "table":
        _write(price_tables.change_rows(update.changes, update.missing_models), output)
        return
    doubtful = update.doubtful.height
    doubt_text = f"{doubtful:,} of them {'looks' if doubtful == 1 else 'look'} wrong, " if doubtful else ""
    out(
        f"{counted(update.changes.height, 'change')}, {doubt_text}{update.unchanged:,} unchanged; {_dates(update)}; {update.price_list.book}"
    )
    price_tables.changes(update.changes)
    price_tables.removed_models(update.missing_models)
    run_reports.left_out(update.problems)
    if not update.changes.height:
        say("The book says the same already.")
    elif doubtful:
        say("Next: rootcost prices import; what looks wrong is staged until it is accepted")
    else:
        say("Next: rootcost prices import")


_Model = Annotated[str, typer.Option(help="Only rates of this model, as the list names it.", show_default=False)]
_StagedBook = Annotated[str, typer.Option(help="Only rates of this list, or of this file.", show_default=False)]


def prices_accept(model: _Model = "", book: _StagedBook = "", home: Home = None) -> None:
    """Take staged rates into the price book, from the day they were stated for."""
    _decide(home, model, book, accept=True)


def prices_reject(model: _Model = "", book: _StagedBook = "", home: Home = None) -> None:
    """Drop staged rates. The price book stays as it is."""
    _decide(home, model, book, accept=False)


def prices_history(
    model: Annotated[str, typer.Argument(help="The model, as a log or a price list names it.", show_default=False)],
    provider: Annotated[str, typer.Option(help="Only this provider.", show_default=False)] = "",
    meter: Annotated[str, typer.Option(help="Only this meter: input_tokens, …", show_default=False)] = "",
    output: _Output = "table",
    home: Home = None,
) -> None:
    """Show every rate recorded for a model: from when until when, from which list, and when it was learnt."""
    from rootcost.pricebook import history, similar
    from rootcost.terminal import prices as price_tables

    with open_books(home) as books:
        rows = history(books, model, provider=provider, meter=meter)
        suggestions = [] if rows.height else similar(books, model)
    if output != "table":
        _write(price_tables.history_rows(rows), output)
    elif rows.height:
        price_tables.history(rows)
    if not rows.height:
        hint = (
            f"Like it: {', '.join(suggestions)}" if suggestions else "Next: rootcost prices import, or rootcost prices coverage"
        )
        say(f"The price book has no rate for {model!r}{' so narrowed down' if provider or meter else ''}. {hint}")


def prices_coverage(
    month: _Month = "",
    template: Annotated[
        bool, typer.Option("--template", help="Print a CSV of what has no price, to be filled in and imported.")
    ] = False,
    output: _Output = "table",
    home: Home = None,
) -> None:
    """Show what share of the logged calls and tokens has a price, and which models have none.

    Figures are those of the runs in force: attribute again after importing prices.
    """
    from ledger.periods import month_start
    from rootcost.pricebook import coverage
    from rootcost.terminal import prices as price_tables

    if month:
        month_start(month)
    with open_books(home) as books:
        report = coverage(books, [month] if month else [])
    if template:
        from ingest.prices.rate_table import lines

        for line in lines(price_tables.template_rows(report.unpriced)):
            out(line)
        return
    if output != "table":
        _write(report.models.drop("meters"), output)
    elif report.models.height:
        price_tables.coverage(report)
    if not report.models.height:
        say(f"No attributed calls{f' in {month}' if month else ''}. Next: rootcost ingest, then rootcost attribute")
    elif report.unpriced.height:
        say(
            "Next: rootcost prices import a newer list; or rootcost prices coverage --template > missing.csv, fill in the rates, "
            "rootcost prices import missing.csv --origin contract; then rootcost attribute"
        )


def _read(books: Books, file: Path | None, origin: Origin, book: str, month: str) -> PriceList:
    from ledger.errors import UsageError

    if origin != "observed":
        if month:
            raise UsageError("goes with --origin observed", where="--month", remedy="a price list is dated by --valid-from")
        if origin == "contract" and file is None:
            raise UsageError("needs a file", where="--origin contract", remedy="the installed price map is a public list")
        from ingest.prices.books import read_prices
        from rootcost.pricebook import seen_models

        return read_prices(file, origin=origin, book=book, model_names=lambda: seen_models(books))
    if file is not None or not month:
        raise UsageError(
            "observed prices are read off a bill, not off a file",
            where="--origin observed",
            remedy="name the month: --month 2026-10, and no file",
        )
    from attribution.pricing.observed import observed_rates
    from ingest.prices.updates import PriceList

    rates = observed_rates(books, month)
    if not rates.height:
        say(f"The bill of {month} rated no usage, so nothing can be observed. See: rootcost balance --month {month}")
    return PriceList(f"bill {month}", origin, f"bill {month}", rates)


def _catalog_prices(books: Books, file: Path | None, origin: Origin, book: str) -> PriceList:
    """Google's list prices, in the names that logs and other lists have for its models."""
    from attribution.classification.names import ModelNames
    from attribution.classification.skus import Classifier, SkuText
    from ingest.prices.gcp_catalog import SkuMeaning, price_list
    from ledger.errors import UsageError
    from ledger.tables import PRICES
    from rootcost.pricebook import seen_models

    if file is not None or origin != "list" or book:
        raise UsageError("is a public list of its own", where="--from gcp", remedy="leave out the file, --origin and --book")
    known_models = books.store.scan(PRICES).select("model").unique().collect()["model"]
    names, bills = ModelNames(known_models, seen_models(books)), Classifier(books.settings.attribution.skus)

    def spelt(model: str) -> str:
        spelling = names.display(model) or model
        return "-".join(spelling.lower().split())

    def sells(service: str, sku: str, unit: str) -> SkuMeaning:
        sale = bills.sold(SkuText("Google Cloud", service, sku=sku, unit=unit))
        return SkuMeaning(sale.model, sale.meter, sale.service_tier, sale.context_above, sale.factor)

    return price_list(sells, spelt)


def _difference(books: Books, read_list: PriceList, valid_from: str, factor: int) -> Update:
    from rootcost.operations.prices import difference
    from rootcost.terminal.options import fields_as

    with fields_as({"valid_from": "--valid-from"}):
        return difference(books, read_list, valid_from=valid_from, factor=factor)


def _looks(number: int) -> str:
    return "it looks" if number == 1 else "they look"


def _dates(update: Update) -> str:
    """From when on the changes hold, in words."""
    days: list[str] = update.changes["valid_from"].dt.strftime("%Y-%m-%d").unique().sort().to_list()
    if len(days) > 1:
        return f"valid from {counted(len(days), 'date')}, {days[0]} to {days[-1]}"
    return f"valid from {days[0] if days else update.valid_from.strftime('%Y-%m-%d')}"


def _show_staged(books: Books, output: Format) -> None:
    from ingest.prices.updates import staged
    from rootcost.terminal import prices as price_tables

    waiting = staged(books)
    if output != "table":
        _write(price_tables.staged_rows(waiting), output)
    elif waiting.height:
        price_tables.changes(price_tables.staged_rows(waiting))
        say("Next: rootcost prices accept, or rootcost prices reject")
    if not waiting.height:
        say("Nothing is staged.")


def _decide(home: Path | None, model: str, book: str, *, accept: bool) -> None:
    from api.models import StagedSelection
    from api.queries import of_operator
    from rootcost.operations import prices

    with open_books(home) as books:
        decision = prices.decide(of_operator(books), StagedSelection(model=model, book=book), accept=accept)
    if not decision.decided:
        say("Nothing is staged." if not decision.staged else f"None of the {decision.staged:,} staged prices is one of these.")
        return
    waiting_text = f"; {counted(decision.staged, 'price')} still staged" if decision.staged else ""
    out(f"{counted(decision.decided, 'price')} {'accepted' if accept else 'rejected'}{waiting_text}")
    if accept:
        say("Next: rootcost attribute")


def _write(rows: pl.DataFrame, output: Format) -> None:
    if output == "json":
        out_rows(rows.iter_rows(named=True))
    else:
        write_table(rows, "csv", None)
