"""The gap report: for each channel of a gateway the calls it lost, by hour and day, with what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from api import queries
from api.models import ChannelSummary, GapRow
from api.queries import GapQuery, of_operator
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import METRIC_POINTS
from rootcost.cli import app
from tests.support.api_examples import reach
from tests.support.books_by_hand import SONNET, at, price, span, spans, write

CALLBACK, BUCKET, LOG, OTLP = "litellm-callback", "litellm", "litellm-spend-logs", "otlp"
PRICES = [price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.003")]


def call(number: int, start: datetime, channels: Iterable[str], **told: Any) -> list[dict[str, Any]]:
    """A call of 100 tokens, list price 0.30, of which these channels told."""
    usage: dict[str, Any] = SONNET | {"input_tokens": 100, "reported_cost": Decimal("0.25"), "status": "ok"}
    usage["gateway_call_id"] = f"call-{number:03}"
    return [span(number, number, channel=channel, source=channel, start_time=start, **usage | told) for channel in channels]


def told(books: Books, *calls: list[dict[str, Any]]) -> Books:
    write(books, spans=spans(*(row for rows in calls for row in rows)), prices=PRICES)
    attribute(books)
    return books


def by_channel(books: Books, **query: Any) -> dict[str, ChannelSummary]:
    return {row.channel: row for row in queries.gaps(of_operator(books), GapQuery(**query)).channels}


@pytest.fixture
def outage(books: Books) -> Books:
    """A day of a call every ten minutes. Our receiver is away from 10:00 to 12:00; the bucket is read until 20:00 only; the spend log
    began at 06:00; one call at 15:00 is known to OpenTelemetry alone."""
    calls = []
    for number in range(144):
        start = at(0) + timedelta(minutes=10 * number)
        channels = [OTLP] if start == at(15) else [LOG] * (start >= at(6)) + [BUCKET] * (start < at(20))
        if not at(10) <= start < at(12):
            channels += [CALLBACK] * (start != at(15)) + [OTLP] * (start != at(15))
        calls.append(call(number, start, channels))
    return told(books, *calls)


def test_each_channel_answers_for_its_own_losses(outage: Books) -> None:
    found = by_channel(outage)
    assert {name: (row.calls, row.known, row.lost, row.before, row.after, row.only) for name, row in found.items()} == {
        # 12 calls between 10:00 and 12:00, and the one at 15:00
        CALLBACK: (144, 131, 13, 0, 0, 0),
        OTLP: (144, 132, 12, 0, 0, 1),
        BUCKET: (144, 119, 1, 0, 24, 0),
        LOG: (144, 107, 1, 36, 0, 0),
    }
    callback = found[CALLBACK]
    assert (callback.lost_tokens, callback.lost_list_cost, callback.lost_reported_cost) == (1300, Decimal("3.9"), Decimal("3.25"))
    assert (found[OTLP].only_tokens, found[OTLP].only_list_cost) == (100, Decimal("0.3"))
    assert (found[LOG].first, found[BUCKET].newest) == (at(6), at(19, 50))


def test_losses_by_hour(outage: Books) -> None:
    rows = queries.gaps(of_operator(outage), GapQuery(start=at(9), end=at(16))).rows
    assert [(row.period_start.hour, row.channel, row.lost) for row in rows] == [
        (10, CALLBACK, 6),
        (10, OTLP, 6),
        (11, CALLBACK, 6),
        (11, OTLP, 6),
        (15, BUCKET, 1),
        (15, CALLBACK, 1),
        (15, LOG, 1),
    ]
    assert rows[0].examples == ["call-060", "call-061", "call-062"]
    assert (rows[0].lost_tokens, rows[0].lost_list_cost) == (600, Decimal("1.8"))
    assert sum(row.lost for row in rows if row.channel == CALLBACK) == by_channel(outage)[CALLBACK].lost


def test_a_range_does_not_forget_what_lies_around_it(outage: Books) -> None:
    """Within the outage alone the callback knew nothing at all, and yet it was set up."""
    found = by_channel(outage, start=at(10), end=at(11))
    assert (found[CALLBACK].calls, found[CALLBACK].known) == (6, 0)
    assert (found[CALLBACK].lost, found[CALLBACK].before, found[CALLBACK].after) == (6, 0, 0)
    assert (found[CALLBACK].first, found[CALLBACK].newest) == (at(0), at(23, 50))


def test_days_are_those_of_the_reporting_timezone(outage: Books) -> None:
    zone = outage.settings.report.model_copy(update={"timezone": "Asia/Kolkata"})
    with Books(outage.settings.model_copy(update={"report": zone})) as there:
        rows = [row for row in queries.gaps(of_operator(there), GapQuery(granularity="day")).rows if row.channel == BUCKET]
    # Midnight there is 18:30 here: 15:00 is the day before, 20:00 to 24:00 the day after.
    assert [(row.period_start.isoformat(), row.lost, row.after) for row in rows] == [
        ("2026-10-05T00:00:00+05:30", 1, 0),
        ("2026-10-06T00:00:00+05:30", 0, 24),
    ]


def test_what_went_past_the_gateway_and_what_failed_is_no_gap(books: Books) -> None:
    both = (CALLBACK, OTLP)
    told(
        books,
        call(1, at(9), both),
        call(2, at(10), [OTLP], gateway_call_id=None),
        call(3, at(10), [CALLBACK], status="error", input_tokens=None, reported_cost=None),
        call(4, at(10), [CALLBACK], status="error"),  # failed half-way: it used tokens
        call(5, at(11), both),
    )
    assert {name: (row.calls, row.lost) for name, row in by_channel(books).items()} == {CALLBACK: (3, 0), OTLP: (3, 1)}


def test_where_nothing_is_missing_there_are_no_rows(books: Books) -> None:
    assert queries.gaps(of_operator(books), GapQuery()).channels == []
    told(books, *(call(n, at(n), (CALLBACK, BUCKET)) for n in range(1, 5)))
    found = queries.gaps(of_operator(books), GapQuery())
    assert [(row.channel, row.known, row.lost) for row in found.channels] == [(BUCKET, 4, 0), (CALLBACK, 4, 0)]
    assert (found.rows, found.total) == ([], 0)


def test_the_same_over_http(outage: Books) -> None:
    with reach(outage) as http:
        answer = http.get(
            "/v1/gaps", params={"start": "2026-10-05T09:00:00Z", "end": "2026-10-05T16:00:00Z", "limit": 2, "offset": 1}
        )
        assert answer.status_code == 200
        body = answer.json()
        assert (body["total"], [(r["channel"], r["lost"]) for r in body["rows"]]) == (7, [(OTLP, 6), (CALLBACK, 6)])
        assert {c["channel"]: c["lost_list_cost"] for c in body["channels"]}[CALLBACK] == "3.9"
        assert GapRow.model_validate(body["rows"][0]).period_start == datetime(2026, 10, 5, 10, tzinfo=UTC)
        assert http.get("/v1/gaps", params={"start": "2026-10-05", "end": "2026-10-05"}).status_code == 400
        assert http.get("/v1/gaps", params={"granularity": "year"}).status_code == 422


@pytest.mark.slow
def test_the_command_says_it_in_a_table_and_in_json(outage: Books) -> None:
    home = str(outage.home)
    outage.close()
    run = CliRunner().invoke(app, ["sources", "gaps", "--home", home])
    assert run.exit_code == 0, run.output
    line = next(line.split() for line in run.output.splitlines() if line.strip().startswith(CALLBACK))
    assert line == [CALLBACK, "144", "131", "13", "1,300", "3.90", "0", "0", "0"]
    assert "2026-10-05 10:00" in run.output
    daily = CliRunner().invoke(app, ["sources", "gaps", "--granularity", "day", "--format", "json", "--home", home])
    assert [row["channel"] for row in json.loads(daily.stdout)["rows"]] == [BUCKET, CALLBACK, LOG, OTLP]
    wrong = CliRunner().invoke(app, ["sources", "gaps", "--from", "2026-10-06", "--to", "2026-10-05", "--home", home])
    assert wrong.exit_code == 2 and "--to" in wrong.output


def test_a_ledger_without_a_gateway_says_so(books: Books) -> None:
    home = str(books.home)
    books.close()
    run = CliRunner().invoke(app, ["sources", "gaps", "--home", home])
    assert (run.exit_code, "No call of a gateway" in run.output) == (0, True)


def metric_point(meter: str, quantity: str, day: int = 5, **columns: Any) -> dict[str, Any]:
    """What a counter of Claude Code adds up in one session on one day."""
    moment = datetime(2026, 10, day, 12, tzinfo=UTC)
    return {
        "date": moment.date(),
        "source": "otlp",
        "series": f"{meter}-{day}",
        "name": "claude_code.token.usage",
        "service_name": "claude-code",
        "conversation_id": "s-7",
        "model": SONNET["response_model"],
        "meter": meter,
        "start_time": moment,
        "time": moment,
        "cumulative": False,
        "quantity": Decimal(quantity),
    } | columns


def test_counters_that_differ_from_the_calls(books: Books) -> None:
    """The counter of 5 October holds 130 input tokens, the calls of that session only 100: 30 never arrived. 6 October agrees."""
    usage = SONNET | {"input_tokens": 100, "output_tokens": 7, "service_name": "claude-code", "conversation_id": "s-7"}
    calls = [span(1, 1, start_time=at(9), **usage), span(2, 2, start_time=at(9) + timedelta(days=1), **usage)]
    write(books, spans=spans(*calls))
    points = [metric_point("input_tokens", "130"), metric_point("output_tokens", "7"), metric_point("input_tokens", "100", day=6)]
    books.store.append(METRIC_POINTS, METRIC_POINTS.conform(pl.DataFrame(points, infer_schema_length=None)))
    (counter,) = queries.gaps(of_operator(books), GapQuery()).counters
    assert (counter.day, counter.service_name, counter.conversation_id) == (date(2026, 10, 5), "claude-code", "s-7")
    assert (counter.meter, counter.metrics_quantity, counter.calls_quantity, counter.difference) == (
        "input_tokens",
        Decimal(130),
        Decimal(100),
        Decimal(30),
    )
    assert queries.gaps(of_operator(books), GapQuery(start=at(0) + timedelta(days=1))).counters == []
    assert queries.gaps(of_operator(books), GapQuery(end=at(0))).counters == []
    with reach(books) as http:
        assert [row["difference"] for row in http.get("/v1/gaps").json()["counters"]] == ["30"]

    home = str(books.home)
    books.close()
    table = CliRunner().invoke(app, ["sources", "gaps", "--home", home])
    assert table.exit_code == 0, table.output
    for word in ("Metrics that differ from the calls", "2026-10-05", "claude-code", "s-7", "input_tokens", "130", "100", "30"):
        assert word in table.output, table.output
    answer = json.loads(CliRunner().invoke(app, ["sources", "gaps", "--format", "json", "--home", home]).stdout)
    assert [(row["day"], row["metrics_quantity"], row["difference"]) for row in answer["counters"]] == [
        ("2026-10-05", "130", "30")
    ]
