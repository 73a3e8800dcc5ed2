"""Small and nasty worlds: a dozen spans in four traces, eight charges, owners that move, and senders nobody should trust."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from ledger.ids import trace_key
from ledger.settings import AttributionSettings, IngestSettings, Settings, SharedRule
from tests.oracle.books import World
from tests.oracle.calls import request_ids
from tests.oracle.markets import AMAZON, LISTED, RATES, SEVERAL, billed_by, biller, line_for, line_of_searches, lines_for
from tests.oracle.names import LOG_MODELS, SKUS
from tests.support.books_by_hand import at, charge, span

AGENTS = (" Support-Bot", "researcher", "CX", "newcomer")
"""Agents as spans spell them: mostly as the registry does, but for case and space. (ID-3)"""
BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
MOVE = at(11, 0)
"""When owners change: in the middle of things."""

FORGETFUL = True


@st.composite
def owners(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Registry rows: agents with a team that may change, their other names, and what is told of keys and the like."""
    rows: list[dict[str, Any]] = []

    def add(kind: str, name: str, agent: str, team: str, start: datetime, end: datetime | None, recorded: int) -> None:
        columns = {"kind": kind, "name": name, "agent": agent, "team": team, "account": None, "region": None}
        rows.append({**columns, "valid_from": start, "valid_to": end, "recorded_at": at(0, recorded)})

    moves: dict[str, int] = {}
    for agent, team in (("support-bot", "Care"), ("researcher", "Data"), ("coder", "Dev")):
        fate = draw(st.sampled_from(["stays", "stays", "moves", "moves, told late"]))
        add("agent", agent, agent, team, BEGIN, MOVE if fate == "moves" else None, 1)
        if fate.startswith("moves"):
            add("agent", agent, agent, "Growth", MOVE, None, 2)
            moves[agent] = 2
    for kind, name, agent, team in (
        ("alias", "cx", "coder", "Dev"),
        ("credential", "key-1", "support-bot", "Care"),
        ("principal", "arn:p1", "researcher", "Data"),
        ("service", "indexer", "coder", "Dev"),
        ("resource", "i-gpu", "coder", "Dev"),
    ):
        fate = draw(st.sampled_from(["stays", "stays", "stays" if kind == "alias" else "ends", "unknown"]))
        if fate != "unknown":
            add(kind, name, agent, team, BEGIN, MOVE if fate == "ends" else None, 1)
            # Who says that an agent has moved need not say again what else it is called by.
            if fate == "stays" and agent in moves and not (FORGETFUL and draw(st.booleans())):
                add(kind, name, agent, "Growth", MOVE, None, moves[agent])
    return rows


@st.composite
def _place(draw: st.DrawFn, number: int, traces: Sequence[int]) -> dict[str, Any]:
    """Where a span hangs: nowhere, on a parent that may be missing, itself or below it, or on links across traces."""
    everyone = [(trace, other) for other, trace in enumerate(traces, 1)]
    kin = [other for trace, other in everyone if trace == traces[number - 1]]
    kind = draw(st.sampled_from(["root", "parent", "parent", "parent", "parent", "stray", "link", "links"]))
    if kind == "parent":
        return {"parent": draw(st.sampled_from([k for k in kin if k < number] * 3 + kin))}
    if kind == "stray":
        return {"parent": draw(st.integers(1, len(traces) + 1))}
    if kind == "link":
        return {"link": draw(st.sampled_from([*everyone, (9, 9)]))}
    if kind == "links":
        targets = draw(st.lists(st.sampled_from([*everyone, (9, 9)]), min_size=2, max_size=3))
        ids = [[f"{trace:032x}", f"{target:016x}"] for trace, target in targets]
        return {"link": targets[0], "links": json.dumps(ids)}
    return {}


