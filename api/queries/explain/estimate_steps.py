"""The step about estimates: price-book rate times the trailing ratio of billed to list cost. (ES-1, ES-2)"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Part, Step
from api.queries.explain import text
from api.queries.explain.text import Figure, amount, amounts, count, meter
from api.queries.gate import WHOLE, published, scan_runs
from api.queries.shares import usage_totals
from ledger import money
from ledger.plurals import counted
from ledger.tables import COSTS, PRICES

_KEYS = ("provider", "model", "region", "meter", "service_tier", "context_above")
_PRICED_AS = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "reasoning_tokens": "output_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}
"""The meter whose price applies to a meter without a price of its own."""
_MAX_ROWS = 200
"""Maximum number of usage rows of a group that are compared with the price book."""


def estimate_step(figure: Figure) -> Step | None:
    """The estimated part of the figure, and the prices it is computed from."""
    groups = text.top_groups(figure.estimated_rows, _KEYS, figure.most, pl.col("usage_key").unique(), pl.col("reason").first())
    if not groups.count:
        return None
    unpriced_rows = [row for row in groups.top if row["cost"] is None]
    sentence = f"{amounts(groups.sum)} of it is estimated: no bill covers these hours yet, so it is list price times the recent ratio of billed to list cost."
    if unpriced_rows:
        sentence += f" {_without_price(len(unpriced_rows))}; it is unpriced, not free."
    usage = _usage(figure, groups.top)
    book = _PriceBook(figure, groups.top)
    return Step(
        step="estimate",
        rule="ES-1, ES-2" if unpriced_rows and groups.sum else "ES-2" if unpriced_rows else "ES-1",
        sentence=sentence if groups.sum else f"{_without_price(groups.count)}: it is unpriced, not free.",
        parts=[_part(row, usage.join(_usage_keys(row), on=["usage_key", "meter"], how="semi"), book) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _without_price(kinds: int) -> str:
    return f"{counted(kinds, 'kind')} of usage {'has' if kinds == 1 else 'have'} no price in the price book"


def _usage_keys(row: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({"usage_key": pl.Series(row["usage_key"], dtype=pl.Int64), "meter": row["meter"]})


def _part(row: dict[str, Any], usage: pl.DataFrame, book: _PriceBook) -> Part:
    name = ", ".join(word for word in (row["model"] or "an unknown model", row["region"], meter(row["meter"])) if word)
    facts = {key: row[key] for key in _KEYS}
    if row["cost"] is None:
        return text.part(f"{name}: no price in the price book", row, **facts, reason=row["reason"])
    list_cost, whole, quantity = (Decimal(str(usage[column].sum())) for column in ("list_cost", "whole", "quantity"))
    if not list_cost or not quantity:
        return text.part(f"{name}: {amount(row['cost'], row['currency'])}", row, **facts)
    ratio = round(money.proportion(Decimal(1), whole, list_cost), 9)
    price = book.row_of(row, usage)
    million = money.proportion(list_cost, Decimal(1_000_000), quantity)
    price_text = (
        f"{money.text(price['rate'])} {row['currency']} each (price of {price['model']} in {price['book']}, valid from {price['valid_from']:%Y-%m-%d})"
        if price
        else f"{amount(million, row['currency'])} a million, on average of several prices,"
    )
    sentence = f"{name}: {count(quantity)} at {price_text} is {amount(list_cost, row['currency'])}"
    if ratio != 1:
        sentence += f", times {money.text(ratio)}, the recent ratio of billed to list cost of this provider"
    if whole != row["cost"]:
        sentence += "; this figure's share of it"
    price_facts = {} if price is None else {f"price_{key}": price[key] for key in _PRICE_FACTS}
    facts |= {"quantity": quantity, "list_cost": list_cost, "list_per_million": million, "ratio": ratio}
    return text.part(f"{sentence}: {amount(row['cost'], row['currency'])}", row, **facts, **price_facts)


_PRICE_FACTS = ("origin", "book", "provider", "model", "meter", "service_tier", "context_above", "region", "rate", "valid_from")


def _usage(figure: Figure, groups: list[dict[str, Any]]) -> pl.DataFrame:
    """The usage rows of the groups: usage_key, meter, hour, quantity, calls, list_cost, and `whole`, their total estimate."""
    keys = pl.Series([key for row in groups for key in row["usage_key"]], dtype=pl.Int64).unique()
    first, last = figure.estimated_rows.select(pl.col("period_start").min(), last=pl.col("period_end").max()).collect().row(0)
    rows = scan_runs(figure.books, COSTS, published(figure.books), WHOLE).filter(
        pl.col("basis") == "estimated", pl.col("usage_key").is_in(keys.implode())
    )
    whole = rows.group_by("usage_key", "meter").agg(whole=pl.col(f"{figure.basis}_cost").sum()).collect()
    return usage_totals(figure.books, keys, first, last).join(whole, on=["usage_key", "meter"]).sort("usage_key", "meter")


class _PriceBook:
    """Rows of the price book that may have priced the groups."""

    def __init__(self, figure: Figure, groups: list[dict[str, Any]]) -> None:
        meters = {name for row in groups for name in _sold_as(row["meter"])}
        scan = figure.books.whole.store.scan(PRICES)
        book_models = scan.select(pl.col("model").unique()).collect()["model"].to_list()
        models = {_normalised(row["model"]) for row in groups if row["model"]}
        self.bare = {name: bare for name in book_models for bare in [_normalised(name)] if any(word in bare for word in models)}
        self.rows = (
            scan.filter(pl.col("meter").is_in(sorted(meters)), pl.col("model").is_in(sorted(self.bare))).collect().to_dicts()
        )

    def row_of(self, group: Mapping[str, Any], usage: pl.DataFrame) -> dict[str, Any] | None:
        """The row that gives these usage rows their list price: its model name matches, and rate times quantity equals the list cost exactly."""
        model, names = _normalised(group["model"] or ""), _sold_as(group["meter"])
        sample = [row for row in usage.head(_MAX_ROWS).iter_rows(named=True) if row["list_cost"] is not None]
        last = max((row["hour"] for row in sample), default=None)
        fitting = [
            price
            for price in self.rows
            if model and last and price["meter"] in names and price["currency"] == group["currency"] and price["valid_from"] <= last
            and model in self.bare[price["model"]]
            and all(abs(price["rate"] * row["quantity"] - row["list_cost"]) <= _ROUNDING * row["calls"] for row in sample)
        ]  # fmt: skip
        return min(
            fitting,
            key=lambda price: (
                names.index(price["meter"]),
                price["service_tier"] != group["service_tier"],
                price["context_above"] != group["context_above"],
                price["region"] not in ("", group["region"]),
                not price["model"].rpartition("/")[2].startswith(f"{(group['region'] or '-')[:2]}."),
                len(price["model"]),
                price["model"],
                -price["valid_from"].timestamp(),
            ),
            default=None,
        )


_ROUNDING = Decimal("1e-12")
"""Largest rounding difference of the list cost of one call."""


def _sold_as(name: str) -> list[str]:
    names = [name]
    while names[-1] in _PRICED_AS:
        names.append(_PRICED_AS[names[-1]])
    return names


def _normalised(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
