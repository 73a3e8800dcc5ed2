"""What is killed or loses its power: deliveries, checkpoints and published months, each acknowledged; and what must hold afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from decimal import Decimal
from pathlib import Path

import polars as pl

from attribution.run import attribute
from ledger import registry
from ledger.books import Books
from ledger.db import Checkpoint
from ledger.maintenance import maintain
from ledger.periods import now
from ledger.published import published_months
from ledger.spool import Spool
from ledger.tables import BALANCE, CHARGES, COSTS, SPANS
from tests.attribution.test_worked_example import OWNERS
from tests.support.amounts import sum_of
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans

Acknowledge = Callable[[str], None]
SOURCE = "survive"
ROUNDS = 5
"""Deliveries of a piece of work."""


def delivery(number: int) -> pl.DataFrame:
    """One call of a trace of its own."""
    return spans(
        span(number, 2 * number, agent_name="coder"),
        span(number, 2 * number + 1, 2 * number, input_tokens=10, start_time=at(10), **SONNET),
    )


def work(home: Path, first: int, count: int, acknowledge: Acknowledge) -> None:
    """Opens a home, perhaps for the first time, and acknowledges what it has booked: deliveries, checkpoints, months."""
    with Books.open(home) as books:
        spool = Spool(home / "spool")
        if books.store.version(CHARGES) is None:
            registry.import_text(books, OWNERS, uri="owners.csv", actor="test")
            books.store.append(CHARGES, charges(charge("0.030000000000", tokens_k="10.0")))
        for number in range(first, first + count):
            spool.append(delivery(number))
            acknowledge(f"delivery {number}")
            if number % 3 == 0:
                spool.drain(books.store)
            books.store.merge(SPANS, delivery(number + 1_000_000), prefer="rank")
            with books.database.session() as session:
                session.merge(Checkpoint(source=SOURCE, key="log", value=str(number), at=now()))
            acknowledge(f"checkpoint {number}")
            if number % 4 == 1:
                spool.drain(books.store)
                attribute(books)
                acknowledge("published 2026-10")
            if number % 5 == 2:
                maintain(books)


def failures(home: Path, promises: Collection[str], *, may_unpublish: bool = False) -> list[str]:
    """What is lost, doubled, half or stuck in a home, given what was acknowledged."""
    losses = []
    with Books.open(home) as books:
        months = {m.month: m.run_id for m in published_months(books.database)}
        for month, run_id in months.items():
            costs = books.store.scan(COSTS, {"month": [month], "run_id": [run_id]}).select(pl.len()).collect().item()
            rows = books.store.scan(BALANCE, {"invoice_month": [month], "run_id": [run_id]}).collect()
            if not costs or not rows.height or rows["difference"].sum():
                losses.append(f"{month} is published and has {costs} costs, {rows.height} control totals")
        if "published 2026-10" in promises and not months and not may_unpublish:
            losses.append("2026-10 was published and is not")
        Spool(home / "spool").drain(books.store)
        traces = books.store.scan(SPANS).select("trace_key", "span_key").collect()
        if traces.is_duplicated().any():
            losses.append("spans are doubled")
        stored_keys = set(traces["trace_key"])
        with books.database.session() as session:
            checkpoint = session.get(Checkpoint, (SOURCE, "log"))
            position = int(checkpoint.value) if checkpoint else None
        keys_booked = {int(text.split()[1]) for text in promises if text.startswith("delivery")}
        positions = {int(text.split()[1]) for text in promises if text.startswith("checkpoint")}
        if positions and (position is None or position < max(positions)) and not may_unpublish:
            losses.append(f"the checkpoint {max(positions)} was acknowledged and is {position}")
        keys_booked |= {number + 1_000_000 for number in positions if position is not None}
        if lost_keys := keys_booked - stored_keys:
            losses.append(f"acknowledged rows are lost: {sorted(lost_keys)[:5]}")
        if books.store.version(CHARGES) is not None:
            attribute(books)
            losses += _figures(books)
    with Books.open(home) as books:
        if books.repairs:
            losses.append(f"a second start repairs again: {books.repairs[0].reason}")
    return losses


def _figures(books: Books) -> list[str]:
    """What an undisturbed ledger has: the bill, split to the last digit."""
    runs = {month.month: month.run_id for month in published_months(books.database)}
    rows = books.store.scan(COSTS, {"month": [*runs], "run_id": [*runs.values()]}).filter(basis="billed").collect()
    billed_cost = sum_of(rows["billed_cost"])
    return [] if billed_cost == Decimal("0.03") else [f"the bill of 0.03 has costs of {billed_cost}"]


def acknowledge_to(handle: int) -> Acknowledge:
    """Acknowledgements as lines of a pipe."""

    def acknowledge(text: str) -> None:
        os.write(handle, f"{text}\n".encode())

    return acknowledge
