"""A differing world made small: rows and values that the difference does not need are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.oracle.books import World

_ROWS = ("charges", "spans", "owners", "prices")
_NEEDED = {
    "spans": {
        *("channel", "source", "trace_id", "span_id", "trace_key", "span_key", "start_time", "end_time", "date", "rank"),
        *("usage_scope", "response_model"),
    },
    "charges": {
        *("source", "scope", "raw_id", "billing_month", "final", "billing_currency", "charge_period_start", "charge_period_end"),
        *("billed_cost", "effective_cost", "list_cost", "contracted_cost", "charge_category", "charge_class", "provider_name"),
        *("billing_account_id", "service_name", "sku_meter", "consumed_unit", "consumed_quantity"),
    },
    "owners": {"kind", "name", "agent", "team", "account", "region", "valid_from", "valid_to", "recorded_at"},
}
"""Columns without which a row is none."""


def minimised(world: World, differs: Callable[[World], bool]) -> World:
    """The smallest world that still differs when any one row, and then any one value, is left out."""
    world = _without_rows(world, differs)
    for table, kept_columns in _NEEDED.items():
        for number, row in enumerate(getattr(world, table)):
            for column in sorted(set(row) - kept_columns):
                current = getattr(world, table)[number]
                if current[column] is not None:
                    smaller = _with_row(world, table, number, {**current, column: None})
                    world = smaller if differs(smaller) else world
    return _without_rows(world, differs)


def _without_rows(world: World, differs: Callable[[World], bool]) -> World:
    """Leaves out runs of rows, long ones first, as long as the world still differs."""
    for table in _ROWS:
        rows = list(getattr(world, table))
        length = len(rows)
        while length:
            start = 0
            while start < len(rows):
                fewer = rows[:start] + rows[start + length :]
                if differs(smaller := _with_rows(world, table, fewer)):
                    rows, world = fewer, smaller
                else:
                    start += length
            length //= 2
    return world


def _with_rows(world: World, table: str, rows: Sequence[dict[str, Any]]) -> World:
    changes: dict[str, Any] = {table: rows}
    return replace(world, **changes)


def _with_row(world: World, table: str, number: int, row: dict[str, Any]) -> World:
    rows: Sequence[dict[str, Any]] = getattr(world, table)
    return _with_rows(world, table, [*rows[:number], row, *rows[number + 1 :]])
