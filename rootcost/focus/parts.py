"""The parts of a month's charges: who gets how much of each, by the charge groups that allocated cost names.

    month_parts(books, month, run_id, query) -> DataFrame    a row for each charge and recipient

A charge group holds charges that no rule tells apart, so each recipient of the group has a part of each of its charges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import polars as pl

from ledger.books import Books
from ledger.charge_groups import CHARGE_GROUP_KEY, with_group_key
from ledger.errors import RootCostError
from ledger.money import MONEY, SCALE
from ledger.tables import CHARGES, COST_COLUMNS, COSTS, LOTS
from rootcost.focus.split import ratios, split

Grain = Literal["agent", "team"]
View = Literal["initiator", "executor"]
QUANTITIES: Final = ("pricing_quantity", "consumed_quantity")
METRICS: Final = (*COST_COLUMNS, *QUANTITIES)
RECIPIENT: Final = ("cost_class", "team", "agent", "rule")
RATIO_PLACES: Final = 12
_UNIT: Final = Decimal(1).scaleb(-SCALE)


@dataclass(frozen=True, slots=True)
class PartsQuery:
    """Whose parts: by agent or by team, of who started the work or of who did it."""

    grain: Grain = "agent"
    view: View = "initiator"


def month_parts(books: Books, month: str, run_id: str, query: PartsQuery) -> pl.DataFrame:
    """The columns of `charges`, with `METRICS` of the part, then `RECIPIENT` and `ratio`; ordered by charge, then recipient.

    Raises `RootCostError` if the charges are no longer those that the run allocated.
    """
    charges, recipients = _charges(books, month, run_id), _recipients(books, month, run_id, query)
    block_of = _blocks(recipients)
    recipients = _grouped(recipients, block_of)
    charges = charges.with_columns(block=pl.col("lot_id").replace_strict(block_of, default=None, return_dtype=pl.Int64))
    if charges["block"].null_count():
        raise _changed(month, f"{charges['block'].null_count():,} charges have no allocated cost")
    by_block = {block: rows for (block,), rows in recipients.group_by("block", maintain_order=True)}
    pieces: defaultdict[str, list[Any]] = defaultdict(list)
    for (block,), rows in charges.select("block", "row", *METRICS).group_by("block", maintain_order=True):
        shares = by_block.pop(block, None)
        if shares is None:
            raise _changed(month, "a charge group has no allocated cost")
        _split_block(rows, shares, pieces, month)
    if by_block:
        raise _changed(month, f"{len(by_block):,} charge groups have no charges")
    schema: dict[str, Any] = {
        "row": pl.UInt32,
        **dict.fromkeys(RECIPIENT, pl.String),
        **dict.fromkeys(METRICS, MONEY),
        "ratio": pl.Decimal(38, RATIO_PLACES),
    }
    parts = pl.DataFrame({name: pl.Series(name, pieces[name], dtype=dtype) for name, dtype in schema.items()})
    origin = charges.drop("block", "lot_id", *METRICS)
    return (
        parts.join(origin, on="row", how="left", maintain_order="left")
        .sort("charge_id", "row", *RECIPIENT, nulls_last=True)
        .drop("row")
    )


def _charges(books: Books, month: str, run_id: str) -> pl.DataFrame:
    """The charges of the month with the number of their group, and `row`."""
    charges = books.store.scan(CHARGES, {"billing_month": [month]}).collect().sort("scope", "charge_id").with_row_index("row")
    groups = books.store.scan(LOTS, {"month": [month], "run_id": [run_id]}).select("lot_id", *CHARGE_GROUP_KEY).collect()
    key_rows = with_group_key(charges.lazy()).select("row", *CHARGE_GROUP_KEY).collect()
    numbers = key_rows.join(groups, on=list(CHARGE_GROUP_KEY), how="left", nulls_equal=True).select("row", "lot_id")
    if numbers["lot_id"].null_count() or numbers.height != charges.height:
        raise _changed(
            month, f"{numbers['lot_id'].null_count():,} of {charges.height:,} charges are in no charge group of the run"
        )
    return charges.join(numbers, on="row", maintain_order="left")


def _recipients(books: Books, month: str, run_id: str, query: PartsQuery) -> pl.DataFrame:
    """Billed cost by charge groups and recipient."""
    agent = pl.col(f"{query.view}_agent") if query.grain == "agent" else pl.lit(None, pl.String)
    lots = pl.when(pl.col("lot_ids").is_not_null()).then("lot_ids").otherwise(pl.concat_list("lot_id"))
    return (
        books.store.scan(COSTS, {"month": [month], "run_id": [run_id]})
        .filter(pl.col("basis") == "billed")
        .select(
            "cost_class",
            *COST_COLUMNS,
            team=f"{query.view}_team",
            agent=agent,
            rule=pl.when(pl.col("cost_class") == "shared").then("rule"),
            lots=lots,
        )
        .group_by("lots", *RECIPIENT)
        .agg(pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).alias(name) for name in COST_COLUMNS)
        .collect()
    )


def _blocks(recipients: pl.DataFrame) -> dict[int, int]:
    """For each charge group the smallest number of those that it is summed with in some row of cost."""
    parents: dict[int, int] = {}

    def root(lot: int) -> int:
        while parents[lot] != lot:
            parents[lot] = parents[parents[lot]]
            lot = parents[lot]
        return lot

    for lots in recipients["lots"].unique().to_list():
        for lot in lots:
            parents.setdefault(lot, lot)
        for lot in lots[1:]:
            one, other = root(lots[0]), root(lot)
            parents[max(one, other)] = min(one, other)
    return {lot: root(lot) for lot in parents}


def _grouped(recipients: pl.DataFrame, block_of: Mapping[int, int]) -> pl.DataFrame:
    block = pl.col("lots").list.first().replace_strict(block_of, default=None, return_dtype=pl.Int64)
    sums = [pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).alias(name) for name in COST_COLUMNS]
    return recipients.group_by(block.alias("block"), *RECIPIENT).agg(sums).sort("block", *RECIPIENT, nulls_last=True)


def _split_block(charges: pl.DataFrame, recipients: pl.DataFrame, pieces: defaultdict[str, list[Any]], month: str) -> None:
    """Adds the parts of the charges of one block."""
    amounts = {name: _units(charges[name]) for name in METRICS}
    own = {name: _units(recipients[name]) for name in COST_COLUMNS}
    for name in COST_COLUMNS:
        if None not in amounts[name] and sum(amounts[name]) != sum(share or 0 for share in own[name]):  # type: ignore[arg-type]
            raise _changed(month, f"{name} of a charge group differs from what was allocated of it")
    leading = next(
        (own[name] for name in ("effective_cost", "billed_cost", *COST_COLUMNS) if any(own[name])), [0] * recipients.height
    )
    weights = [share or 0 for share in leading]
    shares = ratios(weights, RATIO_PLACES)
    cells: dict[str, list[list[int | None]]] = {}
    for name in METRICS:
        own_weights = own.get(name)
        is_own = own_weights is not None and sum(share or 0 for share in own_weights) != 0
        split_by = [share or 0 for share in own_weights or ()] if is_own else [abs(weight) for weight in weights]
        split_amounts = [amount or 0 for amount in amounts[name]]
        cells[name] = [
            [None] * len(row) if amount is None else list(row)
            for row, amount in zip(split(split_amounts, split_by), amounts[name], strict=True)
        ]
    recipient_rows = recipients.select(RECIPIENT).rows()
    for place, row in enumerate(charges["row"].to_list()):
        for column, recipient in enumerate(recipient_rows):
            if not shares[column] and not any(cells[name][place][column] for name in METRICS):
                continue
            pieces["row"].append(row)
            pieces["ratio"].append(Decimal(shares[column]).scaleb(-RATIO_PLACES))
            for name, value in zip(RECIPIENT, recipient, strict=True):
                pieces[name].append(value)
            for name in METRICS:
                units = cells[name][place][column]
                pieces[name].append(None if units is None else units * _UNIT)


def _units(amounts: pl.Series) -> Sequence[int | None]:
    return [None if amount is None else int(Decimal(amount).scaleb(SCALE)) for amount in amounts.to_list()]


def _changed(month: str, finding: str) -> RootCostError:
    return RootCostError(
        f"the charges are not those that the run of {month} allocated: {finding}",
        where=month,
        remedy="rootcost attribute, and export again",
    )
