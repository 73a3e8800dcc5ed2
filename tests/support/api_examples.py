"""The worked example of the specification as a published ledger, for tests of what is read from it.

One hour, one pool: Bedrock, account 1111, us-east-1, model M, input_tokens. The bill: 10.0 units of 1K tokens, $0.03.
Chain 1 (support-bot, Care): 2 000 tokens itself, 4 000 by researcher (Data). Chain 2 (coder, Dev): 3 000. 1 000 nobody logged.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from api.receivers import ReceivedBatch
from ledger import db
from ledger.books import Books
from ledger.errors import FormatError
from ledger.ids import span_key, trace_key
from ledger.problems import Problem
from ledger.tables import BALANCE, CALLS, CHAINS, CHARGES, COST_COLUMNS, COSTS, LOTS, RATES, SPANS, USAGE_HOURLY, Table

HOUR = datetime(2026, 10, 5, 6, tzinfo=UTC)
TOKEN = "correct-horse-battery"
TRACE_1, TRACE_2 = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
CHAIN_1, CHAIN_2 = f"{TRACE_1}:00000000000000a1", f"{TRACE_2}:00000000000000b1"
RUN, ROLLUP = "run-1", "rollup-1"

WHAT = {"provider": "AWS", "account": "1111", "region": "us-east-1", "service": "Amazon Bedrock", "model": "M"}


def money(text: str) -> dict[str, Decimal]:
    """The same amount in all four cost columns."""
    return dict.fromkeys(COST_COLUMNS, Decimal(text))


def cost(amount: str, **fields: Any) -> dict[str, Any]:
    """A row of `costs`: billed, metered, in the example's hour, unless said otherwise."""
    usual = {
        "run_id": RUN,
        "month": "2026-10",
        "period_start": HOUR,
        "period_end": HOUR + timedelta(hours=1),
        "cost_class": "metered",
        "basis": "billed",
        "charge_category": "Usage",
        "billing_account": "9999",
        "pool_id": "pool-1",
        "lot_id": 0,
        "currency": "USD",
        "meter": "input_tokens",
        **WHAT,
    }
    return {**usual, **money(amount), **fields}


def who(usage_key: int, initiator: str, initiator_team: str, executor: str, executor_team: str) -> dict[str, Any]:
    """Who started a call and who made it, and the row of hourly usage that is theirs."""
    return {
        "usage_key": usage_key,
        "initiator_agent": initiator,
        "initiator_team": initiator_team,
        "executor_agent": executor,
        "executor_team": executor_team,
        "method": "path",
    }


SUPPORT = who(1, "support-bot", "Care", "support-bot", "Care")
RESEARCH = who(2, "support-bot", "Care", "researcher", "Data")
CODER = who(3, "coder", "Dev", "coder", "Dev")

WORKED_EXAMPLE = [
    cost("0.006", quantity=Decimal(2000), **SUPPORT),
    cost("0.012", quantity=Decimal(4000), **RESEARCH),
    cost("0.009", quantity=Decimal(3000), **CODER),
    cost("0.003", cost_class="unallocated", reason="uncaptured_usage", quantity=Decimal(1000)),
]


def publish(
    books: Books, rows: list[dict[str, Any]], *, month: str = "2026-10", run: str = RUN, rollup: str | None = ROLLUP
) -> None:
    """Writes a run's costs and puts it in force for the month."""
    books.store.replace(COSTS, frame(COSTS, rows, month=month, run_id=run), {"month": month, "run_id": run})
    with books.database.session() as session:
        session.merge(
            db.Published(month=month, run_id=run, rollup_ids=[rollup] if rollup else [], published_at=HOUR + timedelta(days=1))
        )


def span(trace: str, span_id: str, parent: str | None = None, *, minute: int = 0, **fields: Any) -> dict[str, Any]:
    """A span of the example's hour."""
    start = HOUR + timedelta(minutes=minute)
    usual = {
        "date": start.date(),
        "channel": "otlp",
        "source": "otlp",
        "trace_key": trace_key(trace),
        "span_key": span_key(span_id),
        "parent_key": None if parent is None else span_key(parent),
        "trace_id": trace,
        "span_id": span_id,
        "parent_span_id": parent,
        "start_time": start,
        "end_time": start + timedelta(seconds=5),
        "status": "ok",
        "rank": 5,
    }
    return {**usual, **fields}


