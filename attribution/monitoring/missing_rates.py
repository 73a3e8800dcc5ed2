"""Missing exchange rates: currencies of costs without a rate into the reporting currency. (RA-7)"""

from __future__ import annotations

import polars as pl

from ledger.exchange_rates import Exchange, missing_rates
from ledger.problems import Problem

SOURCE = "attribution"


def missing_exchange_rates(days: pl.DataFrame, target: str, book: Exchange, *, uri: str) -> list[Problem]:
    """One problem for each currency that has days without a rate into `target`; none where no target is set.

    `days` has how many `rows` of costs fall on each `day`, by `currency`.
    """
    if not target:
        return []
    day_counts = days.rename({"rows": "len"})
    return [
        Problem(
            SOURCE,
            uri,
            f"{currency} into {target}",
            "currency",
            f"no_exchange_rate: none is known for {first}" + (f" and {number - 1:,} other days" if number > 1 else ""),
            "import rates with `rootcost exchange import`; until then these costs stand in their own currency only",
            rows=int(day_counts.filter(pl.col("currency") == currency)["len"].sum()),
            severity="warning",
        )
        for currency, first, number in missing_rates(day_counts, target, book)
    ]
