"""Calls that a channel lost, and counters that differ from the calls."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ledger.plurals import counted
from rootcost.terminal.console import Home, open_books, out, out_json, say

if TYPE_CHECKING:
    from api.models.gaps import ChannelCounts, CounterGap, Gaps

_COLUMNS = ("channel", "calls", "known", "lost", "tokens lost", "cost lost", "only here", "before it began", "since its newest")
_NUMBERS = ("calls", "known", "lost", "tokens lost", "only here", "before it began", "since its newest")
_COUNTER_COLUMNS = ("day", "service", "session", "model", "meter", "metrics", "calls", "difference")
_COUNTER_NUMBERS = ("metrics", "calls", "difference")
_LINES = 60


def gaps(
    start: Annotated[
        str, typer.Option("--from", help="First day, month or instant: 2026-10, 2026-10-05. Default: all.", show_default=False)
    ] = "",
    end: Annotated[str, typer.Option("--to", help="First one not counted.", show_default=False)] = "",
    granularity: Annotated[Literal["hour", "day"], typer.Option(help="How time is cut, in the reporting timezone.")] = "hour",
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """Show which channel lost which of the gateway's calls (callback, bucket, spend log, OpenTelemetry), and which metrics differ from calls.

    A call that one channel reported and another did not is lost by the other, if that one knew an earlier and a later call. Calls
    count from the attribution on that followed them. Nothing is missing from the ledger that any channel knew. Counters of
    OpenTelemetry metrics are compared with the calls of the same day, service, session and model: a counter that is higher means
    that calls never arrived.
    """
    from api import queries
    from api.queries import of_operator
    from ledger.periods import parse_bound

    with open_books(home) as books:
        zone = books.settings.report.timezone
        query = queries.GapQuery(
            start=parse_bound(start, field="start", timezone=zone) if start else None,
            end=parse_bound(end, field="end", timezone=zone) if end else None,
            granularity=granularity,
        )
        report = queries.gaps(of_operator(books), query)
    if output == "json":
        out_json(report.model_dump(exclude={"limit", "offset", "next", "total", "counters_total"}))
        return
    _show_channels(report, granularity)
    _show_counters(report)
    for month, removal in report.facts_removed.items():
        say(f"{month}: {removal}; it has no gaps that could be seen")


def _show_channels(report: Gaps, granularity: Literal["hour", "day"]) -> None:
    from rootcost.terminal import tables

    if not report.channels:
        say("No call of a gateway has been attributed yet. Next: rootcost ingest litellm, then rootcost attribute")
        return
    tables.draw(tables.table(_COLUMNS, [_line(channel) for channel in report.channels], money=["cost lost"], numbers=_NUMBERS))
    if not report.rows:
        say("Every channel knew every call.")
        return
    width = 16 if granularity == "hour" else 10
    lines = [{granularity: row.period_start.isoformat(" ")[:width]} | _line(row) for row in report.rows[:_LINES]]
    tables.draw(tables.table((granularity, *_COLUMNS), lines, money=["cost lost"], numbers=_NUMBERS, keep=[granularity]))
    if report.total > _LINES:
        out(f"{counted(report.total - _LINES, 'more line')}: --granularity day, a shorter range, or --format json")


def _show_counters(report: Gaps) -> None:
    """Counters of metrics that differ from the calls; nothing where all agree."""
    from rootcost.terminal import tables

    if not report.counters:
        return
    lines = [_counter_line(counter) for counter in report.counters[:_LINES]]
    title = "Metrics that differ from the calls"
    tables.draw(tables.table(_COUNTER_COLUMNS, lines, numbers=_COUNTER_NUMBERS, title=title, keep=["day", "meter"]))
    if report.counters_total > _LINES:
        out(f"{counted(report.counters_total - _LINES, 'more counter')}: a shorter range, or --format json")


def _counter_line(counter: CounterGap) -> dict[str, Any]:
    from ledger.money import text

    quantities = (counter.metrics_quantity, counter.calls_quantity, counter.difference)
    return {
        "day": counter.day.isoformat(),
        "service": counter.service_name or "",
        "session": counter.conversation_id or "",
        "model": counter.model or "",
        "meter": counter.meter,
    } | dict(zip(_COUNTER_NUMBERS, (text(quantity) or "0" for quantity in quantities), strict=True))


def _line(loss: ChannelCounts) -> dict[str, Any]:
    cost: Decimal = loss.lost_list_cost or loss.lost_reported_cost
    return dict(
        zip(
            _COLUMNS,
            (
                loss.channel,
                f"{loss.calls:,}",
                f"{loss.known:,}",
                f"{loss.lost:,}",
                f"{loss.lost_tokens:,}",
                cost,
                f"{loss.only:,}",
                f"{loss.before:,}",
                f"{loss.after:,}",
            ),
            strict=True,
        )
    )
