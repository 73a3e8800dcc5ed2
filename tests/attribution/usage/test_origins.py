"""CH-1a: distance in time never loses a start. Dollars worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from attribution.run import attribute
from attribution.usage import origins
from ledger.books import Books
from ledger.tables import COSTS, SPANS
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write

D = Decimal
OWNERS = "agent,team\nplanner,Care\ncoder,Dev\ntrainer,Data\n"
LONG_AGO = at(10) - timedelta(days=400)
MACHINE: dict[str, Any] = {
    "sku_meter": "USE1-BoxUsage:g5.xlarge",
    "consumed_unit": "Hrs",
    "consumed_quantity": D(1),
    "service_name": "Amazon EC2",
    "resource_id": "i-gpu",
}


def call(trace: int, number: int, parent: int | None = None, **columns: Any) -> dict[str, Any]:
    """A call of 1 000 tokens at ten o'clock on 5 October."""
    return span(trace, number, parent, input_tokens=1000, **SONNET | columns)


def starts() -> list[dict[str, Any]]:
    """Starts of long ago: a planner whose trace goes on, a queue that a trace links to and that links further back, and a machine that is held."""
    return [
        span(1, 1, agent_name="planner", start_time=LONG_AGO),
        span(1, 2, 1, start_time=at(10) - timedelta(days=90)),
        span(2, 3, link=(4, 5), start_time=at(10) - timedelta(days=60)),
        span(4, 5, 6, start_time=at(10) - timedelta(days=200)),
        span(4, 6, agent_name="coder", start_time=LONG_AGO - timedelta(days=3)),
        span(5, 7, 8, resource_id="i-gpu", start_time=at(10) - timedelta(days=100), end_time=at(10, 15)),
        span(5, 8, agent_name="trainer", start_time=at(10) - timedelta(days=300)),
        # Traces of the same days that nothing refers to.
        span(9, 20, agent_name="planner", start_time=LONG_AGO),
        call(9, 21, 20, start_time=at(10) - timedelta(days=60)),
    ]


def work() -> list[dict[str, Any]]:
    """October's calls: below a parent of July, behind a link to August, and one whose trace begins with itself."""
    return [call(1, 10, 2), call(3, 11, link=(2, 3)), call(6, 12), call(7, 13, 77)]


BILL = [charge("4", tokens_k="4"), charge("3.60", **MACHINE)]
RIGHT = {None: D("2.70"), "coder": D(1), "planner": D(1), "trainer": D("0.90"), "unknown": D(2)}


def october(books: Books) -> dict[str | None, Decimal]:
    """What October's bill is laid to, by initiator."""
    rows = books.store.scan(COSTS, {"month": ["2026-10"]}).filter(pl.col("basis") == "billed")
    newest = rows.filter(pl.col("run_id") == pl.col("run_id").max())
    return dict(newest.group_by("initiator_agent").agg(pl.col("effective_cost").sum()).collect().iter_rows())


def sliced(books: Books, size: int, lookback_days: int = 2) -> None:
    attribution = books.settings.attribution.model_copy(update={"slice_spans": size, "lookback_days": lookback_days})
    books.settings = books.settings.model_copy(update={"attribution": attribution})


@pytest.mark.slow
@pytest.mark.parametrize(("size", "lookback_days"), [(1_000, 2), (1, 0)])
def test_ch1a_a_start_before_the_window_owns_what_it_started(books: Books, size: int, lookback_days: int) -> None:
    """A parent, a link and a held machine of up to 403 days ago, in one partition or several, whatever the lookback."""
    sliced(books, size, lookback_days)
    write(books, spans=spans(*starts(), *work()), charges=charges(*BILL), owners=OWNERS)
    attribute(books, ["2026-10"])
    assert october(books) == RIGHT
    chain = books.store.scan(COSTS, {"month": ["2026-10"]}).filter(pl.col("initiator_agent") == "planner").collect()
    assert chain["initiator_team"].unique().to_list() == ["Care"]
    assert chain["reason"].to_list() == ["coarse_match"], "no parent is missing"


@pytest.mark.slow
def test_ch1a_late_starts_give_what_a_rebuild_gives(books: Books) -> None:
    """The work first and its starts later: October is due again with the starts that it refers to, and another day's spans change nothing."""
    write(books, charges=charges(*BILL), owners=OWNERS)
    for piece in (work(), starts()[3:], starts()[:3]):
        write(books, spans=spans(*piece))
        attribute(books, ["2026-10"])
    assert october(books) == RIGHT
    write(books, spans=spans(span(30, 30, agent_name="coder", start_time=LONG_AGO + timedelta(days=1))))
    assert attribute(books, ["2026-10"]).unchanged == ["2026-10"]
    attribute(books, ["2026-10"], force=True)
    assert october(books) == RIGHT


@pytest.mark.slow
def test_ch1a_a_machine_held_over_a_month_without_a_span_is_its_owners(books: Books) -> None:
    """Acquired in July, released in October; in September nothing else happened. An end of a thousand years is cut after 400 days."""
    hour = {"charge_period_start": at(10) - timedelta(days=20), "charge_period_end": at(11) - timedelta(days=20)}
    bill = charge("3.60", billing_month="2026-09", **MACHINE | hour)
    write(books, spans=spans(starts()[5], starts()[6], *work()), charges=charges(bill), owners=OWNERS)
    write(
        books,
        spans=spans(
            span(50, 50, agent_name="coder", resource_id="i-gpu", start_time=LONG_AGO, end_time=at(10) + timedelta(days=9999))
        ),
    )
    attribute(books, ["2026-09"])
    rows = books.store.scan(COSTS, {"month": ["2026-09"]}).filter(pl.col("basis") == "billed")
    assert dict(rows.group_by("initiator_agent").agg(pl.col("effective_cost").sum()).collect().iter_rows()) == {
        "trainer": D("1.80"),
        "coder": D("1.80"),
    }


@pytest.mark.slow
def test_ch1a_the_index_is_small_and_a_million_links_to_nowhere_are_bounded(books: Books) -> None:
    """An old day of 20 000 traces takes 8 bytes each and 16 for each link; 5 000 links that lead nowhere cost their lookup and nothing else."""
    numbers = pl.int_range(1, 20_001, eager=True)
    old_day = pl.DataFrame({"trace_key": numbers * 7, "span_key": numbers, "start_time": LONG_AGO, "date": LONG_AGO.date()})
    old_day = old_day.with_columns(
        channel=pl.lit("otlp"),
        source=pl.lit("otlp"),
        rank=pl.lit(1),
        link_trace_key=pl.when(numbers <= 5_000).then(-numbers),
        link_span_key=pl.lit(1),
    )
    write(books, spans=SPANS.conform(old_day))
    write(books, spans=spans(*work()), charges=charges(*BILL[:1]), owners=OWNERS)
    attribute(books, ["2026-10"])
    assert october(books) == {"unknown": D(4)}
    folder = books.settings.home / "cache" / "origins"
    (day_files,) = {path.stem for path in folder.glob(f"day-{LONG_AGO:%Y-%m-%d}-*.npz")}
    index = origins.index_day(books.store, f"{LONG_AGO:%Y-%m-%d}", day_files.split("-")[4], folder)
    assert (len(index.keys), len(index.source), len(index.holder)) == (20_000, 5_000, 0)
    size = sum(path.stat().st_size for path in folder.glob(f"{day_files}*"))
    assert size < 8 * 20_000 + 16 * 5_000 + 2_000
    assert np.all(np.diff(index.keys) > 0)
