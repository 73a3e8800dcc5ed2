"""Reader of rate tables: a CSV with one rate per line, for contracts and for rates that no public list has.

    provider,model,meter,unit,rate,currency,valid_from
    bedrock,anthropic.claude-sonnet-4-6-v1:0,input_tokens,1M tokens,2.40,USD,2026-10-01

`service_tier`, `context_above`, `region`, `valid_from` and `valid_to` are optional. An invalid line is reported as a problem, and the
others are read.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl

from ingest.prices.currencies import CURRENCIES
from ledger.errors import FormatError, UsageError
from ledger.headers import require_unique
from ledger.money import RATE, exact_decimal, unit_rate
from ledger.periods import parse_instant
from ledger.problems import Problem
from ledger.tables import METERS, PRICES, TIME

NEEDED = ("provider", "model", "meter", "unit", "rate", "currency")
OPTIONAL = ("service_tier", "context_above", "region", "valid_from", "valid_to")

_UNIT = re.compile(r"(?:per\s+)?(?P<size>\d[\d,_ ]*)?\s*(?P<scale>k|m|thousand|million)?\s*(?P<what>[a-z_]+)", re.IGNORECASE)
_SCALES = {"k": 1000, "thousand": 1000, "m": 10**6, "million": 10**6}
_TIMES = {"hour": 3600, "hr": 3600, "minute": 60, "min": 60}


class _FieldProblem(Exception):
    """An invalid field: its name, reason and remedy."""


def read(content: bytes, *, uri: str) -> tuple[pl.DataFrame, list[Problem]]:
    """Rates per unit as rows of `prices`, with a null `valid_from` where the line states no date; and the problems.

    Raises `FormatError` if it is not a CSV with the required columns.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("no price list: neither JSON nor text in UTF-8", where=uri, remedy="save it as CSV in UTF-8") from error
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    headers = _headers(reader, uri)
    problems = _unknown_columns(headers, uri)
    rows: list[dict[str, Any]] = []
    try:
        for line in reader:
            fields = {h: (v or "").strip() for h, v in line.items() if h and isinstance(v, str | None)}
            if not any(fields.values()):
                continue
            try:
                rows.append(_row(fields))
            except _FieldProblem as error:
                name, reason, remedy = error.args
                problems.append(Problem("prices", uri, f"line {reader.line_num}", name, reason, remedy))
    except csv.Error as error:
        problems.append(Problem("prices", uri, f"line {reader.line_num}", "", f"no CSV from here on: {error}", "mend the line"))
    return pl.DataFrame(rows, schema=_SCHEMA), problems


_SCHEMA: Mapping[str, Any] = {
    **{c: t for c, t in PRICES.schema.items() if c not in ("origin", "book", "hours", "recorded_at")},
    "rate": RATE,
    "valid_from": TIME,
    "valid_to": TIME,
}


def _headers(reader: csv.DictReader[str], uri: str) -> list[str]:
    try:
        headers = [(h or "").strip().lower().replace(" ", "_") for h in reader.fieldnames or []]
    except csv.Error as error:
        raise FormatError(f"no price list: {error}", where=uri, remedy="save it as CSV in UTF-8") from error
    missing = [c for c in NEEDED if c not in headers]
    if missing:
        raise FormatError(
            f"no price list: it is no JSON, and as CSV it lacks the columns {', '.join(missing)}",
            where=uri,
            remedy=f"the first line names {', '.join(NEEDED)}, and if need be {', '.join(OPTIONAL)}",
        )
    require_unique(headers, uri)
    reader.fieldnames = headers
    return headers


def _unknown_columns(headers: Sequence[str], uri: str) -> list[Problem]:
    unknown = sorted({h for h in headers if h} - {*NEEDED, *OPTIONAL})
    if not unknown:
        return []
    column_names = ", ".join((*NEEDED, *OPTIONAL))
    return [
        Problem(
            "prices",
            uri,
            "line 1",
            ",".join(unknown),
            "unknown columns are ignored",
            f"known: {column_names}",
            severity="warning",
        )
    ]


