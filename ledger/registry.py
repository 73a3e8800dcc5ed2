"""The registry: the agent and team that own a name, by time. (ID-1, ID-2)

Rows are only added. A row applies to ``[valid_from, valid_to)``; of overlapping rows the later recorded one wins. So re-running an old
period gives its old owner.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from ledger.audit import record
from ledger.books import Books
from ledger.db import Owner
from ledger.errors import FormatError, ObjectMissingError, RootCostError
from ledger.headers import require_unique
from ledger.names import clean, key, map_names
from ledger.periods import now, parse_instant
from ledger.problems import Problem
from ledger.tables import TIME

KINDS = ("agent", "alias", "credential", "principal", "service", "resource", "conversation")
"""What a registered name can be. `alias` is another name of an agent; the others are found on spans and bills."""

COLUMNS = (
    "agent",
    "team",
    "valid_from",
    "valid_to",
    "aliases",
    "credentials",
    "principals",
    "services",
    "resources",
    "account",
    "region",
)
"""Columns of a registry file. Only `agent` and `team` are needed; the plural ones hold several names separated by ``;``."""

_PLURALS = {
    "aliases": "alias",
    "credentials": "credential",
    "principals": "principal",
    "services": "service",
    "resources": "resource",
}
_MAX_LENGTHS = {**dict.fromkeys(("agent", *_PLURALS), 512), "team": 256, "account": 256, "region": 128}
_MAX_SIMILAR = 20
"""Groups of similar names that one import reports one by one."""
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.String,
    "name": pl.String,
    "agent": pl.String,
    "team": pl.String,
    "account": pl.String,
    "region": pl.String,
    "valid_from": TIME,
    "valid_to": TIME,
    "recorded_at": TIME,
}


@dataclass(frozen=True, slots=True)
class OwnerChange:
    """A name that gets an owner from an instant on, and the team that had that instant before."""

    owner: Owner
    earlier_team: str | None


@dataclass(slots=True)
class RegistryImport:
    """Result of a registry import."""

    agents: int = 0
    names: int = 0
    unchanged: int = 0
    changes: list[OwnerChange] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def import_csv(books: Books, path: Path, *, actor: str = "cli", preview: bool = False) -> RegistryImport:
    """Adds the rows of a registry file. Existing rows are unchanged; a changed owner becomes a new row, recorded now.

    A row needs `agent` and `team`; `valid_from` defaults to the beginning. Raises `FormatError` if the file cannot be read at all.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ObjectMissingError("no such file", where=str(path), remedy="give the path of a CSV file") from error
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise FormatError(f"not readable as UTF-8 text: {error}", where=str(path), remedy="save it as CSV in UTF-8") from error
    return import_text(books, content, uri=str(path), actor=actor, preview=preview)


def import_text(books: Books, content: str, *, uri: str, actor: str, preview: bool = False) -> RegistryImport:
    """Adds the rows of a CSV text, see `import_csv`; the API calls it. With `preview` nothing is written: the result is what would be."""
    result = RegistryImport()
    reader = csv.DictReader(io.StringIO(content))
    headers = [h.strip() for h in reader.fieldnames or []]
    missing = [c for c in ("agent", "team") if c not in headers]
    if missing:
        raise FormatError(
            f"columns {', '.join(missing)} are missing (columns are: {', '.join(headers) or 'nothing'})",
            where=uri,
            remedy=f"the first line must name columns out of: {', '.join(COLUMNS)}",
        )
    require_unique(headers, uri)
    unknown = sorted(set(headers) - set(COLUMNS))
    if unknown:
        result.problems.append(
            Problem(
                "registry",
                uri,
                "line 1",
                ",".join(unknown),
                "unknown columns are ignored",
                f"known: {', '.join(COLUMNS)}",
                severity="warning",
            )
        )
    rows: list[Owner] = []
    recorded_at = now()
    for row in _read_rows(reader, uri):
        try:
            rows.extend(
                _owners({(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)}, recorded_at)
            )
            result.agents += 1
        except RootCostError as error:
            result.problems.append(Problem("registry", uri, f"line {reader.line_num}", error.where, error.what, error.remedy))
    rows = _without_ambiguous_aliases(books, rows, result, uri)
    result.problems += _contradicting(rows, uri) + _similar(books, rows, uri)
    _add(books, rows, result, actor, uri, preview=preview)
    return result


