"""What each channel of a gateway's calls knew, and what it lost."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field

from api.models.base import Money, ResponseModel


class ChannelCounts(ResponseModel):
    """Calls that others knew and a channel did not, and those that only it knew."""

    channel: str = Field(
        description="otlp, litellm (payloads in files), litellm-callback (payloads sent live), litellm-spend-logs."
    )
    calls: int = Field(description="Calls of the gateway, known by any channel.")
    known: int = Field(description="Those that this channel knew.")
    lost: int = Field(description="Those it did not, though it knew an earlier and a later one.")
    lost_tokens: int = Field(description="Tokens of the lost ones.")
    lost_list_cost: Money = Field(description="Their cost at list price, where they have one.")
    lost_reported_cost: Money = Field(description="Their cost as the gateway estimates it, where it does.")
    before: int = Field(description="Calls it did not know from before it knew any: it was not set up yet.")
    after: int = Field(description="Calls it did not know from after its newest one: they may still come, or it is down.")
    only: int = Field(description="Calls that no other channel knew.")
    only_tokens: int = Field(description="Tokens of these.")
    only_list_cost: Money = Field(description="Their cost at list price, where they have one.")
    only_reported_cost: Money = Field(description="Their cost as the gateway estimates it, where it does.")


class GapRow(ChannelCounts):
    """A channel in an hour or a day."""

    period_start: datetime = Field(description="Begin of the hour or day, in the reporting timezone.")
    examples: list[str] = Field(description="Gateway call ids of lost ones, three at most.")


class ChannelSummary(ChannelCounts):
    """A channel over the whole range."""

    first: datetime = Field(description="Start of the first call it knew, in the range and the months around it.")
    newest: datetime = Field(description="Start of the newest call it knew.")


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
    """Which channel lost what."""

    channels: list[ChannelSummary] = Field(description="Each channel over the whole range.")
    rows: list[GapRow] = Field(description="Each channel in each hour or day in which it did not know all, oldest first.")
    total: int = Field(description="Such rows there are, on this page and elsewhere.")
    limit: int | None = Field(default=None, description="Most rows on a page.")
    offset: int = Field(default=0, description="Rows skipped before this page.")
    counters: list[CounterGap] = Field(
        default=[], description="Where OpenTelemetry metrics and calls differ, by UTC day, oldest first; at most `limit`."
    )
    counters_total: int = Field(default=0, description="Number of such differences.")