def _row(fields: Mapping[str, str]) -> dict[str, Any]:
    for name in NEEDED:
        if not fields.get(name):
            raise _FieldProblem(name, "is empty", f"every rate needs its {name}")
    meter = fields["meter"]
    if meter not in METERS:
        suggestions = difflib.get_close_matches(meter, METERS, n=1)
        raise _FieldProblem(
            "meter",
            f"{meter!r} is no meter",
            f"did you mean {suggestions[0]}?" if suggestions else "see docs/tables.md for meters",
        )
    if fields["currency"].upper() not in CURRENCIES:
        raise _FieldProblem("currency", f"{fields['currency']!r} is no currency", "write its ISO 4217 code, such as USD")
    start, end = (_instant(fields, name) for name in ("valid_from", "valid_to"))
    if start is not None and end is not None and end <= start:
        raise _FieldProblem(
            "valid_to", f"{fields['valid_to']} is not after valid_from", "a rate is valid in [valid_from, valid_to)"
        )
    return {
        "provider": fields["provider"],
        "model": fields["model"],
        "meter": meter,
        "service_tier": fields.get("service_tier") or "standard",
        "context_above": _context(fields.get("context_above") or "0"),
        "region": fields.get("region") or "",
        "currency": fields["currency"].upper(),
        "rate": unit_rate(_rate(fields["rate"]), Decimal(units_of(fields["unit"], meter))),
        "valid_from": start,
        "valid_to": end,
    }


def _rate(text: str) -> Decimal:
    rate = exact_decimal(text)
    if rate is None:
        raise _FieldProblem("rate", f"{text!r} is no number", "write digits and a decimal point, such as 2.40")
    if rate < 0:
        raise _FieldProblem("rate", f"{text} is negative", "state a number from 0 up")
    return rate


def _context(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise _FieldProblem("context_above", f"{text!r} is no number of tokens", "write it in full, such as 200000")
    return int(text)


def _instant(fields: Mapping[str, str], name: str) -> datetime | None:
    if not fields.get(name):
        return None
    try:
        return parse_instant(fields[name], field=name)
    except UsageError as error:
        raise _FieldProblem(name, error.what, error.remedy) from error


def units_of(unit: str, meter: str) -> int:
    """The number of meter units that the price is for.

    >>> units_of("1M tokens", "input_tokens"), units_of("1000 requests", "requests"), units_of("hour", "seconds")
    (1000000, 1000, 3600)
    """
    match = _UNIT.fullmatch(unit.strip())
    unit_name = match["what"].lower() if match else ""
    unit_word = _singular(unit_name)
    meter_words = {_singular(word) for word in meter.split("_")}
    times = _TIMES.get(unit_word, 1) if "second" in meter_words else 1
    if (
        match is None
        or (unit_word not in meter_words and unit_name != meter and times == 1)
        or unit_word in ("input", "output", "cache")
    ):
        things = next((word for word in reversed(meter.split("_")) if word.endswith("s")), meter)
        raise _FieldProblem(
            "unit", f"{unit!r} is no unit of {meter}", f"write what the rate is for, such as 1M {things} or 1 {_singular(things)}"
        )
    size = re.sub(r"[,_ ]", "", match["size"] or "1")
    count = int(size) * _SCALES.get((match["scale"] or "").lower(), 1) * times
    if not 0 < count <= 10**12:
        raise _FieldProblem("unit", f"{unit!r} counts nothing", "write what the rate is for, such as 1M tokens")
    return count


def _singular(word: str) -> str:
    """A noun in the singular.

    >>> _singular("tokens"), _singular("queries"), _singular("hour")
    ('token', 'query', 'hour')
    """
    return word[:-3] + "y" if word.endswith("ies") else word.removesuffix("s")


def lines(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The lines of a rate table with these rows, such as the template that `prices coverage` writes."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*NEEDED, "valid_from"], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    yield from buffer.getvalue().splitlines()
