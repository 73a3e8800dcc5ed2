"""Usage that is not counted in tokens: pictures, seconds, characters, pages, searches, tool sessions, or the call itself.

Few calls have any, so these are rows, not columns: ``spans.other_usage`` holds them as JSON {meter: quantity}.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import polars as pl

from attribution.pricing.cells import Cell, Cells
from attribution.pricing.rates import Sale
from ledger.money import MONEY, RATE, ZERO, parse, quantize
from ledger.tables import METERS, TOKEN_METERS

ROW = pl.Struct({"meter": pl.String, "quantity": MONEY, "list_cost": MONEY})
"""One meter of a call without a column of its own: quantity used and its list cost; null: unpriced."""

_PAIR = r'"([a-z0-9_.]+)"\s*:\s*"?([-+0-9.eE]+)'
_MAX_QUANTITY = 10**15
_ONCE = {
    "web_searches": "grounded_prompts",
    "web_searches_low": "grounded_prompts",
    "web_searches_high": "grounded_prompts",
    "map_queries": "grounded_map_prompts",
}
"""Tools that some models sell by the search, others once for each prompt that used them."""
_SAME_AS = {
    "input_characters": "input_tokens",
    "input_images": "input_image_tokens",
    "input_audio_seconds": "input_audio_tokens",
    "input_video_seconds": "input_video_tokens",
    "output_characters": "output_tokens",
    "output_images": "output_image_tokens",
    "output_pixels": "output_image_tokens",
    "output_video_seconds": "output_video_tokens",
    "seconds": "output_tokens",
}
"""Units that measure the same usage as tokens do. Input is sold by the unit where the model has a price for it, output by the token."""
_RESULTS, _USUAL_RESULTS = "results", 10
_KEYS = ["__cell", "meter", "results", "tokens_made"]


class _Terms(NamedTuple):
    """How a meter is sold: under which name, at what rate, once a call or by quantity, and instead of which tokens."""

    sold_as: str
    rate: Decimal | None
    once: bool = False
    instead_of: str | None = None


def stated_usage(calls: pl.DataFrame) -> pl.DataFrame:
    """``other_usage`` as rows: `row` (position in `calls`), meter, quantity (MONEY). Unknown meters and invalid quantities are left out.

    >>> stated_usage(pl.DataFrame({"other_usage": [None, '{"web_searches": 2, "seconds": "1.5"}']})).rows()
    [(1, 'web_searches', Decimal('2.000000000000')), (1, 'seconds', Decimal('1.500000000000'))]
    """
    if "other_usage" not in calls.columns or calls["other_usage"].null_count() == calls.height:
        return pl.DataFrame(schema={"row": pl.UInt32, "meter": pl.String, "quantity": MONEY})
    pairs = (
        calls.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), pl.col("other_usage").cast(pl.String))
        .drop_nulls("other_usage")
        .with_columns(pair=pl.col("other_usage").str.extract_all(_PAIR))
        .explode("pair")
        .drop_nulls("pair")
        .select("row", meter=pl.col("pair").str.extract(_PAIR, 1), quantity=parse(pl.col("pair").str.extract(_PAIR, 2)))
    )
    is_other_meter = pl.col("meter").is_in([m for m in METERS if m not in TOKEN_METERS])
    return pairs.filter(is_other_meter & pl.col("quantity").is_between(0, _MAX_QUANTITY)).unique(
        ["row", "meter"], keep="first", maintain_order=True
    )


def other_costs(calls: pl.DataFrame, cell_table: Cells) -> pl.DataFrame:
    """Row, meter, quantity, list_cost (null: unpriced) and `instead_of`, the token meter that this one replaces, if any.

    A model that is sold by the call gets one request a call; one that is sold only by time, its duration.
    """
    rows = pl.concat([stated_usage(calls), *_implied(calls, cell_table)]).unique(
        ["row", "meter"], keep="first", maintain_order=True
    )
    results = rows.filter(pl.col("meter") == _RESULTS).select("row", results=pl.col("quantity").cast(pl.Int64))
    rows = rows.filter(pl.col("meter") != _RESULTS)
    if not rows.height:
        return rows.with_columns(list_cost=pl.lit(None, dtype=MONEY), instead_of=pl.lit(None, dtype=pl.String))
    has_output_tokens = (
        pl.sum_horizontal(pl.col(c).fill_null(0) for c in ("output_tokens", "output_image_tokens") if c in calls.columns) > 0
    )
    about = calls[rows["row"]].select(
        cell_table.cell_of.gather(rows["row"]).alias("__cell"),
        tokens_made=has_output_tokens,
        free=pl.col("cache_hit").fill_null(value=False) if "cache_hit" in calls.columns else pl.lit(value=False),
    )
    rows = rows.hstack(about).join(results, on="row", how="left", maintain_order="left")
    rows = rows.with_columns(
        results=pl.when(pl.col("meter") == "queries").then(pl.col("results").fill_null(_USUAL_RESULTS)).otherwise(0)
    )
    keys = rows.select(_KEYS).unique(maintain_order=True)
    terms = [
        _terms(cell_table.table[cell], meter, results, has_output_tokens)
        for cell, meter, results, has_output_tokens in keys.iter_rows()
    ]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "sold_as": pl.String,
        "rate": RATE,
        "once": pl.Boolean,
        "instead_of": pl.String,
    }
    rows = rows.join(keys.hstack(pl.DataFrame(terms, schema=schema, orient="row")), on=_KEYS, how="left", maintain_order="left")
    rows = rows.with_columns(
        pl.when(pl.col("once") & (pl.col("quantity") > 1)).then(pl.lit(1).cast(MONEY)).otherwise("quantity").alias("quantity")
    )
    rows = rows.with_columns(
        rate=pl.when(pl.col("free") | (pl.col("quantity") == 0)).then(pl.lit(0).cast(RATE)).otherwise("rate")
    )
    return rows.select("row", meter="sold_as", quantity="quantity", list_cost=_times(rows), instead_of="instead_of")


def _terms(cell: Cell, meter: str, results: int, tokens_made: bool) -> _Terms:
    sold_by, sale, tools = cell
    if meter == "queries" and results:
        sale = sale._replace(prompt_above=results - 1)
    rate = sold_by.rate(meter, sale)
    if rate is None and meter in _ONCE and (rate_per_call := sold_by.rate(_ONCE[meter], sale)) is not None:
        return _Terms(_ONCE[meter], rate_per_call, once=True)
    token_meter = next((tokens for unit, tokens in _SAME_AS.items() if meter.startswith(unit)), None)
    if token_meter is None:
        rate = tools.rate(meter, sale) if rate is None else rate
        if rate is None and meter in _ONCE and (rate_per_call := tools.rate(_ONCE[meter], sale)) is not None:
            return _Terms(_ONCE[meter], rate_per_call, once=True)
        return _Terms(meter, rate)
    by_token = _sells_tokens(cell, token_meter, sale)
    if by_token and (rate is None or (tokens_made and not token_meter.startswith("input"))):
        return _Terms(meter, ZERO)
    return _Terms(meter, rate, instead_of=token_meter if rate is not None and token_meter.startswith("input") else None)


def _sells_tokens(cell: Cell, meter: str, sale: Sale) -> bool:
    return bool(cell.sold_by.rate(meter, sale))


def _implied(calls: pl.DataFrame, cell_table: Cells) -> list[pl.DataFrame]:
    """Requests and durations, which no log states since every call has them: only where the model is sold by them."""
    parts = []
    sells_calls = [c.sold_by.sells("requests") for c in cell_table.table]
    if any(sells_calls):
        at = _in_cells(cell_table, sells_calls)
        parts.append(at.select("row", meter=pl.lit("requests"), quantity=pl.lit(1).cast(MONEY)))
    sells_time = [c.sold_by.sells("seconds") and not c.sold_by.sells(*TOKEN_METERS) for c in cell_table.table]
    if any(sells_time) and "end_time" in calls.columns:
        at = _in_cells(cell_table, sells_time)
        durations = calls[at["row"]].select(micros=(pl.col("end_time") - pl.col("start_time")).dt.total_microseconds())
        timed_rows = at.hstack(durations).filter(pl.col("micros") >= 0)
        seconds = (pl.col("micros").cast(pl.Int128) * 1_000_000).reinterpret(dtype=MONEY)
        parts.append(timed_rows.select("row", meter=pl.lit("seconds"), quantity=seconds))
    return parts


def _in_cells(cell_table: Cells, selection: list[bool]) -> pl.DataFrame:
    return pl.Series(selection, dtype=pl.Boolean).gather(cell_table.cell_of).arg_true().cast(pl.UInt32).alias("row").to_frame()


def _times(rows: pl.DataFrame) -> pl.Series:
    """Quantity times rate at twelve decimals, half to even."""
    distinct = rows.select("quantity", "rate").unique().drop_nulls()
    cost = [quantize(q * r) for q, r in distinct.iter_rows()]
    lookup = distinct.with_columns(list_cost=pl.Series(cost, dtype=MONEY))
    return rows.select("quantity", "rate").join(lookup, on=["quantity", "rate"], how="left", maintain_order="left")["list_cost"]


def other_meters(calls: pl.DataFrame) -> pl.DataFrame:
    """Usage of priced calls that is not counted in tokens: a row a call and meter, with the columns of the call and meter, quantity, list_cost.

    `calls` come from `add_list_cost`, whose column ``__other`` has the rows, null for nearly every call.
    """
    other_usage = calls.filter(pl.col("__other").is_not_null())
    return other_usage.drop("list_cost", strict=False).explode("__other").unnest("__other")
