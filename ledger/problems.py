"""Problems with the input, as rows: reason, place and remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl

from ledger.addresses import masked
from ledger.store import Store
from ledger.tables import PROBLEMS


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with the input, with a remedy.

    `place` is the line, row or object within `uri` (``line 7``, ``row 12``, ``item 3``); `rows` says how many input rows
    share this problem when they are reported together. `severity` is ``error`` when the row was left out, ``warning``
    when it was kept. `cost` is the money it concerns, in `currency`; None where none is known.
    """

    source: str
    uri: str
    place: str
    field: str
    reason: str
    remedy: str
    rows: int = 1
    severity: str = "error"
    cost: Decimal | None = None
    currency: str | None = None

    def __post_init__(self) -> None:
        """Secrets of addresses are in no problem, wherever it goes."""
        for name in ("uri", "place", "reason", "remedy"):
            text = getattr(self, name)
            if "://" in text:
                object.__setattr__(self, name, masked(text))

    @property
    def problem_id(self) -> str:
        """Id of the problem: the same for the same reason in the same place, however often the file is read."""
        identity = f"{self.source}\x1f{self.uri}\x1f{self.place}\x1f{self.field}\x1f{self.reason}"
        return hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()


def to_frame(problems: Iterable[Problem], *, run_id: str = "") -> pl.DataFrame:
    """Problems as rows of the `problems` table."""
    now = datetime.now(UTC)
    rows = [
        {
            "problem_id": p.problem_id,
            "source": p.source,
            "uri": p.uri,
            "place": p.place,
            "field": p.field,
            "reason": p.reason,
            "remedy": p.remedy,
            "rows": p.rows,
            "severity": p.severity,
            "cost": p.cost,
            "currency": p.currency,
            "seen_at": now,
            "run_id": run_id,
        }
        for p in problems
    ]
    return PROBLEMS.conform(pl.DataFrame(rows, schema=PROBLEMS.schema))


def renew(
    store: Store, source: str, uris: Collection[str], problems: Iterable[Problem], *, folders: Collection[str] = ()
) -> None:
    """Makes `problems` all that is wrong with the files just read, so that a mended file's old problems go.

    `uris` are the exact addresses of the files; `folders` are folders read in full: all earlier problems below them are replaced, too.
    One commit; nothing is written where nothing changed.
    """
    stored_rows = store.scan(PROBLEMS, {"source": [source]}).collect()
    prefixes = tuple(folder.rstrip("/") + "/" for folder in folders)
    stale = pl.col("uri").is_in(pl.Series(list(uris), dtype=pl.String).implode())
    for folder in prefixes:
        stale = stale | pl.col("uri").str.starts_with(folder)
    other_rows, old = stored_rows.filter(~stale), stored_rows.filter(stale)
    fresh = to_frame(problems).unique("problem_id", keep="first", maintain_order=True)
    if not old.height and not fresh.height:
        return
    first_seen = old.select("problem_id", __seen="seen_at")
    fresh = fresh.join(first_seen, on="problem_id", how="left", maintain_order="left").with_columns(
        seen_at=pl.coalesce("__seen", "seen_at")
    )
    fresh = fresh.drop("__seen")
    if fresh.drop("run_id").sort("problem_id").equals(old.drop("run_id").sort("problem_id")):
        return
    store.replace(PROBLEMS, pl.concat([other_rows.join(fresh, on="problem_id", how="anti"), fresh]), {"source": source})
