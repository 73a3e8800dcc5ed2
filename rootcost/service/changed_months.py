"""Fingerprints of months, so that only months whose input changed are attributed again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ledger.errors import UsageError
from ledger.periods import adjacent_months, month_end, month_start, parse_bound

if TYPE_CHECKING:
    from ledger.books import Books

_PARTITION = re.compile(r"/(?:billing_month|date)=(\d{4}-\d{2})")


def by_month(files: Iterable[str]) -> dict[str, list[str]]:
    """File names of partitioned tables, month by month.

    >>> by_month(["t/spans/date=2026-10-05/a.parquet", "t/charges/billing_month=2026-10/scope=x/b.parquet"])
    {'2026-10': ['a.parquet', 'b.parquet']}
    """
    months: dict[str, list[str]] = {}
    for name in files:
        match = _PARTITION.search(name)
        if match:
            months.setdefault(match.group(1), []).append(name.rsplit("/", 1)[-1])
    return months


def facts_by_month(books: Books) -> dict[str, str]:
    """Every month with charges or spans, and a fingerprint of its files. Reads the tables' logs, no data."""
    from ledger.tables import CHARGES, SPANS

    files: list[str] = []
    for table in (CHARGES, SPANS):
        delta = books.store.delta(table)
        files.extend(delta.file_uris() if delta is not None else ())
    return {
        month: hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=12).hexdigest()
        for month, names in sorted(by_month(files).items())
    }


def within(months: Iterable[str], start: str, end: str, *, timezone: str) -> list[str]:
    """Those of `months` that ``[start, end)`` touches; an empty bound is none.

    >>> within(["2026-09", "2026-10", "2026-11"], "2026-10", "2026-11", timezone="UTC")
    ['2026-10']
    """
    first = parse_bound(start, field="--from", timezone=timezone) if start else None
    last = parse_bound(end, field="--to", timezone=timezone) if end else None
    if first is not None and last is not None and last <= first:
        raise UsageError("the range is empty", where="--to", remedy="--to is the first day or month not counted")
    return [m for m in months if (first is None or month_end(m) > first) and (last is None or month_start(m) < last)]


def input_fingerprints(books: Books) -> dict[str, str]:
    """Fingerprints of all inputs of attribution: facts by month, and under ``*`` what applies to every month.

    That is the registry, the price book and the settings of attribution with the rules of the ledger.
    """
    import sqlalchemy as sa

    from ledger.db import Owner
    from ledger.rule_store import settings_in_force
    from ledger.tables import PRICES

    with books.database.session() as session:
        owners = session.execute(sa.select(sa.func.count(Owner.id), sa.func.max(Owner.recorded_at))).one()
    settings = settings_in_force(books)
    common_inputs = [
        str(tuple(owners)),
        books.store.fingerprint(PRICES),
        settings.attribution.model_dump_json(),
        settings.ingest.model_dump_json(),
        settings.report.model_dump_json(),
    ]
    return {**facts_by_month(books), "*": hashlib.blake2b("\n".join(common_inputs).encode(), digest_size=12).hexdigest()}


def budget_fingerprint(books: Books) -> str:
    """Changes when a budget is set up, changed or deleted, or the thresholds of alerts are changed."""
    import sqlalchemy as sa

    from ledger.db import BudgetRevision

    with books.database.session() as session:
        revisions = session.execute(sa.select(sa.func.count(BudgetRevision.id), sa.func.max(BudgetRevision.id))).one()
    return f"{tuple(revisions)} {books.settings.alerts.model_dump_json()}"


def months_to_check(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Months to look at anew: those whose facts differ, and their neighbours; all if something common to them differs.

    Neighbours, because a chain and a bill may reach over the end of a month; a run leaves alone what still stands.

    >>> before = {"2026-08": "a", "2026-09": "a", "2026-10": "b", "*": "x"}
    >>> months_to_check(before, {**before, "2026-10": "c"})
    ['2026-09', '2026-10']
    >>> months_to_check({"2026-09": "a", "*": "x"}, {"2026-09": "a", "*": "y"})
    ['2026-09']
    """
    months = sorted((before.keys() | after.keys()) - {"*"})
    if before.get("*") != after.get("*"):
        return months
    changed_months = {m for m in months if before.get(m) != after.get(m)}
    months_to_check = changed_months | {neighbour for m in changed_months for neighbour in adjacent_months(m)}
    return [m for m in months if m in months_to_check]
