"""Models of chains: the list, the tree of spans, and the cost of every call."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.models.base import Money, ResponseModel, describe
from ledger.tables import CALLS, CHAINS, COSTS, SPANS


class ChainSummary(ResponseModel):
    """One chain: all spans connected by parent or link edges."""

    chain_id: str = Field(description=describe(CHAINS, "chain_id"))
    month: str = Field(description=describe(CHAINS, "month"))
    root_name: str | None = Field(default=None, description=describe(CHAINS, "root_name"))
    start_time: datetime = Field(description=describe(CHAINS, "start_time"))
    end_time: datetime | None = Field(default=None, description=describe(CHAINS, "end_time"))
    initiator_agent: str | None = Field(default=None, description=describe(CHAINS, "initiator_agent"))
    initiator_team: str | None = Field(default=None, description=describe(CHAINS, "initiator_team"))
    method: str | None = Field(default=None, description=describe(CHAINS, "method"))
    reason: str | None = Field(default=None, description=describe(CHAINS, "reason"))
    spans: int = Field(description=describe(CHAINS, "spans"))
    calls: int = Field(description=describe(CHAINS, "calls"))
    tokens: int | None = Field(default=None, description=describe(CHAINS, "tokens"))
    list_cost: Money | None = Field(default=None, description=describe(CHAINS, "list_cost"))
    trace_ids: list[str] = Field(default_factory=list, description=describe(CHAINS, "trace_ids"))


class MeterCost(ResponseModel):
    """One meter of a call with its cost in the published run."""

    meter: str = Field(description=describe(COSTS, "meter"))
    quantity: Money = Field(description="Quantity used by the call.")
    own_cost: Money | None = Field(
        default=None, description="The call's share of the cost; null where no published cost matches."
    )
    currency: str | None = Field(default=None, description=describe(COSTS, "currency"))
    basis: str | None = Field(default=None, description="billed, estimated, or mixed where a bill covers part of it.")
    reason: str | None = Field(default=None, description="Why there is no cost; null where there is one.")


class CallCost(ResponseModel):
    """One provider request attempt with its cost."""

    gateway_call_id: str | None = Field(default=None, description=describe(CALLS, "gateway_call_id"))
    provider_request_id: str | None = Field(default=None, description=describe(CALLS, "provider_request_id"))
    trace_id: str | None = Field(default=None, description=describe(SPANS, "trace_id"))
    span_id: str | None = Field(default=None, description=describe(SPANS, "span_id"))
    channels: str = Field(description=describe(CALLS, "channels"))
    start_time: datetime = Field(description=describe(CALLS, "start_time"))
    provider: str | None = Field(default=None, description=describe(CALLS, "provider"))
    model: str | None = Field(default=None, description=describe(CALLS, "model"))
    region: str | None = Field(default=None, description=describe(CALLS, "region"))
    service_tier: str | None = Field(default=None, description=describe(CALLS, "service_tier"))
    initiator_agent: str | None = Field(default=None, description=describe(CALLS, "initiator_agent"))
    initiator_team: str | None = Field(default=None, description=describe(CALLS, "initiator_team"))
    executor_agent: str | None = Field(default=None, description=describe(CALLS, "executor_agent"))
    executor_team: str | None = Field(default=None, description=describe(CALLS, "executor_team"))
    method: str | None = Field(default=None, description=describe(CALLS, "method"))
    reason: str | None = Field(default=None, description=describe(CALLS, "reason"))
    status: str | None = Field(default=None, description=describe(CALLS, "status"))
    list_cost: Money | None = Field(default=None, description=describe(CALLS, "list_cost"))
    own_cost: dict[str, Money] = Field(
        default_factory=dict, description="Cost of the call by currency; empty where no published cost matches."
    )
    meters: list[MeterCost] = Field(default_factory=list, description="Quantity and cost by meter.")


class SpanNode(ResponseModel):
    """One span of a chain's tree. Nodes are listed depth first: a child follows its parent, one level deeper."""

    node_id: str = Field(description="Id of the node within the tree: trace key and span key.")
    parent_id: str | None = Field(default=None, description="Id of the parent node; null for a root.")
    depth: int = Field(description="Number of levels below the root.")
    trace_id: str | None = Field(default=None, description=describe(SPANS, "trace_id"))
    span_id: str | None = Field(default=None, description=describe(SPANS, "span_id"))
    edge: Literal["root", "parent", "link", "cut"] = Field(
        description="How it is connected to its parent node; cut: a cycle was broken here (CH-3)."
    )
    name: str | None = Field(default=None, description=describe(SPANS, "name"))
    operation: str | None = Field(default=None, description=describe(SPANS, "operation"))
    service_name: str | None = Field(default=None, description=describe(SPANS, "service_name"))
    agent_name: str | None = Field(default=None, description=describe(SPANS, "agent_name"))
    tool_name: str | None = Field(default=None, description=describe(SPANS, "tool_name"))
    channels: str = Field(description="Channels that reported it, joined by +.")
    start_time: datetime = Field(description=describe(SPANS, "start_time"))
    end_time: datetime | None = Field(default=None, description=describe(SPANS, "end_time"))
    status: str | None = Field(default=None, description=describe(SPANS, "status"))
    own_cost: dict[str, Money] = Field(
        default_factory=dict, description="Cost of this span alone by currency. Only own costs may be summed. (MO-3)"
    )
    subtree_cost: dict[str, Money] = Field(
        default_factory=dict, description="Cost of this span and its descendants by currency; must not be summed."
    )
    calls: list[CallCost] = Field(default_factory=list, description="Provider requests of this span.")
    redacted: bool = Field(
        default=False, description="Whether it is another team's span, of which only place, time and cost are told."
    )


class ChainLimit(ResponseModel):
    """A budget that was in force when the chain started."""

    budget_id: str = Field(description="Its id, which survives renames.")
    name: str = Field(description="Its name then.")
    revision: int = Field(description="The revision in force: a later raise changes nothing here.")
    scopes: dict[str, str] = Field(description="What it is about: dimensions and names.")
    period: str = Field(description="hour to year, range, or chain.")
    enforcement: str = Field(description="hard or advisory.")
    currency: str = Field(description="Currency of the amounts.")
    limit: Money = Field(description="The limit in force.")
    remaining: Money = Field(description="What use before the chain had left of it; negative if it was overrun.")


class ChainTree(ResponseModel):
    """A chain as a tree of spans, with the cost of every call."""

    chain: ChainSummary
    cost: dict[str, Money] = Field(description="Cost of the whole chain by currency: the sum of the nodes' own costs.")
    basis: str | None = Field(default=None, description="billed, estimated or mixed.")
    unpriced_calls: int = Field(description="Number of calls with at least one meter that no published cost matches.")
    nodes: list[SpanNode] = Field(description="Spans, depth first.")
    limits: list[ChainLimit] = Field(
        default_factory=list, description="Budgets in force when it started, and what remained of them then; outermost first."
    )