def _read_rows(reader: csv.DictReader[str], uri: str) -> Iterator[dict[str, Any]]:
    """The rows of a registry file. Raises `FormatError` for a line that is no CSV, or has a field no name can need."""
    try:
        yield from reader
    except csv.Error as error:
        raise FormatError(
            f"the row after line {reader.line_num} is no CSV: {error}",
            where=uri,
            remedy="quote fields with commas, and close every quote",
        ) from error


def _owners(row: dict[str, str], recorded_at: datetime) -> Iterator[Owner]:
    for column, most in _MAX_LENGTHS.items():
        if any(len(name) > most for name in (row.get(column) or "").split(";")):
            raise FormatError(f"has a name of more than {most} characters", where=column, remedy="shorten the name")
    agent, team = clean(row.get("agent")), clean(row.get("team"))
    if agent is None or team is None:
        column = "agent" if agent is None else "team"
        raise FormatError("is empty", where=column, remedy=f"every row needs {'an' if agent is None else 'a'} {column}")
    start = parse_instant(row["valid_from"], field="valid_from") if row.get("valid_from") else _BEGIN
    end = parse_instant(row["valid_to"], field="valid_to") if row.get("valid_to") else None
    if end is not None and end <= start:
        raise FormatError(
            f"{row['valid_to']} is not after valid_from {row.get('valid_from') or '1970-01-01'}",
            where="valid_to",
            remedy="the interval is [valid_from, valid_to)",
        )
    owner_fields = {"agent": agent, "team": team, "account": row.get("account") or None, "region": row.get("region") or None}
    names = [("agent", agent)]
    names += [
        (kind, name)
        for column, kind in _PLURALS.items()
        for text in row.get(column, "").split(";")
        if (name := (clean(text) if kind == "alias" else text.strip()))
    ]
    for kind, name in names:
        yield Owner(kind=kind, name=name, valid_from=start, valid_to=end, recorded_at=recorded_at, **owner_fields)


def _without_ambiguous_aliases(books: Books, rows: Sequence[Owner], result: RegistryImport, uri: str) -> list[Owner]:
    """The rows without aliases that name another agent at the same time, in the file or the registry: each is an error. (ID-3)"""
    aliases = {key(row.name) for row in rows if row.kind == "alias" and key(row.name) != key(row.agent or "")}
    if not aliases:
        return list(rows)
    with books.database.session() as session:
        agent_rows = [*session.scalars(sa.select(Owner).where(Owner.kind == "agent")), *(r for r in rows if r.kind == "agent")]
        intervals: dict[str, list[tuple[datetime, datetime | None]]] = {}
        for owner in agent_rows:
            if (name_key := key(clean(owner.name) or "")) in aliases:
                intervals.setdefault(name_key, []).append((owner.valid_from, owner.valid_to))

    def is_ambiguous(row: Owner) -> bool:
        return (row.kind == "alias" and key(row.name) != key(row.agent or "")) and any(
            (end is None or row.valid_from < end) and (row.valid_to is None or start < row.valid_to)
            for start, end in intervals.get(key(row.name), ())
        )

    ambiguous = [row for row in rows if is_ambiguous(row)]
    for name in sorted({row.name for row in ambiguous}):
        reason = f"{name} is also the name of an agent; the alias was refused"
        remedy = "give the alias another name, or end that agent before the alias begins"
        result.problems.append(Problem("registry", uri, f"alias {name}", "aliases", reason, remedy))
    return [row for row in rows if not is_ambiguous(row)]