def call(trace: str, span_id: str, chain_id: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """A row of `calls` in the example's hour."""
    usual = {
        "rollup_id": ROLLUP,
        "month": "2026-10",
        "chain_id": chain_id,
        "trace_key": trace_key(trace),
        "span_key": span_key(span_id),
        "channels": "otlp",
        "start_time": HOUR,
        "hour": HOUR,
        "status": "ok",
        "input_tokens": tokens,
        "requests": None,
        "list_cost": Decimal("0.001"),
        **WHAT,
    }
    return {**usual, **fields}


SPAN_ROWS = [
    span(
        TRACE_1,
        "00000000000000a1",
        name="invoke_agent support-bot",
        operation="invoke_agent",
        agent_name="support-bot",
        service_name="care",
    ),
    span(
        TRACE_1,
        "00000000000000a2",
        "00000000000000a1",
        minute=1,
        name="chat M",
        operation="chat",
        usage_scope="leaf",
        input_tokens=2000,
    ),
    span(
        TRACE_1,
        "00000000000000a3",
        "00000000000000a1",
        minute=2,
        name="invoke_agent researcher",
        agent_name="researcher",
        service_name="data",
    ),
    span(
        TRACE_1,
        "00000000000000a4",
        "00000000000000a3",
        minute=3,
        name="chat M",
        usage_scope="leaf",
        gateway_call_id="call-a4",
        input_tokens=4000,
    ),
    # The gateway's own word on the same call: its span id is the gateway's call id, its parent the same agent span.
    span(
        TRACE_1,
        "call-a4",
        "00000000000000a3",
        minute=3,
        channel="litellm",
        source="litellm",
        usage_scope="leaf",
        gateway_call_id="call-a4",
        input_tokens=4000,
    ),
    span(TRACE_2, "00000000000000b1", name="invoke_agent coder", agent_name="coder", service_name="dev"),
    span(TRACE_2, "00000000000000b2", "00000000000000b1", minute=1, name="chat M", usage_scope="leaf", input_tokens=3000),
]
CALL_ROWS = [
    call(TRACE_1, "00000000000000a2", CHAIN_1, 2000, **SUPPORT),
    call(TRACE_1, "00000000000000a4", CHAIN_1, 4000, gateway_call_id="call-a4", channels="litellm+otlp", **RESEARCH),
    call(TRACE_2, "00000000000000b2", CHAIN_2, 3000, **CODER),
]
CHAIN_ROWS = [
    {
        "chain_id": CHAIN_1,
        "root_name": "invoke_agent support-bot",
        "spans": 4,
        "calls": 2,
        "tokens": 6000,
        "list_cost": Decimal("0.002"),
        "trace_ids": [TRACE_1],
    }
    | {k: SUPPORT[k] for k in ("initiator_agent", "initiator_team", "method")},
    {
        "chain_id": CHAIN_2,
        "root_name": "invoke_agent coder",
        "spans": 2,
        "calls": 1,
        "tokens": 3000,
        "list_cost": Decimal("0.001"),
        "trace_ids": [TRACE_2],
    }
    | {k: CODER[k] for k in ("initiator_agent", "initiator_team", "method")},
]
CHARGE = {
    "charge_id": "charge-1",
    "source": "focus",
    "scope": "october.csv",
    "raw_id": "f00d",
    "line": 2,
    "billing_month": "2026-10",
    "billing_currency": "USD",
    "charge_period_start": HOUR,
    "charge_period_end": HOUR + timedelta(hours=1),
    "charge_category": "Usage",
    "charge_description": "1K input tokens of M",
    "provider_name": "AWS",
    "service_name": "Amazon Bedrock",
    "billing_account_id": "9999",
    "sub_account_id": "1111",
    "region_id": "us-east-1",
    **money("0.03"),
}
LOT = {
    **{name: CHARGE[name] for name in LOTS.schema if name in CHARGE},
    "charge_description": CHARGE["charge_description"],
    "lot_id": 0,
    "negative": False,
    "role": "tokens",
    "provider": "AWS",
    "model": "M",
    "meter": "input_tokens",
    "billed_quantity": Decimal(10000),
    "charges": 1,
}


def frame(table: Table, rows: list[dict[str, Any]], **same: Any) -> pl.DataFrame:
    """Rows in a table's types."""
    if not rows:
        return table.empty()
    return pl.DataFrame([{**row, **same} for row in rows], schema_overrides=table.schema, infer_schema_length=None)


def write_calls(books: Books, calls: list[dict[str, Any]]) -> None:
    """Makes these the calls of October, and sums them by their usage key."""
    slice_ = {"month": "2026-10", "rollup_id": ROLLUP}
    books.store.replace(CALLS, frame(CALLS, calls), slice_)
    kept = [
        {k: v for k, v in row.items() if k in USAGE_HOURLY.schema and k != "list_cost"}
        for row in calls
        if row["usage_key"] is not None
    ]
    for row, told in zip(kept, [c for c in calls if c["usage_key"] is not None], strict=True):
        row.update(meter="input_tokens", quantity=Decimal(told["input_tokens"]), calls=1)
    keys = [c for c in USAGE_HOURLY.schema if c not in ("quantity", "calls", "list_cost")]
    summed = USAGE_HOURLY.conform(frame(USAGE_HOURLY, kept)).group_by(keys).agg(pl.col("quantity").sum(), pl.col("calls").sum())
    books.store.replace(USAGE_HOURLY, summed, slice_)


def write_worked_example(books: Books) -> None:
    """The whole example: bill, spans, chains, calls, costs, rate, balance, published."""
    store = books.store
    store.replace(CHARGES, frame(CHARGES, [CHARGE]), {"billing_month": "2026-10", "scope": "october.csv"})
    store.append(SPANS, frame(SPANS, SPAN_ROWS))
    slice_ = {"month": "2026-10", "rollup_id": ROLLUP}
    store.replace(CHAINS, frame(CHAINS, CHAIN_ROWS, **slice_, start_time=HOUR, end_time=HOUR + timedelta(minutes=4)), slice_)
    write_calls(books, CALL_ROWS)
    rate = cost("0.03", level="exact", billed_quantity=Decimal(10000), logged_quantity=Decimal(9000), denominator=Decimal(10000))
    store.replace(
        RATES, frame(RATES, [{k: v for k, v in rate.items() if k in RATES.schema}]), {"month": "2026-10", "run_id": RUN}
    )
    here = {"month": "2026-10", "run_id": RUN}
    store.replace(LOTS, frame(LOTS, [LOT], **here), here)
    held = {"run_id": RUN, "currency": "USD", "invoice_month": "2026-10", "provider": "AWS", "rounding": "0"}
    sums = {
        "charges_in": "0.03",
        "metered": "0.027",
        "owner": "0",
        "shared": "0",
        "idle": "0",
        "unallocated": "0.003",
        "difference": "0",
    }
    totals = [{**held, "cost_column": column, **{k: Decimal(v) for k, v in sums.items()}} for column in COST_COLUMNS]
    store.replace(BALANCE, frame(BALANCE, totals), {"invoice_month": "2026-10", "run_id": RUN})
    publish(books, WORKED_EXAMPLE)


class SmallReceivers:
    """Just enough of ingestion to receive: ids and tokens of OTLP spans, ids and tokens of LiteLLM payloads."""

    def otlp(self, signal: str, body: bytes, content_type: str) -> ReceivedBatch:
        """Spans without a name are refused, so that partial success can be seen; logs and metrics hold nothing."""
        from google.protobuf.json_format import Parse, ParseError  # type: ignore[import-untyped]
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        if signal != "traces":
            return ReceivedBatch()
        try:
            if content_type == "application/json":
                Parse(body, request)
            else:
                request.ParseFromString(body)
        except (DecodeError, ParseError, UnicodeDecodeError) as fault:
            raise FormatError(f"no OTLP: {str(fault)[:80]}", where="body", remedy="send an ExportTraceServiceRequest") from fault
        rows, problems = [], []
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for sent in scope.spans:
                    if not sent.name:
                        problems.append(Problem("otlp", "request", "span", "name", "is empty", "name every span"))
                        continue
                    tokens = next((a.value.int_value for a in sent.attributes if a.key == "gen_ai.usage.input_tokens"), None)
                    start = datetime.fromtimestamp(sent.start_time_unix_nano // 10**9, tz=UTC)
                    made = span(
                        sent.trace_id.hex(),
                        sent.span_id.hex(),
                        sent.parent_span_id.hex() or None,
                        name=sent.name,
                        input_tokens=tokens,
                    )
                    rows.append({**made, "date": start.date(), "start_time": start, "end_time": None})
        return ReceivedBatch(frame(SPANS, rows) if rows else SPANS.empty(), problems, len(problems))

    def litellm(self, body: bytes) -> ReceivedBatch:
        """An object, an array or lines; an item without an id is a problem."""
        try:
            text = body.decode()
            items = (
                json.loads(text)
                if text.lstrip().startswith("[")
                else [json.loads(line) for line in text.splitlines() if line.strip()]
            )
        except ValueError as fault:
            raise FormatError(f"no JSON: {fault}", where="body", remedy="send an object, an array or lines") from fault
        rows = [
            span(TRACE_1, i["id"], channel="litellm", source="litellm", gateway_call_id=i["id"]) for i in items if i.get("id")
        ]
        refused = [
            Problem("litellm", "request", f"item {n}", "id", "is missing", "send the payload whole")
            for n, i in enumerate(items, 1)
            if not i.get("id")
        ]
        return ReceivedBatch(frame(SPANS, rows) if rows else SPANS.empty(), refused, len(refused))


def app_of(books: Books, **options: Any) -> Any:
    """The app over these books."""
    from api.app import create_app
    from rootcost.operations import all_operations

    receivers = options.pop("receivers", None) or SmallReceivers()
    return create_app(books, receivers=receivers, operations=all_operations(), token=TOKEN, **options)


def client_of(app: Any) -> Any:
    """Calls an app without a network; server errors come back as answers."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # starlette recommends another HTTP library
        from fastapi.testclient import TestClient
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def reach(books: Books, **options: Any) -> Any:
    """The app over these books, called without a network."""
    return client_of(app_of(books, **options))
