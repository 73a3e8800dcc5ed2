"""Models of gaps: the calls of a gateway that each channel reported or missed."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field

from api.models.base import Money, ResponseModel


class ChannelCounts(ResponseModel):
    """Counts of calls that a channel reported, missed, or reported alone."""

    channel: str = Field(
        description="otlp, litellm (payloads in files), litellm-callback (payloads sent live), litellm-spend-logs."
    )
    calls: int = Field(description="Number of calls of the gateway that any channel reported.")
    known: int = Field(description="Calls that this channel reported.")
    lost: int = Field(description="Calls it missed between the first and the newest call it reported.")
    lost_tokens: int = Field(description="Tokens of the lost calls.")
    lost_list_cost: Money = Field(description="Cost of these calls at list price, where priced.")
    lost_reported_cost: Money = Field(description="Cost of these calls as estimated by the gateway, where given.")
    before: int = Field(description="Calls before the first one it reported: the channel was not configured yet.")
    after: int = Field(description="Calls after the newest one it reported: they may still arrive, or the channel is down.")
    only: int = Field(description="Calls that only this channel reported.")
    only_tokens: int = Field(description="Tokens of these calls.")
    only_list_cost: Money = Field(description="Cost of these calls at list price, where priced.")
    only_reported_cost: Money = Field(description="Cost of these calls as estimated by the gateway, where given.")


class GapRow(ChannelCounts):
    """Counts of a channel in an hour or a day."""

    period_start: datetime = Field(description="Start of the hour or day, in the reporting timezone.")
    examples: list[str] = Field(description="Gateway call ids of lost calls, three at most.")


class ChannelSummary(ChannelCounts):
    """Counts of a channel over the whole range."""

    first: datetime = Field(description="Start of the first call it reported, in the range and the months around it.")
    newest: datetime = Field(description="Start of the newest call it reported.")


class CounterGap(ResponseModel):
    """A counter of an emitter's metrics that differs from the sum of its calls."""

    day: date = Field(description="UTC day.")
    service_name: str | None = Field(description="OpenTelemetry service.name.")
    conversation_id: str | None = Field(description="Session, where the metrics name it.")
    model: str | None = Field(description="Model, where the metrics name it.")
    meter: str = Field(description="What is counted: input_tokens, …, reported_cost.")
    metrics_quantity: Money = Field(description="Quantity by the metrics.")
    calls_quantity: Money = Field(description="Quantity of the calls in spans and events.")
    difference: Money = Field(description="The former minus the latter; above 0, calls are missing from the ledger.")


class Gaps(ResponseModel):
    """Calls that each channel missed."""

    channels: list[ChannelSummary] = Field(description="Each channel over the whole range.")
    rows: list[GapRow] = Field(description="Each channel in each hour or day in which it missed calls, oldest first.")
    total: int = Field(description="Number of rows on all pages.")
    limit: int | None = Field(default=None, description="Maximum number of rows on a page.")
    offset: int = Field(default=0, description="Number of rows that were skipped by `offset`.")
    next: str | None = Field(default=None, description="`cursor` of the next page; null on the last one.")
    counters: list[CounterGap] = Field(
        default=[], description="Where OpenTelemetry metrics and calls differ, by UTC day, oldest first; at most `limit`."
    )
    counters_total: int = Field(default=0, description="Number of such differences.")
    facts_removed: dict[str, str] = Field(
        default_factory=dict, description="Months of the range whose calls or metrics were removed, and when by what."
    )
