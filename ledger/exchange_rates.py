"""Exchange rates: dated facts that are applied only on request and always named. (RA-7, MO-1)

A rate applies from its day until the next rate of the pair, but at most 31 days: this covers weekends and monthly lists, but no outdated
list. Facts are only added: of two rates of one day, the later recorded one applies.
"""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from ledger import problems
from ledger.audit import record
from ledger.books import Books
from ledger.errors import FormatError, ObjectMissingError, RootCostError, UsageError
from ledger.headers import require_unique
from ledger.money import MONEY, exact_decimal, exchange_amounts, text
from ledger.periods import now
from ledger.problems import Problem
from ledger.tables import EXCHANGE_RATES

COLUMNS = ("date", "from", "to", "rate", "source")
"""Columns of a file of rates. Without `source`, the source is the file."""

MAX_RATE_AGE = timedelta(days=31)
_CODE = re.compile(r"[A-Z]{3}")
_MAX_RATE, _MIN_RATE = Decimal(10) ** 9, Decimal(10) ** -9


# ── facts in ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class RatesImport:
    """Result of an import of rates."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)


def import_csv(books: Books, path: Path, *, actor: str = "cli", preview: bool = False) -> RatesImport:
    """Adds the rates of a CSV file; existing ones are unchanged. Raises `FormatError` if the file cannot be read at all."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ObjectMissingError("no such file", where=str(path), remedy="give the path of a CSV file") from error
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise FormatError(f"not readable as UTF-8 text: {error}", where=str(path), remedy="save it as CSV in UTF-8") from error
    return import_text(books, content, uri=str(path), actor=actor, preview=preview)


def import_text(books: Books, content: str, *, uri: str, actor: str, preview: bool = False) -> RatesImport:
    """Adds the rates of a CSV text, see `import_csv`. With `preview` nothing is written: the result is what would be."""
    result, recorded_at = RatesImport(), now()
    reader = csv.DictReader(io.StringIO(content))
    headers = [h.strip().lower() for h in reader.fieldnames or []]
    missing = [c for c in COLUMNS[:-1] if c not in headers]
    if missing:
        raise FormatError(
            f"columns {', '.join(missing)} are missing (columns are: {', '.join(headers) or 'nothing'})",
            where=uri,
            remedy=f"the first line must name: {', '.join(COLUMNS)}",
        )
    require_unique(headers, uri)
    existing_rates = {(r[0], r[1], r[2]): r[3] for r in rates_in_force(books).iter_rows()}
    rows: dict[tuple[str, str, date], dict[str, object]] = {}
    file_rates: dict[tuple[str, str, date], object] = {}
    for raw in reader:
        place = f"line {reader.line_num}"
        try:
            row = _row({(k or "").strip().lower(): (v or "").strip() for k, v in raw.items() if isinstance(v, str)}, uri)
        except RootCostError as error:
            result.problems.append(Problem("exchange", uri, place, error.where, error.what, error.remedy))
            continue
        key = (str(row["from_currency"]), str(row["to_currency"]), date.fromisoformat(str(row["day"])))
        first = file_rates.setdefault(key, row["rate"])
        if first != row["rate"]:
            result.problems.append(
                Problem(
                    "exchange",
                    uri,
                    place,
                    "rate",
                    "another rate of this pair and day is in the file; the first is kept",
                    "keep one",
                )
            )
        elif key in rows or existing_rates.get(key) == first:
            result.unchanged += 1
        else:
            result.changed += key in existing_rates
            rows[key] = row | {"recorded_at": recorded_at}
    result.added = len(rows)
    if preview:
        return result
    problems.renew(books.store, "exchange", {uri}, result.problems)
    if rows:
        books.store.append(EXCHANGE_RATES, pl.DataFrame(list(rows.values()), schema=EXCHANGE_RATES.schema), note=f"rates {uri}")
        with books.database.session() as session:
            record(session, actor, "exchange.import", uri[:512], after={"rates": result.added})
    return result


def _row(row: dict[str, str], uri: str) -> dict[str, object]:
    codes = {name: row.get(name, "").upper() for name in ("from", "to")}
    for name, code in codes.items():
        if not _CODE.fullmatch(code):
            raise FormatError(f"{row.get(name, '')!r} is no currency code", where=name, remedy="write three letters, as EUR")
    if codes["from"] == codes["to"]:
        raise FormatError(f"{codes['to']} in {codes['from']} is always 1", where="to", remedy="leave the row out")
    try:
        day = date.fromisoformat(row.get("date", ""))
    except ValueError as error:
        raise FormatError(f"{row.get('date', '')!r} is no day", where="date", remedy="write it as 2026-10-05") from error
    rate = exact_decimal(row.get("rate"))
    if rate is None or not _MIN_RATE <= rate <= _MAX_RATE or rate != round(rate, 18):
        raise FormatError(
            f"{row.get('rate', '')!r} is no rate",
            where="rate",
            remedy="write a positive decimal number with a point and at most 18 places, as 1.0842",
        )
    return {
        "from_currency": codes["from"],
        "to_currency": codes["to"],
        "day": day,
        "rate": rate,
        "source": row.get("source") or uri,
    }


def rates_in_force(books: Books) -> pl.DataFrame:
    """The rates in force: from_currency, to_currency, day, rate, source."""
    return _newest(books.store.scan(EXCHANGE_RATES).collect())


