"""The price book: its rates, lists that are entered, and rates that wait to be accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from api.models import PriceBook, PriceChange, PricesImported, StagedDecision, StagedSelection
from api.operations import PriceFile
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries.gate import WholeBooks
from api.queries.state import unstored_problem_rows
from ledger.audit import terms_digest
from ledger.locks import write_lock
from ledger.periods import parse_instant
from ledger.tables import PRICES, PRICES_STAGED

if TYPE_CHECKING:
    from ingest.prices.updates import PriceList, Update
    from ledger.books import Books

MAX_CHANGES = 1000
"""Changes that the result of an import lists one by one."""


def rates(books: WholeBooks, model: str, *, provider: str, meter: str) -> pl.DataFrame:
    """Every recorded rate, of a model or of all; `until` and `in_force` say when it applies."""
    from rootcost.pricebook import history

    return history(books.whole, model, provider=provider, meter=meter)


def price_book(books: WholeBooks) -> PriceBook:
    """The version of the price book, and how many rates it has."""
    recorded_count = books.whole.store.scan(PRICES).select(pl.len()).collect().item()
    return PriceBook(version=_version(books), rates=recorded_count, staged=staged(books).height)


def _version(books: WholeBooks) -> str:
    store = books.whole.store
    return terms_digest({table.name: store.fingerprint(table) for table in (PRICES, PRICES_STAGED)})


def _require(books: WholeBooks, precondition: Precondition) -> None:
    """Raises `RevisionError` unless the price book is the expected one. The caller holds the lock for writing, if something is written."""
    if not precondition.holds(_version(books)):
        expected_versions = sorted(precondition.versions - {""})
        raise RevisionError(
            "the price book",
            expected_version={"version": expected_versions[0]} if expected_versions else None,
            current_version=price_book(books).model_dump(),
        )


def difference(books: Books, price_list: PriceList, *, valid_from: str, factor: int) -> Update:
    """What a list changes against the price book. Raises `UsageError` for a day that is none."""
    from ingest.prices.updates import compare

    since = parse_instant(valid_from, field="valid_from") if valid_from else None
    return compare(books, price_list, valid_from=since, max_factor=factor)


def import_list(
    books: WholeBooks, file: PriceFile, precondition: Precondition = NOTHING_EXPECTED, *, accept: bool, preview: bool
) -> PricesImported:
    """Enters a price list: what looks wrong is staged, unless it is accepted. With `preview` nothing is written.

    Raises `RevisionError` if the price book is not the expected one.
    """
    from ingest.prices.books import parse_prices
    from ingest.prices.updates import apply_update
    from rootcost.pricebook import seen_models

    price_list = parse_prices(
        file.content, uri=file.name, origin=file.origin, book=file.book, model_names=lambda: seen_models(books.whole)
    )
    with write_lock(books.whole):
        _require(books, precondition)
        update = difference(books.whole, price_list, valid_from=file.valid_from, factor=file.factor)
        if not preview:
            apply_update(books.whole, update, accept=accept, actor=books.principal.id)
        version = _version(books)
    plausible_or_accepted = pl.lit(accept) | (pl.col("doubt") == "")
    new_rates = update.changes.filter(plausible_or_accepted)
    doubtful_first = update.changes.sort(pl.col("doubt") == "", maintain_order=True).head(MAX_CHANGES)
    return PricesImported(
        version=version,
        preview=preview,
        book=price_list.book,
        read=update.rates_read,
        added=new_rates.height,
        changed=new_rates.filter(pl.col("change") != "new").height,
        staged=update.changes.height - new_rates.height,
        unchanged=update.unchanged,
        missing_models=update.missing_models.height,
        changes=[PriceChange.model_validate(row) for row in doubtful_first.iter_rows(named=True)],
        problems=unstored_problem_rows(list(update.problems)),
    )


def staged(books: WholeBooks) -> pl.DataFrame:
    """Rates that wait to be accepted."""
    from ingest.prices.updates import staged as staged_rates

    return staged_rates(books.whole)


def decide(
    books: WholeBooks, selection: StagedSelection, precondition: Precondition = NOTHING_EXPECTED, *, accept: bool
) -> StagedDecision:
    """Takes staged rates into the price book, from the day they were stated for, or drops them. Raises `RevisionError` as `import_list` does."""
    from ingest.prices.updates import decide as decide_rates

    with write_lock(books.whole):
        _require(books, precondition)
        waiting = staged(books)
        chosen = waiting
        if selection.model:
            chosen = chosen.filter(pl.col("model") == selection.model)
        if selection.book:
            list_name = pl.col("book").str.split(" ").list.first()
            is_of_book = (pl.col("book") == selection.book) | (list_name == selection.book) | (pl.col("uri") == selection.book)
            chosen = chosen.filter(is_of_book)
        decided_count = decide_rates(books.whole, chosen, accept=accept, actor=books.principal.id) if chosen.height else 0
        version = _version(books)
    return StagedDecision(decided=decided_count, staged=waiting.height - chosen.height, version=version)