def _similar(books: Books, rows: Sequence[Owner], uri: str) -> list[Problem]:
    """Warnings for agents, and for teams, of this file whose name differs from another registered one only in case or inner space. (ID-3)

    Both stay what they are; a spelling that is neither belongs to none of the two.
    """
    with books.database.session() as session:
        owner_pairs = session.execute(sa.select(Owner.agent, Owner.team).distinct()).all()
    problems: list[Problem] = []
    for kind, new_names, other_names in (
        ("agent", {row.agent for row in rows}, {clean(agent) for agent, _ in owner_pairs}),
        ("team", {row.team for row in rows}, {clean(team) for _, team in owner_pairs}),
    ):
        by_key: dict[str, set[str]] = {}
        for name in filter(None, new_names | other_names):
            by_key.setdefault(key(name), set()).add(name)
        problems += [
            Problem(
                "registry",
                uri,
                f"{kind} {', '.join(sorted(names))}",
                kind,
                "similar_names: registered under names that differ only in case or space; they stay apart, and another spelling is none of them",
                "use one spelling for one " + kind,
                severity="warning",
            )
            for _, names in sorted(by_key.items())
            if len(names) > 1 and names & new_names
        ]
    if len(problems) > _MAX_SIMILAR:
        more_count = len(problems) - _MAX_SIMILAR
        reason = f"similar_names: and {more_count:,} more groups of names"
        problems = [
            *problems[:_MAX_SIMILAR],
            Problem("registry", uri, "file", "agent, team", reason, "use one spelling for one name", more_count, "warning"),
        ]
    return problems


def _add(books: Books, rows: Sequence[Owner], result: RegistryImport, actor: str, uri: str, *, preview: bool) -> None:
    with books.database.session() as session:
        newest: dict[tuple[str, str, datetime], Owner] = {}
        by_name: dict[tuple[str, str], list[Owner]] = {}
        for owner in session.scalars(sa.select(Owner).order_by(Owner.recorded_at, Owner.id)):
            newest[owner.kind, owner.name, owner.valid_from] = owner
            by_name.setdefault((owner.kind, owner.name), []).append(owner)
        for row in rows:
            before = newest.get((row.kind, row.name, row.valid_from))
            if before is not None and _same(before, row):
                result.unchanged += 1
                continue
            if before is not None and before.recorded_at == row.recorded_at:
                result.problems.append(
                    Problem(
                        "registry",
                        uri,
                        f"{row.kind} {row.name}",
                        "valid_from",
                        "two rows of this file claim the same name from the same day; the first is kept",
                        "give each its own valid_from",
                    )
                )
                continue
            newest[row.kind, row.name, row.valid_from] = row
            result.changes.append(OwnerChange(row, _team_at(by_name.get((row.kind, row.name), []), row.valid_from)))
            result.names += 1
        if result.names and not preview:
            session.add_all(change.owner for change in result.changes)
            record(session, actor, "registry.import", uri, after={"names": result.names, "agents": result.agents})


def _team_at(owners: Sequence[Owner], at: datetime) -> str | None:
    """The team that an instant had, of the rows of one name as they were recorded: the last one holds."""
    teams = [owner.team for owner in owners if owner.valid_from <= at and (owner.valid_to is None or at < owner.valid_to)]
    return teams[-1] if teams else None


def _same(a: Owner, b: Owner) -> bool:
    return (a.agent, a.team, a.account, a.region, a.valid_to) == (b.agent, b.team, b.account, b.region, b.valid_to)


def rows(books: Books) -> pl.DataFrame:
    """The whole registry, oldest record first."""
    with books.database.session() as session:
        owners = session.scalars(sa.select(Owner).order_by(Owner.recorded_at, Owner.id)).all()
        return pl.DataFrame([{c: getattr(o, c) for c in SCHEMA} for o in owners], schema=SCHEMA)


