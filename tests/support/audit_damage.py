"""Writes audit logs from two processes at once, and damages them as somebody would who can write to the database."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from ledger.audit import record
from ledger.db import Database

_CONTENT: Final = ("at", "actor", "actor_kind", "action", "subject", "before", "after", "personal", "previous_hash", "hash")


def append(database: Database, actor: str, count: int) -> None:
    """Appends entries, each in a transaction of its own."""
    for number in range(count):
        with database.session() as session:
            record(
                session,
                actor,
                "budget.change",
                f"b-{number % 7}",
                before={"amount": str(number)},
                after={"amount": str(number + 1)},
            )


def _write(url: str, actor: str, count: int) -> None:
    database = Database(url)
    if database.engine.dialect.name == "sqlite":  # what a power cut leaves is tested elsewhere
        sa.event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    append(database, actor, count)
    database.close()


def write_from_two_processes(url: str, count: int) -> None:
    """Two processes append `count` entries each at the same time."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(url, f"writer-{number}", count)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def damage(database: Database, kind: str, draw: random.Random) -> set[int]:
    """Damages the log in one way; returns the entries that are not what they were."""
    with database.engine.begin() as connection:
        last_sequence = connection.execute(sa.text("SELECT max(sequence) FROM audit")).scalar_one()
        return DAMAGES[kind](connection, draw, last_sequence)


def _delete(connection: sa.Connection, draw: random.Random, last: int) -> set[int]:
    first = draw.randint(1, last - 1)
    sequences = set(range(first, min(last, first + draw.randint(1, 4))))
    connection.execute(sa.text(f"DELETE FROM audit WHERE sequence IN ({', '.join(map(str, sequences))})"))
    return sequences


def _swap(connection: sa.Connection, draw: random.Random, last: int) -> set[int]:
    """Two entries change places, with their hashes or without."""
    a, b = draw.sample(range(1, last + 1), 2)
    names = _CONTENT if draw.random() < 0.5 else _CONTENT[:-2]
    rows = {s: connection.execute(sa.text("SELECT * FROM audit WHERE sequence = :s"), {"s": s}).mappings().one() for s in (a, b)}
    for target, origin in ((a, rows[b]), (b, rows[a])):
        _set(connection, target, {name: origin[name] for name in names})
    return {a, b}


def _edit(connection: sa.Connection, draw: random.Random, last: int) -> set[int]:
    sequence = draw.randint(1, last)
    values: dict[str, Any] = {
        "actor": "somebody-else", "actor_kind": "system", "action": "budget.drop", "subject": "b-99", "after": '{"amount": "1"}',
        "before": "null", "at": "2020-01-01 00:00:00.000000", "personal": '{"name": "00"}', "previous_hash": "1" * 64, "hash": "2" * 64,
    }  # fmt: skip
    if connection.dialect.name == "sqlite":
        values |= {"before": "{cut", "at": "no time"}
    name = draw.choice(sorted(values))
    _set(connection, sequence, {name: values[name]})
    return {sequence}


def _truncate(connection: sa.Connection, draw: random.Random, last: int) -> set[int]:
    """The end is cut off; half of the time the head in the database is set back, too, so that only a head kept elsewhere knows."""
    entries_before = draw.randint(max(1, last - 9), last - 1)
    connection.execute(sa.text("DELETE FROM audit WHERE sequence > :kept"), {"kept": entries_before})
    if draw.random() < 0.5:
        connection.execute(
            sa.text("UPDATE audit_head SET sequence = :kept, hash = (SELECT hash FROM audit WHERE sequence = :kept)"),
            {"kept": entries_before},
        )
    return set(range(entries_before + 1, last + 1))


def _set(connection: sa.Connection, sequence: int, values: dict[str, Any]) -> None:
    assignments = ", ".join(f'"{name}" = :{name}' for name in values)
    # PostgreSQL hands JSON out as values, and takes it as text.
    texts = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}
    connection.execute(sa.text(f"UPDATE audit SET {assignments} WHERE sequence = :sequence"), {**texts, "sequence": sequence})


DAMAGES: Final[dict[str, Callable[[sa.Connection, random.Random, int], set[int]]]] = {
    "delete": _delete,
    "swap": _swap,
    "edit": _edit,
    "truncate": _truncate,
}
