"""Figures held against figures: rows in any order, like rows summed, decimals as exact numbers, columns nobody asked for ignored."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path

VIEWS = ("initiator", "executor")
BOTH = "both"
"""In an expectation: one row that must be found in either view."""

Key = tuple[str, ...]
Sums = dict[tuple[Key, bool], tuple[Decimal, ...]]
"""Key, and whether its amounts are known, to the sums: what is unknown is never added to what is known."""


def differences(expected: Mapping[str, Path], out: Path, decimals: int | None = None) -> list[str]:
    """What is wrong with the files in `out`, in lines that can be read; nothing where all is as expected.

    `expected` names expectations: `costs` and `totals` are held against costs.csv, `NAME` against NAME.csv. Sums are rounded to
    `decimals` places first, if that is given, but for `totals`.
    """
    told: list[str] = []
    for name, path in expected.items():
        found = out / ("costs.csv" if name == "totals" else f"{name}.csv")
        if not found.is_file():
            told.append(f"{found.name} was not written")
            continue
        try:
            told += [
                f"{path.name}: {line}" for line in _compared(_rows(path), _rows(found), None if name == "totals" else decimals)
            ]
        except ValueError as fault:
            told.append(f"{found.name}: {fault}")
    return told


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _compared(wanted: Sequence[Mapping[str, str]], given: Sequence[Mapping[str, str]], decimals: int | None) -> list[str]:
    if not wanted:
        raise ValueError("an expectation needs at least one row")
    columns = list(wanted[0])
    amounts = [column for column in columns if column.endswith("cost")]
    keys = [column for column in columns if column not in amounts]
    lacking = [column for column in columns if given and column not in given[0]]
    if lacking:
        raise ValueError(f"lacks the columns {', '.join(lacking)}")
    if not amounts:
        return _in_order(wanted, given, columns)
    spread = [{**row, "view": view} for row in wanted for view in (VIEWS if row.get("view") == BOTH else (row.get("view", ""),))]
    expected, found = _summed(spread, keys, amounts, decimals), _summed(given, keys, amounts, decimals)
    told = []
    for key, known in sorted({**expected, **found}):
        left, right = expected.get((key, known)), found.get((key, known))
        if left != right:
            told.append(f"{_named(keys, key)}: expected {_shown(left, known)}, found {_shown(right, known)}")
    return told + _views_agree(given, amounts)


def _summed(rows: Sequence[Mapping[str, str]], keys: Sequence[str], amounts: Sequence[str], decimals: int | None = None) -> Sums:
    sums: Sums = defaultdict(lambda: (Decimal(0),) * len(amounts))
    with localcontext() as context:
        context.prec = 100
        for row in rows:
            key = tuple(_normal(column, row[column]) for column in keys)
            held = [_number(row[amount]) for amount in amounts]
            known = all(amount is not None for amount in held)
            sums[key, known] = tuple(a + (b or Decimal(0)) for a, b in zip(sums[key, known], held, strict=True))
        if decimals is not None:
            sums |= {key: tuple(round(amount, decimals) for amount in total) for key, total in sums.items()}
    return {key: total for key, total in sums.items() if any(total) or not key[1]}


def _normal(column: str, value: str) -> str:
    """Reasons are a set of words; everything else is compared as it stands."""
    return " ".join(sorted({word.strip() for word in value.split(",")} - {""})) if column == "reason" else (value or "").strip()


def _number(written: str) -> Decimal | None:
    if not written.strip():
        return None
    try:
        return Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written!r} is no decimal number") from None


def _views_agree(given: Sequence[Mapping[str, str]], amounts: Sequence[str]) -> list[str]:
    """Whoever caused it or burned it: it is the same money. (MO-3)"""
    if "view" not in (given[0] if given else {}):
        return []
    totals = {view: _summed([row for row in given if row["view"] == view], ["currency"], amounts) for view in VIEWS}
    return [] if totals[VIEWS[0]] == totals[VIEWS[1]] else ["the two views have different totals"]


def _in_order(wanted: Sequence[Mapping[str, str]], given: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[str]:
    """Rows without amounts are a story: compared one by one, in order."""
    told = []
    for place in range(max(len(wanted), len(given))):
        left = {c: wanted[place][c].strip() for c in columns} if place < len(wanted) else None
        right = {c: (given[place][c] or "").strip() for c in columns} if place < len(given) else None
        if left != right:
            told.append(f"row {place + 1}: expected {left}, found {right}")
    return told


def _named(keys: Sequence[str], key: Key) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True) if value) or "all"


def _shown(amounts: tuple[Decimal, ...] | None, known: bool) -> str:
    if amounts is None:
        return "nothing"
    return " / ".join(f"{amount:f}" for amount in amounts) if known else "an unknown amount"