def timeline(registry: pl.DataFrame) -> pl.DataFrame:
    """The registry without overlaps: for every (kind, name), disjoint intervals in order, each with its owner.

    Where intervals overlap, the later recorded row wins, then the one with the later valid_from. `valid_to` is null for an open interval.

    >>> at = lambda d: datetime(2026, 10, d, tzinfo=UTC)
    >>> frame = pl.DataFrame([
    ...     dict(kind="agent", name="bot", agent="bot", team="Care", account=None, region=None, valid_from=at(1), valid_to=None, recorded_at=at(1)),
    ...     dict(kind="agent", name="bot", agent="bot", team="Data", account=None, region=None, valid_from=at(10), valid_to=None, recorded_at=at(2)),
    ... ], schema=SCHEMA)
    >>> timeline(frame).select("team", pl.col("valid_from").dt.day(), pl.col("valid_to").dt.day()).rows()
    [('Care', 1, 10), ('Data', 10, None)]
    """
    is_agent = pl.col("kind").is_in(["agent", "alias"])
    # Rows that an earlier version recorded may have names as they were written. (ID-3)
    registry = registry.with_columns(
        map_names(registry["agent"], clean),
        map_names(registry["team"], clean),
        pl.when(is_agent).then(map_names(registry["name"], clean)).otherwise("name").alias("name"),
    ).filter(pl.col("name").is_not_null())
    out: list[dict[str, object]] = []
    for _, group in registry.group_by(["kind", "name"], maintain_order=True):
        out += _without_overlaps(group.sort("recorded_at", "valid_from").to_dicts())
    return pl.DataFrame(out, schema=SCHEMA).sort("kind", "name", "valid_from")


def _without_overlaps(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one name, in order of precedence, as disjoint intervals; each has the row with the highest precedence."""
    out: list[dict[str, Any]] = []
    by_start = sorted(range(len(records)), key=lambda n: records[n]["valid_from"])
    edges = sorted({r["valid_from"] for r in records} | {r["valid_to"] for r in records if r["valid_to"] is not None})
    open_rows: list[int] = []  # a heap of minus the row's place: its first is the strongest
    at = 0
    for start, end in zip(edges, [*edges[1:], None], strict=True):
        while at < len(by_start) and records[by_start[at]]["valid_from"] <= start:
            heappush(open_rows, -by_start[at])
            at += 1
        while open_rows and (over := records[-open_rows[0]]["valid_to"]) is not None and over <= start:
            heappop(open_rows)
        if not open_rows:
            continue
        owner = {**records[-open_rows[0]], "valid_from": start, "valid_to": end}
        last = out[-1] if out else None
        if last and last["valid_to"] == start and all(last[c] == owner[c] for c in ("agent", "team", "account", "region")):
            last["valid_to"] = end
        else:
            out.append(owner)
    return out


def _contradicting(rows: Sequence[Owner], uri: str) -> list[Problem]:
    """Warnings for names with two owners at once in one file: an interval that ends after the next one begins.

    An interval without an end is closed by the next one; that is how owners are changed.
    """
    by_name: dict[tuple[str, str], list[Owner]] = {}
    for row in rows:
        by_name.setdefault((row.kind, row.name), []).append(row)
    problems = []
    for (kind, name), owners in by_name.items():
        owners.sort(key=lambda r: r.valid_from)
        longest: Owner | None = None
        for row in owners:
            if longest is not None and longest.valid_to is not None and row.valid_from < longest.valid_to:
                differs = (longest.agent, longest.team) != (row.agent, row.team)
                if differs and longest.valid_from < row.valid_from:
                    problems.append(
                        Problem(
                            "registry",
                            uri,
                            f"{kind} {name}",
                            "valid_to",
                            f"overlapping_intervals: {longest.team} holds it until {longest.valid_to:%Y-%m-%d}, {row.team} from "
                            f"{row.valid_from:%Y-%m-%d}; the later one holds where both do",
                            "end the one where the other begins",
                            severity="warning",
                        )
                    )
                    break
            if longest is None or longest.valid_to is None or (row.valid_to is None or row.valid_to > longest.valid_to):
                longest = row
    return problems


def revision(registry: pl.DataFrame) -> str:
    """A revision of the registry; changes exactly when the registry changes."""
    return f"{registry.height}:{registry['recorded_at'].cast(pl.String).max()!s}"
