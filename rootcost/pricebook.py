"""The price book is never empty when it is needed: without prices, usage that no bill covers yet would be unpriced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.prices import ImportPrices
    from ledger.books import Books


def at_hand(books: Books) -> ImportPrices | None:
    """Brings the installed price map into an empty price book; None where there are prices already. They hold from 1970 on."""
    from ledger.tables import PRICES

    if books.store.version(PRICES) is not None:
        return None
    from ingest import prices
    from ledger import problems

    done = prices.import_prices(books, prices.read_litellm_map())
    problems.renew(books.store, "prices", {done.book, *(problem.uri for problem in done.problems)}, done.problems)
    return done