@st.composite
def counts(draw: st.DrawFn) -> dict[str, Any]:
    """Tokens as an emitter reports them, with its own idea of what includes what."""
    columns: dict[str, Any] = {"input_tokens": draw(st.integers(1, 9)) * 100, "output_tokens": draw(st.integers(0, 5)) * 10}
    shape = draw(st.sampled_from(["plain", "plain", "cached", "written", "thought", "totalled", "contradicted"]))
    inclusive = draw(st.booleans())
    columns["input_includes_cache"] = inclusive
    if shape in ("cached", "totalled", "contradicted"):
        columns["cache_read_tokens"] = 40
    if shape == "written":
        columns |= {"cache_write_tokens": 50, "cache_write_1h_tokens": draw(st.sampled_from([None, 20]))}
    if shape == "thought":
        columns |= {"reasoning_tokens": 0 if columns["output_tokens"] == 0 else 7, "output_includes_reasoning": inclusive}
    if shape == "totalled":
        total = columns["input_tokens"] + columns["output_tokens"] + (0 if inclusive else 40)
        columns |= {"input_includes_cache": None, "total_tokens": total}
    if shape == "contradicted":
        columns["total_tokens"] = columns["input_tokens"] + columns["output_tokens"] + 40
    return columns


@st.composite
def _call(draw: st.DrawFn, senders: Sequence[Any]) -> dict[str, Any]:
    """What a call says of itself beside its usage."""
    silent = draw(st.integers(0, 7)) == 0
    provider, model = draw(st.sampled_from(senders))
    return {
        **({} if silent else draw(counts())),
        "usage_scope": "leaf",
        "provider": provider,
        "response_model": model,
        "account_id": draw(st.sampled_from([None, None, "1111", "2222"])),
        "region": draw(st.sampled_from([None, "us-east-1"])),
        "principal": draw(st.sampled_from([None, None, "arn:p1", "arn:p2"])),
        "service_tier": draw(st.sampled_from([None, None, None, "batch", "flex"])),
        "credential": draw(st.sampled_from([None, None, "key-1", "key-2"])),
        "claimed_agent": draw(st.sampled_from([None, "N/A", "SUPPORT-BOT", "cx"])),
        "provider_request_id": draw(st.sampled_from([None, None, f"r1 of {model}", f"r2 of {model}"])),
        "request_ids": draw(st.sampled_from([None, None, json.dumps([f"r1 of {model}"]), json.dumps(["x-1", "x-2"])])),
        "cache_hit": draw(st.sampled_from([None] * 7 + [True])),
        "attempt": draw(st.sampled_from([None, None, 0, 1])),
    }


