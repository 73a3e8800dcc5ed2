"""A month drawn in slices is the month drawn at once, and late spans redraw only what they touch."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attribution.chains.components import connected_components
from attribution.run import RunReport, attribute
from attribution.usage import partitions, rollup
from ledger.books import Books
from ledger.settings import Settings
from ledger.tables import CALLS, CHAINS, COSTS, SPANS, USAGE_HOURLY
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write

OWNERS = "agent,team\nalpha,Care\nbeta,Data\ngamma,Dev\n"


def sliced(books: Books, size: int) -> Books:
    """The same books, drawn in slices of about `size` spans."""
    attribution = books.settings.attribution.model_copy(update={"slice_spans": size})
    books.settings = books.settings.model_copy(update={"attribution": attribution})
    return books


def counters(seed: int, traces: int = 12) -> list[dict[str, Any]]:
    """Agents of two processes whose counters run on all over a month, each above a call that reports nothing; few name a conversation."""
    rng, stand = random.Random(seed), {"pod-1": 0, "pod-2": 0}
    rows: list[dict[str, Any]] = []
    for trace in range(1001, 1001 + traces):
        start, process = at(0, day=1) + timedelta(minutes=rng.randrange(30 * 24 * 60)), rng.choice(["pod-1", "pod-2"])
        stand[process] += rng.randint(1, 500)
        columns: dict[str, Any] = {"usage_scope": "cumulative", "process": process, "agent_name": "alpha", "service_name": "app"}
        columns["conversation_id"] = rng.choice([None, None, "talk-9"])
        rows.append(span(trace, 2 * trace, start_time=start, **SONNET | columns | {"input_tokens": stand[process]}))
        rows.append(span(trace, 2 * trace + 1, 2 * trace, start_time=start, **SONNET))
    return rows


def fleet(seed: int, traces: int = 40) -> list[dict[str, Any]]:
    """Request trees all over a month: some cross midnight, link to each other, share a conversation or a gateway's id."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    number = 0
    for trace in range(1, traces + 1):
        begun = at(0, day=1) + timedelta(minutes=rng.randrange(30 * 24 * 60))
        size = rng.randint(1, 5)
        first = number + 1
        for place in range(size):
            number += 1
            told: dict[str, Any] = {"start_time": begun + timedelta(minutes=place * rng.choice([0, 1, 90, 700]))}
            if place == 0 and trace > 1 and rng.random() < 0.3:
                told["link"] = (rng.randint(1, trace - 1), rng.randint(1, first - 1))
            if rng.random() < 0.5:
                told["agent_name"] = rng.choice(["alpha", "beta", "gamma"])
            if rng.random() < 0.2:
                told["conversation_id"] = f"talk-{rng.randint(1, 4)}"
            if place == size - 1:
                told |= SONNET | {"input_tokens": rng.randint(1, 5000), "account_id": "1111", "region": "us-east-1"}
                if rng.random() < 0.3:
                    told["response_model"] = "Claude-4.6-Sonnet"  # no price book knows either spelling
                if rng.random() < 0.3:
                    told["gateway_call_id"] = f"call-{rng.randint(1, 9)}"
            rows.append(span(trace, number, first + rng.randrange(place) if place else None, **told))
    return rows


def the_bill() -> pl.DataFrame:
    return charges(
        *(
            charge(
                "12.34",
                tokens_k=str(7 + day),
                charge_period_start=at(0, day=day),
                charge_period_end=at(0, day=day) + timedelta(days=1),
            )
            for day in range(1, 31)
        )
    )


def concluded(books: Books, report: RunReport) -> pl.DataFrame:
    """What a run came to, in a fixed order."""
    costs = books.store.scan(COSTS, {"run_id": [report.run_id]}).drop("run_id").collect()
    return costs.sort(pl.all())