def _newest(rates: pl.DataFrame) -> pl.DataFrame:
    """The last recorded rate of each pair and day."""
    keys = ["from_currency", "to_currency", "day"]
    return rates.sort("recorded_at", "rate").unique(keys, keep="last").sort(keys).select(*keys, "rate", "source")


# ── rates applied ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AppliedRate:
    """The rate of a day: an amount of `source` currency times numerator / denominator is one of `target`. `label` names the rates."""

    source: str
    target: str
    day: date
    numerator: Decimal
    denominator: Decimal
    label: str


class Exchange:
    """Looks up rates: the direct rate, the inverse, or the product over one third currency.

    >>> book = Exchange([("EUR", "USD", date(2026, 10, 2), Decimal("1.25"), "ECB"), ("EUR", "GBP", date(2026, 10, 2), Decimal("0.8"), "ECB")])
    >>> there = book.on("USD", "GBP", date(2026, 10, 4))
    >>> there.numerator / there.denominator, there.label
    (Decimal('0.64'), '1 / (EUR in USD 1.25, 2026-10-02, ECB) × EUR in GBP 0.8, 2026-10-02, ECB')
    >>> book.on("USD", "GBP", date(2026, 12, 1)) is None
    True
    """

    def __init__(self, rows: Iterable[tuple[str, str, date, Decimal, str]]) -> None:
        self._days: dict[tuple[str, str], list[date]] = {}
        self._rates: dict[tuple[str, str], list[tuple[Decimal, str]]] = {}
        for source, target, day, rate, publisher in sorted(rows, key=lambda r: r[:3]):
            self._days.setdefault((source, target), []).append(day)
            self._rates.setdefault((source, target), []).append((rate, publisher))
        self._currencies = sorted({c for pair in self._days for c in pair})

    @classmethod
    def of(cls, books: Books) -> Exchange:
        """The rates in the ledger."""
        return cls(rates_in_force(books).iter_rows())

    def on(self, source: str, target: str, day: date) -> AppliedRate | None:
        """The rate of a day, or None where no rate applies."""
        rate = self._leg(source, target, day)
        if rate is None:
            for third in self._currencies:
                first, second = self._leg(source, third, day), self._leg(third, target, day)
                if third not in (source, target) and first is not None and second is not None:
                    rate = first[0] * second[0], first[1] * second[1], f"{first[2]} × {second[2]}"
                    break
        return None if rate is None else AppliedRate(source, target, day, *rate)

    def _leg(self, source: str, target: str, day: date) -> tuple[Decimal, Decimal, str] | None:
        for pair, inverse in (((source, target), False), ((target, source), True)):
            days = self._days.get(pair, [])
            at = bisect_right(days, day) - 1
            if at < 0 or day - days[at] > MAX_RATE_AGE:
                continue
            rate, publisher = self._rates[pair][at]
            label = f"{pair[0]} in {pair[1]} {text(rate)}, {days[at]}, {publisher}"
            return (Decimal(1), rate, f"1 / ({label})") if inverse else (rate, Decimal(1), label)
        return None


def convert(
    frame: pl.DataFrame, target: str, book: Exchange, *, amount: str, order_by: Sequence[str]
) -> tuple[pl.DataFrame, list[AppliedRate]]:
    """The frame's `amount` in `target`, each at the rate of its `day` (Date) and `currency`; and the rates that were applied.

    Rows of one currency and day are converted by running sums in the order of `order_by`: the converted parts sum to
    the converted sum under any grouping. Null stays null. Raises `UsageError` that names every currency without a rate.
    """
    rates: list[AppliedRate] = []
    missing: dict[str, list[date]] = {}
    parts: list[pl.DataFrame] = []
    for (currency, day), rows in frame.sort("currency", "day", *order_by, nulls_last=True).group_by(
        ["currency", "day"], maintain_order=True
    ):
        if currency == target:
            parts.append(rows)
            continue
        rate = book.on(str(currency), target, day)
        if rate is None:
            missing.setdefault(str(currency), []).append(day)
            continue
        rates.append(rate)
        priced_rows = rows.filter(pl.col(amount).is_not_null())
        converted_amounts = exchange_amounts(priced_rows[amount].to_list(), rate.numerator, rate.denominator)
        parts += [
            priced_rows.with_columns(pl.Series(amount, converted_amounts, dtype=MONEY)),
            rows.filter(pl.col(amount).is_null()),
        ]
    if missing:
        details = "; ".join(
            f"{c} on {min(days)}" + (f" and {len(days) - 1} other days" if len(days) > 1 else "") for c, days in missing.items()
        )
        raise UsageError(
            f"no exchange rate into {target} for {details}",
            where="currency",
            remedy="import rates with `rootcost exchange import`; a rate applies for 31 days at most",
        )
    out = pl.concat(parts) if parts else frame
    return out.with_columns(currency=pl.lit(target)), rates


def missing_rates(days: pl.DataFrame, target: str, book: Exchange) -> list[tuple[str, date, int]]:
    """Currencies out of `currency`, `day` that have no rate into `target`: the code, its first such day, and how many."""
    days_without_rate: dict[str, list[date]] = {}
    for currency, day in days.select("currency", "day").unique().iter_rows():
        if currency != target and book.on(currency, target, day) is None:
            days_without_rate.setdefault(currency, []).append(day)
    return sorted((currency, min(missing), len(missing)) for currency, missing in days_without_rate.items())