@st.composite
def _gateway_row(draw: st.DrawFn, number: int, call: dict[str, Any]) -> dict[str, Any]:
    """The gateway's own record of a call that a span told of: the same figures, in a session of its own or under the same ids."""
    keep = [
        *(
            "usage_scope",
            "provider",
            "response_model",
            "start_time",
            "end_time",
            "provider_request_id",
            "request_ids",
            "gateway_call_id",
            "cache_hit",
        ),
        *("input_tokens", "input_includes_cache", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
        *("output_tokens", "reasoning_tokens", "output_includes_reasoning", "total_tokens"),
    ]
    columns = {column: call[column] for column in keep if column in call}
    if draw(st.integers(0, 3)) == 0:
        # The provider's own log: it knows whose account was billed, and neither key nor chain. (RA-1d)
        columns |= {"channel": "bedrock-logs", "source": "bedrock-logs", "account_id": draw(st.sampled_from(["1111", "2222"]))}
        row = span(900 + number, 900 + number, **columns, region=draw(st.sampled_from([None, "us-east-1"])))
        return row | {"trace_id": row["span_id"], "trace_key": trace_key(row["span_id"])}
    columns |= {"channel": "litellm", "source": "litellm"}
    claim = call.get("claimed_agent") or "support-bot"
    columns |= {"credential": draw(st.sampled_from([None, "key-1"])), "claimed_agent": draw(st.sampled_from([None, claim]))}
    if draw(st.integers(0, 3)) == 0:
        return {**span(1, 1), **columns, **{c: call[c] for c in ("trace_id", "span_id", "trace_key", "span_key")}}
    return span(900 + number, 900 + number, **columns)


def _copied_id(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A call of another key that bears all ids of this one, ten minutes later. (CA-1a)"""
    place = {c: v for c, v in span(800 + number, 800 + number).items() if c.startswith(("trace", "span"))}
    start = row["start_time"] + timedelta(minutes=10)
    return {**row, **place, "credential": "key-2", "start_time": start, "end_time": start + timedelta(minutes=1)}


@st.composite
def _client_row(draw: st.DrawFn, senders: Sequence[Any]) -> dict[str, Any]:
    """A call of which only the gateway knows: agent, trace and conversation are its client's word, the key is not. (CH-7a)"""
    columns = draw(_call(senders))
    if columns.get("input_tokens") and draw(st.integers(0, 2)) == 0:
        # What the call used beside tokens is its own to tell: no other record repeats it.
        columns |= {"other_usage": json.dumps({"web_searches": draw(st.integers(1, 3))}), "request_ids": None}
        columns["provider_request_id"] = None
    key = draw(st.sampled_from(["key-1", "key-1", "key-2", None]))
    team = draw(st.sampled_from([None, "Care", "Data"]))
    return columns | {"channel": "litellm", "source": "litellm", "credential": key, "credential_team": team}


@st.composite
def span_rows(draw: st.DrawFn, most: int = 12, senders: Sequence[Any] = AMAZON) -> list[dict[str, Any]]:
    """Spans of up to four traces: agents, steps, calls, wrappers and holders of a machine, and a gateway's rows about them."""
    rows: list[dict[str, Any]] = []
    traces = draw(st.lists(st.integers(1, 4), min_size=1, max_size=most))
    for number, trace in enumerate(traces, 1):
        kind = draw(st.sampled_from(["step", "agent", "call", "call", "call", "client", "wrapper", "holder"]))
        columns: dict[str, Any] = draw(_place(number, traces))
        columns["start_time"] = at(10) + timedelta(minutes=draw(st.integers(0, 150)))
        columns["conversation_id"] = draw(st.sampled_from([None, None, "chat-1"]))
        columns["service_name"] = draw(st.sampled_from([None, "indexer"]))
        if kind == "agent" or (kind in ("call", "client", "wrapper") and draw(st.integers(0, 3)) == 0):
            columns["agent_name"] = draw(st.sampled_from(AGENTS))
        if kind == "call":
            columns |= draw(_call(senders))
        if kind in ("call", "client") and draw(st.integers(0, 2)) == 0:
            columns["end_time"] = columns["start_time"] + timedelta(minutes=draw(st.integers(1, 130)))
        if kind == "client":
            columns |= draw(_client_row(senders))
            for edge in ("parent", "link", "links"):
                columns.pop(edge, None)
        if kind == "wrapper":
            columns |= draw(counts())
            columns["usage_scope"] = draw(st.sampled_from(["aggregate", "cumulative"]))
            if columns["usage_scope"] == "cumulative":
                columns["process"] = draw(st.sampled_from([None, "pod-1", "pod-2"]))
            columns |= {"provider": "bedrock", "response_model": "amazon.nova-pro-v1:0"}
        if kind == "holder":
            columns |= {"resource_id": draw(st.sampled_from(["i-gpu", "arn:runtime"]))}
            columns["end_time"] = columns["start_time"] + timedelta(minutes=draw(st.integers(0, 100)))
        if kind == "call" and draw(st.integers(0, 2)) == 0:
            columns["gateway_call_id"] = f"g{number}"
        parent = columns.pop("parent", None)
        # Nobody names a gateway's row as a parent or in a link: its id is the gateway's own.
        rows.append(span(trace, 700 + number if kind == "client" else number, parent, **columns))
        if kind == "call" and (columns.get("gateway_call_id") or request_ids(columns)) and draw(st.booleans()):
            rows.append(draw(_gateway_row(number, rows[-1])))
            if rows[-1].get("credential") and draw(st.integers(0, 3)) == 0:
                rows.append(_copied_id(number, rows[-1]))
    return rows


@st.composite
def charge_rows(
    draw: st.DrawFn, rows: Sequence[dict[str, Any]], most: int = 8, senders: Sequence[Any] = AMAZON
) -> list[dict[str, Any]]:
    """A bill: tokens about as logged, a machine, storage, and the credits, taxes and purchases that come with them."""
    names_principals = draw(st.booleans())
    hours = draw(st.sampled_from([1, 24]))
    bill: list[dict[str, Any]] = []
    kinds = ["tokens"] * 5 + ["searches", "model", "machine", "runtime", "storage", "credit", "correction", "tax", "purchase"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=most)):
        start = at(draw(st.sampled_from([10, 11, 12]))) if hours == 1 else at(0)
        account = draw(st.sampled_from(["1111", "2222"]))
        columns: dict[str, Any] = {
            "charge_period_start": start,
            "charge_period_end": start + timedelta(hours=hours),
            "billing_account_id": draw(st.sampled_from(["9999", "9999", "8888"])),
            "sub_account_id": account,
            "principal": draw(st.sampled_from(["arn:p1", "arn:p2"])) if names_principals else None,
            "invoice_id": f"inv-{account}",
            "tags": draw(st.sampled_from([None, '{"team":"n/a"}', '{"team":" GROWTH"}', '{"user_agent":"Cx"}'])),
        }
        columns |= _costs(draw(st.integers(10**9, 10**13)), draw(st.booleans()))
        columns |= draw(_kind_of_charge(kind, rows, start, account, bill, senders))
        bill.append(charge("0", **columns))
    return bill


def _costs(units: int, has_discount: bool) -> dict[str, Decimal]:
    cost = Decimal(units).scaleb(-12)
    paid = (cost * 9 / 10).quantize(Decimal("1e-12")) if has_discount else cost
    return {"billed_cost": paid, "effective_cost": paid, "list_cost": cost, "contracted_cost": paid}


@st.composite
def _kind_of_charge(
    draw: st.DrawFn,
    kind: str,
    rows: Sequence[dict[str, Any]],
    start: datetime,
    account: str,
    bill: Sequence[dict[str, Any]],
    senders: Sequence[Any],
) -> dict[str, Any]:
    if kind == "tokens":
        return draw(_tokens(rows, start, account, senders))
    columns: dict[str, Any]
    if kind == "searches":
        return draw(_searches(rows, account))
    if kind == "model":
        return {"sku_meter": "anthropic/claude-sonnet-4-6", "consumed_unit": None, **biller("OpenRouter"), "sub_account_id": None}
    if kind == "machine":
        columns = {"sku_meter": "USE1-BoxUsage:g5.xlarge", "consumed_unit": "Hrs", "service_name": "Amazon EC2"}
        return {
            **columns,
            "resource_id": "i-gpu",
            "principal": None,
            "consumed_quantity": draw(st.sampled_from([Decimal(1), Decimal(2)])),
        }
    if kind == "runtime":
        columns = {"sku_meter": "USE1-Runtime:Consumption-based:vCPU", "consumed_unit": "vCPU-Hours", "principal": None}
        return {**columns, "resource_id": "arn:runtime", "consumed_quantity": Decimal("0.1")}
    if kind in ("credit", "correction"):
        sale = [row for row in bill if row["charge_category"] == "Usage" and row.get("charge_class") is None]
        if sale:
            columns = dict(draw(st.sampled_from(sale)))
            columns |= {c: -(columns[c] / 10).quantize(Decimal("1e-12")) for c in _costs(1, False)}
            return {**columns, "charge_category": "Credit"} if kind == "credit" else {**columns, "charge_class": "Correction"}
    if kind == "tax":
        # As AWS, Google and Azure write them: of the whole invoice, of an account, of a service that sells or of one of its own.
        columns = {"sku_meter": draw(st.sampled_from([None, "Tax"])), "region_id": None, "principal": None}
        columns["service_name"] = draw(st.sampled_from([None, "Tax", "Amazon Bedrock", "Amazon S3"]))
        columns["sub_account_id"] = draw(st.sampled_from([None, "1111", "2222", "9999"]))
        columns |= draw(st.sampled_from([{}, {}, {"invoice_id": None}, {"invoice_id": "inv-elsewhere"}]))
        return {**columns, "charge_category": "Tax", "consumed_unit": None, "tags": None}
    sku = "ReservedStorage" if kind == "purchase" else "TimedStorage"
    columns = {"service_name": "Amazon S3", "sku_meter": sku, "consumed_unit": "GB-Mo", "principal": None}
    columns["billing_currency"] = draw(st.sampled_from(["USD", "USD", "EUR"]))
    return {**columns, "charge_category": "Purchase" if kind == "purchase" else "Usage"}


@st.composite
def _tokens(
    draw: st.DrawFn, rows: Sequence[dict[str, Any]], start: datetime, account: str, senders: Sequence[Any]
) -> dict[str, Any]:
    """A charge for one meter of one model: about what was logged of it, more, less, or nothing that was."""
    calls = [row for row in rows if row.get("input_tokens") and row["response_model"] in LOG_MODELS]
    columns: dict[str, Any] = {}
    if calls and draw(st.integers(0, 4)) > 0:
        call = draw(st.sampled_from(calls))
        sku, sale = draw(line_for(call, call.get("service_tier"), senders))
        if start != at(0):
            # Some providers bill a call in the hour in which it ended. (RA-3)
            begin = call[draw(st.sampled_from(["start_time", "start_time", "end_time"]))].replace(minute=0)
            columns |= {"charge_period_start": begin, "charge_period_end": begin + timedelta(hours=1)}
    else:
        _, model = draw(st.sampled_from(senders))
        sku, sale = draw(
            st.sampled_from(
                [line for line in lines_for(LOG_MODELS[model].model) if line[1].provider == "AWS"] or lines_for("gpt-4o")
            )
        )
    assert sale.meter is not None
    token_count = sum(row.get(sale.meter) or 0 for row in calls if LOG_MODELS[row["response_model"]].model == sale.model)
    tokens = Decimal(max(token_count, 1)) * Decimal(draw(st.sampled_from(["1", "1", "1.004", "0.996", "0.5", "1.7", "0.01"])))
    # About what the book asks for them: a charge a thousand times off would say that its unit is wrong. Releases differ in price.
    dear = Decimal("1.5") if sale.variant.release == "0806" or sale.variant.geography else Decimal(1)
    list_cost = tokens * RATES[sale.meter] * dear * Decimal(draw(st.sampled_from(["0.5", "1", "2.3"]))) * 10**12
    columns |= _costs(int(list_cost) + draw(st.integers(1, 999)), draw(st.booleans()))
    return {**columns, "sku_meter": sku, **billed_by(sale, account, tokens)}


@st.composite
def _searches(draw: st.DrawFn, rows: Sequence[dict[str, Any]], account: str) -> dict[str, Any]:
    """A charge for searches of the web by any model: about as many as a provider's calls made, or without a number."""
    calls = [row for row in rows if row.get("other_usage") and line_of_searches(row)]
    sku = line_of_searches(draw(st.sampled_from(calls))) if calls else "USE1-WebSearch:Requests"
    assert sku is not None
    count = sum(json.loads(row["other_usage"])["web_searches"] for row in calls if line_of_searches(row) == sku)
    columns = billed_by(SKUS[sku], account, Decimal(1))
    count = Decimal(max(count + draw(st.sampled_from([0, 0, -1, 2])), 1))
    return {**columns, "sku_meter": sku, "consumed_unit": "requests", "consumed_quantity": count}


RULES = [
    SharedRule(name="storage by use", service="Amazon S3", method="proportional"),
    SharedRule(name="tokens evenly", service="Amazon Bedrock", method="even", teams=["Care", "Dev", "Data"]),
    SharedRule(name="purchases", charge_category="Purchase", method="fixed", shares={"Care": Decimal(1), "Dev": Decimal(2)}),
]


@st.composite
def worlds(draw: st.DrawFn, spans: int = 12, charges: int = 8) -> World:
    """Everything at once."""
    senders = draw(st.sampled_from([AMAZON, SEVERAL]))
    rows = draw(span_rows(spans, senders))
    rules = draw(st.lists(st.sampled_from(RULES), unique_by=lambda r: r.name, max_size=2))
    settings = Settings(
        ingest=IngestSettings(trusted_sources=draw(st.sampled_from([[], ["otlp"], ["litellm"], ["otlp", "litellm"]]))),
        attribution=AttributionSettings(shared=rules),
    )
    return World(rows, draw(charge_rows(rows, charges, senders)), draw(owners()), LISTED if draw(st.booleans()) else (), settings)


@st.composite
def worlds_of_bills_in_arrival(draw: st.DrawFn, late_rows: bool = False) -> World:
    """Worlds whose bill is complete, was read in the midst of the day after (ES-1a), or, if asked for, has late rows on the next invoice (RA-2a)."""
    world = draw(worlds())
    read_at = draw(st.sampled_from([None, None, *(at(hour, 30, day=6) for hour in (9, 11, 12))]))
    if read_at is not None:
        return replace(world, charges=[{**row, "read_at": read_at, "final": False} for row in world.charges])
    if not late_rows or draw(st.booleans()):
        return world
    late_lines = {_line(row) for row in world.charges if _sells_tokens(row) and draw(st.integers(0, 2)) == 0}
    late = {"billing_month": "2026-11", "invoice_id": "inv-late"}
    return replace(world, charges=[row | late if _line(row) in late_lines else row for row in world.charges])


def _line(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a charge has in common with its corrections, which come on its invoice."""
    return tuple(row.get(c) for c in ("sku_meter", "sub_account_id", "billing_account_id", "principal", "charge_period_start"))


def _sells_tokens(row: Mapping[str, Any]) -> bool:
    sale = SKUS.get(row.get("sku_meter") or "")
    is_usage = row["charge_category"] == "Usage" and row.get("charge_class") is None
    return sale is not None and sale.model is not None and is_usage


def at_the_edge_of_the_month(world: World) -> World:
    """The same world half a month later: its second hour is the last of October, its third the first of November. (TI-1)

    Prices stay away, since what was paid of them is looked up month by month.
    """
    later = datetime(2026, 10, 31, 22, tzinfo=UTC) - at(10)

    def moves(row: Mapping[str, Any], *fixed_columns: str) -> dict[str, Any]:
        times = {c: v + later for c, v in row.items() if isinstance(v, datetime) and c not in fixed_columns and v != BEGIN}
        return {**row, **times}

    spans = [moves(row) for row in world.spans]
    charges = [moves(row) for row in world.charges]
    return World(
        [{**row, "date": row["start_time"].date()} for row in spans],
        [{**row, "billing_month": f"{row['charge_period_start']:%Y-%m}"} for row in charges],
        [moves(row, "recorded_at") for row in world.owners],
        (),
        world.settings,
    )


def with_starts_of_long_ago(world: World, days: Sequence[int]) -> World:
    """The same world, but what is no call began `days` earlier, in turn; a machine is held since then. (CH-1a)

    Such a span belongs to no conversation: a conversation has no end, and is looked for within the window.
    """
    spans = []
    for number, row in enumerate(world.spans):
        if row.get("usage_scope") is None and row["channel"] == "otlp":
            start = row["start_time"] - timedelta(days=days[number % len(days)])
            row = {**row, "start_time": start, "date": start.date(), "conversation_id": None}
        spans.append(row)
    return World(spans, world.charges, world.owners, world.prices, world.settings)