@pytest.mark.slow
@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])  # a smaller example says no more, and takes minutes
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
def test_slices_do_not_show(tmp_path_factory: pytest.TempPathFactory, seed: int, size: int) -> None:
    """However a month is cut, the same dollars go to the same owners, to the last digit; no call and no chain is met twice."""
    facts = spans(*fleet(seed), *counters(seed))
    outcome = []
    for n in (10**6, size):
        with Books.open(tmp_path_factory.mktemp("home")) as books:
            write(sliced(books, n), spans=facts, charges=the_bill(), owners=OWNERS)
            report = attribute(books, ["2026-10"])
            calls = books.store.scan(CALLS).drop("rollup_id").collect().sort("trace_key", "span_key")
            chains = books.store.scan(CHAINS).drop("rollup_id").collect().sort("chain_id")
            outcome.append((concluded(books, report), calls, chains))
    whole, cut = outcome
    assert whole[0].height > 0
    for one, other in zip(whole, cut, strict=True):
        assert one.equals(other)


def plans(books: Books) -> dict[str, partitions.Partition]:
    return {f"{s.start:%d %H}": s for s in partitions.plan(books.store, "2026-10", books.settings)}


def test_every_span_of_the_month_is_in_one_slice(books: Books) -> None:
    """A group of traces lies in the slice of its last stretch, whole; the rest by their own time."""
    write(sliced(books, 10), spans=spans(*fleet(3, traces=60)))
    held = pl.concat(
        [s.scan(books.store).select("trace_key", "span_key", n=pl.lit(n)) for n, s in plans(books).items()]
    ).collect()
    everything = books.store.scan(SPANS).filter(pl.col("start_time") < at(0, day=31) + timedelta(days=1)).collect()
    assert len(plans(books)) > 4
    assert held.select("trace_key", "span_key").is_unique().all()
    assert set(everything["trace_key"]) == set(held["trace_key"])
    assert held.group_by("trace_key").agg(pl.col("n").n_unique())["n"].max() == 1


@pytest.mark.slow
def test_a_late_day_redraws_its_own_slices(books: Books) -> None:
    """Of a month cut in eight, spans of one day redraw the one slice they are in."""
    quiet = [
        span(
            day,
            day * 10 + n,
            day * 10 if n else None,
            start_time=at(9, n, day=day),
            agent_name="alpha",
            **(SONNET | {"input_tokens": 7} if n else {}),
        )
        for day in range(1, 31)
        for n in range(2)
    ]
    write(sliced(books, 10), spans=spans(*quiet), charges=the_bill(), owners=OWNERS)
    first = attribute(books, ["2026-10"])
    assert first.spans_read == 60
    before = plans(books)
    late = span(99, 990, None, start_time=at(11, day=14), agent_name="beta", **SONNET, input_tokens=11)
    write(books, spans=spans(late))
    after = plans(books)
    changed = [n for n in after if after[n].fingerprint != before[n].fingerprint]
    second = attribute(books, ["2026-10"])
    assert len(changed) == 1
    assert second.spans_read == after[changed[0]].scan(books.store).collect().height < 15
    assert second.balance["difference"].abs().sum() == 0
    calls = sum(frame.height for frame in [books.store.scan(USAGE_HOURLY).filter(pl.col("hour") == at(11, day=14)).collect()])
    assert calls == 1


def test_newest_spans_redraw_a_small_slice_and_what_stands_is_left_alone(books: Books) -> None:
    """Towards the newest spans slices are small, also those of one day; a slice changes with the files of its own time only."""
    times = [at(0, day=1) + timedelta(minutes=130 * n) for n in range(200)]
    write(sliced(books, 256), spans=spans(*(span(n, n, start_time=time, agent_name="alpha") for n, time in enumerate(times, 1))))
    before = {partition.fingerprint for partition in partitions.plan(books.store, "2026-10", books.settings)}
    newest = span(900, 900, start_time=times[-1] + timedelta(minutes=1), agent_name="alpha")
    books.store.append(SPANS, spans(newest))
    after = partitions.plan(books.store, "2026-10", books.settings)
    changed = [partition for partition in after if partition.fingerprint not in before]
    assert len(changed) == 1
    assert changed[0].scan(books.store).collect().height <= 4
    assert len(after) > 3
    assert sum(partition.scan(books.store).collect().height for partition in after) == 201


