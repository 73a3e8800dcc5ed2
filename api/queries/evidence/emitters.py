"""Emitters and how they count: calls, tokens and money by emitter, version, provider and model, and what agrees with our reading. (CA-5, CA-6)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from api.queries.gate import WHOLE, WholeBooks, scan_rollups
from ledger.money import MONEY
from ledger.published import PublishedMonth
from ledger.tables import COUNT_EVIDENCE

EMITTER_KEYS = ("emitter", "emitter_version", "source", "provider", "model")
_CALLS = (
    "calls",
    "tokens",
    "table_calls",
    "assumed_calls",
    "contradicted_calls",
    "total_calls",
    "agreeing_total_calls",
    "compared_calls",
    "echo_spans",
    "wrapper_spans",
    "wrapper_excess_spans",
)
_MONEY = (
    "list_cost",
    "assumed_cost",
    "contradicted_cost",
    "compared_cost",
    "echo_cost",
    "wrapper_cost",
    "wrapper_excess_cost",
)
EMITTER_COLUMNS = (*EMITTER_KEYS, *_CALLS, *_MONEY, "reported_cost")


def emitters(books: WholeBooks, months: Sequence[PublishedMonth]) -> pl.DataFrame:
    """A row for each emitter, version, source, provider and model whose calls started in these months (UTC), dearest first.

    Money is at list prices of the price book, null where no call is priced. `tokens` and the totals are null in months that an older version
    of RootCost attributed.
    """
    rows = scan_rollups(books, COUNT_EVIDENCE, months, WHOLE)
    sums = rows.group_by(EMITTER_KEYS).agg(
        *(pl.when(pl.col(c).count() > 0).then(pl.col(c).sum()).alias(c) for c in _CALLS),
        *(pl.when(pl.col(c).count() > 0).then(pl.col(c).sum().cast(MONEY)).alias(c) for c in (*_MONEY, "reported_cost")),
    )
    order = ["list_cost", "calls", *EMITTER_KEYS]
    descending = [True, True, *(False for _ in EMITTER_KEYS)]
    return sums.select(EMITTER_COLUMNS).sort(order, descending=descending, nulls_last=True).collect()