@pytest.mark.slow
def test_a_late_day_comes_to_the_same_as_all_at_once(tmp_path: Path) -> None:
    """In whatever order the days came, the conclusions are those of a ledger that had them all."""
    rows = fleet(8, traces=50)
    outcome = []
    for name, batches in (
        ("once", [rows]),
        ("late", [[r for r in rows if r["date"].day != 14], [r for r in rows if r["date"].day == 14]]),
    ):
        with Books.open(tmp_path / name) as books:
            sliced(books, 12)
            reports = []
            for batch in batches:
                write(books, spans=spans(*batch), charges=the_bill(), owners=OWNERS)
                reports.append(attribute(books, ["2026-10"]))
            outcome.append(concluded(books, reports[-1]))
    assert outcome[0].equals(outcome[1])


@pytest.mark.slow
def test_a_pass_that_dies_shows_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was staged before a slice failed is in no table, and the next run starts afresh."""
    write(sliced(books, 12), spans=spans(*fleet(5)), charges=the_bill(), owners=OWNERS)
    real, seen = rollup.build_rollup, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if len(seen) == 4:
            raise MemoryError("the machine went away")
        return real(*args, **kwargs)

    monkeypatch.setattr(rollup, "build_rollup", failing)
    with pytest.raises(MemoryError):
        attribute(books, ["2026-10"])
    assert books.store.scan(CALLS).collect().height == 0
    monkeypatch.undo()
    report = attribute(books, ["2026-10"])
    assert report.published
    assert report.balance["difference"].to_list() == [Decimal(0)] * 4


@pytest.mark.slow
def test_settings_of_speed_do_not_redraw(books: Books) -> None:
    """How many slices are drawn side by side changes no conclusion, so nothing is drawn again for it."""
    write(books, spans=spans(*fleet(2)), charges=the_bill(), owners=OWNERS)
    attribute(books, ["2026-10"])
    faster = books.settings.attribution.model_copy(update={"workers": 4})
    books.settings = Settings.model_copy(books.settings, update={"attribution": faster})
    assert attribute(books, ["2026-10"]).unchanged == ["2026-10"]


def test_groups_of_a_chain_of_ties() -> None:
    """A long chain of ties in any order is one group."""
    pairs = [(n, n + 1) for n in range(200)]
    random.Random(1).shuffle(pairs)
    nodes, label = connected_components([a for a, _ in pairs] + [900], [b for _, b in pairs] + [901])
    assert len(nodes) == 203
    assert len(set(label[:201])) == 1
    assert label[-1] == label[-2] != label[0]


def test_text_that_is_the_same_in_every_row_is_not_read(books: Books) -> None:
    """Also where one file has no value, or another one, or rows without: then the column is read like any other."""
    rows = [
        span(1, 1, source="app", tenant="t", workflow="w", environment="prod"),
        span(2, 2, source="app", tenant="t", workflow="w", environment=None),
        span(3, 3, source="app", tenant="u", workflow=None, environment=None, start_time=at(9, day=6)),
    ]
    for row in rows:  # a file each
        books.store.append(SPANS, spans(row))
    (partition,) = partitions.plan(books.store, "2026-10", books.settings)
    read_spans = partition.scan(books.store)
    assert read_spans.collect_schema().names()[-2:] == ["channel", "source"]
    columns = [name for name in SPANS.schema if name in read_spans.collect_schema().names()]
    stored_spans = books.store.scan(SPANS).collect().sort("span_key")
    assert read_spans.select(columns).collect().sort("span_key").equals(stored_spans.select(columns))
    assert stored_spans.drop(columns).null_count().row(0) == (3,) * len(stored_spans.drop(columns).columns)
