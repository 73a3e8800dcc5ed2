"""What the books hold: every table and column, declared once, each with a sentence of why.

Storage checks, `docs/tables.md` and the API's field descriptions are derived from here. Bills speak FOCUS, spans speak
OpenTelemetry, allocation speaks FinOps. Times are UTC microseconds, intervals ``[start, end)``; money is `ledger.money.MONEY`.

*Facts* are only added, or replaced period by period (a restated bill). *Conclusions* carry the id of the run that drew them
and can be deleted and rebuilt.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ledger.charge_groups import CHARGE_GROUP_COLUMNS
from ledger.meters import METERS as METERS
from ledger.meters import TOKEN_METERS as TOKEN_METERS
from ledger.metric_points import METRIC_POINTS as METRIC_POINTS
from ledger.money import MONEY, RATE
from ledger.schema import Column as Column
from ledger.schema import Table as Table

TIME = pl.Datetime("us", "UTC")

COST_COLUMNS = ("billed_cost", "effective_cost", "list_cost", "contracted_cost")
"""The four cost columns of FOCUS. All are allocated by the same weights (RA-6)."""

COST_CLASSES = ("metered", "owner", "shared", "idle", "unallocated")
"""Where a dollar ends up. Their sum is the bill (MO-2)."""

USAGE_COLUMNS = (*TOKEN_METERS, "cache_write_tokens", "total_tokens")
"""Columns of `spans` that hold token counts as reported: not yet disjoint, absent is null."""


def _c(name: str, dtype: pl.DataType | type[pl.DataType], description: str, *, required: bool = False) -> Column:
    return Column(name, dtype, description, required)


_COSTS = (
    _c("billed_cost", MONEY, "FOCUS BilledCost: what is invoiced"),
    _c("effective_cost", MONEY, "FOCUS EffectiveCost: with commitments amortised; the default of reports"),
    _c("list_cost", MONEY, "FOCUS ListCost: at the public price"),
    _c("contracted_cost", MONEY, "FOCUS ContractedCost: at the negotiated price, before commitments"),
)

CHARGES = Table(
    "charges",
    "fact",
    "The bill, row for row, in FOCUS terms, whatever the provider's own format was.",
    key=("scope", "billing_month", "charge_id"),
    partition_by=("billing_month", "scope"),
    columns=(
        _c(
            "charge_id",
            pl.String,
            "stable id of the row: hash of its content, and its ordinal among identical rows",
            required=True,
        ),
        _c("source", pl.String, "which ingestor read it: focus, aws-cur, …", required=True),
        _c("scope", pl.String, "what is replaced together when restated: an export, or a file's dataset", required=True),
        _c("raw_id", pl.String, "the imported file or object it came from", required=True),
        _c("line", pl.Int64, "row number in that file, from 1"),
        _c("billing_month", pl.String, "the invoice month, YYYY-MM, as the bill has it", required=True),
        _c("final", pl.Boolean, "false while the provider may still restate the month"),
        _c("billing_currency", pl.String, "FOCUS BillingCurrency; part of every key", required=True),
        *_COSTS,
        _c("charge_period_start", TIME, "FOCUS ChargePeriodStart, inclusive", required=True),
        _c("charge_period_end", TIME, "FOCUS ChargePeriodEnd, exclusive", required=True),
        _c("charge_category", pl.String, "FOCUS: Usage, Purchase, Tax, Credit, Adjustment", required=True),
        _c("charge_class", pl.String, "FOCUS: Correction, or null"),
        _c("charge_description", pl.String, "the provider's own sentence"),
        _c("charge_frequency", pl.String, "FOCUS ChargeFrequency"),
        _c("provider_name", pl.String, "FOCUS ProviderName (ServiceProviderName from 1.3)", required=True),
        _c("publisher_name", pl.String, "FOCUS PublisherName"),
        _c("invoice_issuer_name", pl.String, "FOCUS InvoiceIssuerName"),
        _c("invoice_id", pl.String, "FOCUS InvoiceId; empty while provisional"),
        _c("billing_account_id", pl.String, "FOCUS BillingAccountId (payer)"),
        _c("billing_account_name", pl.String, "FOCUS BillingAccountName"),
        _c("sub_account_id", pl.String, "FOCUS SubAccountId (usage account, subscription, project)"),
        _c("sub_account_name", pl.String, "FOCUS SubAccountName"),
        _c("service_name", pl.String, "FOCUS ServiceName"),
        _c("service_category", pl.String, "FOCUS ServiceCategory"),
        _c("product_code", pl.String, "the provider's machine name of the service (AmazonBedrock, …)"),
        _c("region_id", pl.String, "FOCUS RegionId"),
        _c("resource_id", pl.String, "FOCUS ResourceId: instance, runtime or inference profile"),
        _c("resource_name", pl.String, "FOCUS ResourceName"),
        _c("resource_type", pl.String, "FOCUS ResourceType"),
        _c("sku_id", pl.String, "FOCUS SkuId"),
        _c("sku_price_id", pl.String, "FOCUS SkuPriceId"),
        _c("sku_meter", pl.String, "FOCUS SkuMeter, or AWS usage type: names model, direction, tier"),
        _c("operation", pl.String, "AWS operation"),
        _c("line_item_type", pl.String, "AWS line item type, as written"),
        _c("pricing_category", pl.String, "FOCUS PricingCategory"),
        _c("pricing_quantity", MONEY, "FOCUS PricingQuantity"),
        _c("pricing_unit", pl.String, "FOCUS PricingUnit"),
        _c("list_unit_price", RATE, "FOCUS ListUnitPrice"),
        _c("contracted_unit_price", RATE, "FOCUS ContractedUnitPrice"),
        _c("consumed_quantity", MONEY, "FOCUS ConsumedQuantity"),
        _c("consumed_unit", pl.String, "FOCUS ConsumedUnit"),
        _c("commitment_discount_id", pl.String, "FOCUS CommitmentDiscountId"),
        _c("commitment_discount_status", pl.String, "FOCUS CommitmentDiscountStatus: Used or Unused"),
        _c("principal", pl.String, "IAM principal that made the calls, where the bill says so"),
        _c("tags", pl.String, "FOCUS Tags as a flat JSON object, keys as the provider writes them"),
    ),
)

RAW_FILES = Table(
    "raw_files",
    "fact",
    "What was read: every file or object, by content, so that a number can be traced to bytes.",
    key=("source", "raw_id", "uri"),
    partition_by=("source",),
    columns=(
        _c("raw_id", pl.String, "SHA-256 of the bytes", required=True),
        _c("source", pl.String, "which ingestor read it", required=True),
        _c("uri", pl.String, "where it came from", required=True),
        _c("scope", pl.String, "the dataset it belongs to", required=True),
        _c("billing_month", pl.String, "the month it states, for bills"),
        _c("bytes", pl.Int64, "size as fetched", required=True),
        _c("rows_read", pl.Int64, "rows kept", required=True),
        _c("rows_refused", pl.Int64, "rows in `problems`", required=True),
        _c("fetched_at", TIME, "when it was read", required=True),
        _c("version", pl.String, "the sender's own version: execution id, ETag"),
    ),
)

IMPORT_TOTALS = Table(
    "import_totals",
    "fact",
    "What the file itself adds up to, at full precision: the other side of the balance. (MO-1a)",
    key=("scope", "billing_month", "currency", "provider", "cost_column"),
    partition_by=("billing_month", "scope"),
    columns=(
        _c("scope", pl.String, "the dataset", required=True),
        _c("billing_month", pl.String, "invoice month", required=True),
        _c("currency", pl.String, "billing currency", required=True),
        _c("provider", pl.String, "as `charges.provider_name`", required=True),
        _c("cost_column", pl.String, "one of the four FOCUS cost columns", required=True),
        _c("total", pl.String, "sum as written, all digits", required=True),
        _c("rounding", pl.String, "that sum minus the sum of the rounded rows", required=True),
        _c("rows", pl.Int64, "rows summed", required=True),
    ),
)

SPANS = Table(
    "spans",
    "fact",
    "One node of a request chain: an OpenTelemetry span, or a gateway's log row. Several can describe the same call.",
    key=("date", "trace_key", "span_key", "channel"),
    partition_by=("date",),
    columns=(
        _c("date", pl.Date, "UTC date of the start; the partition", required=True),
        _c(
            "channel",
            pl.String,
            "what told us: otlp, litellm (payloads in files), litellm-callback (payloads sent live), litellm-spend-logs",
            required=True,
        ),
        _c("source", pl.String, "the ingestor", required=True),
        _c("raw_id", pl.String, "file, object or request it came in"),
        _c("trace_key", pl.Int64, "low 64 bits of the trace id (see `ledger.ids`)", required=True),
        _c("span_key", pl.Int64, "the span id as an integer, or a hash of the row's own id", required=True),
        _c("parent_key", pl.Int64, "span_key of the parent, in the same trace"),
        _c("link_trace_key", pl.Int64, "first span link: its trace"),
        _c("link_span_key", pl.Int64, "first span link: its span"),
        _c("links", pl.String, "all links, JSON [[trace id, span id], …], where there is more than one"),
        _c("trace_id", pl.String, "as sent; 32 hex digits for OpenTelemetry"),
        _c("span_id", pl.String, "as sent; 16 hex digits for OpenTelemetry"),
        _c("parent_span_id", pl.String, "as sent"),
        _c("start_time", TIME, "start of the work; decides the charge period, never ownership (CH-6)", required=True),
        _c("end_time", TIME, "end of the work"),
        _c("service_name", pl.String, "OTel service.name"),
        _c("name", pl.String, "span name"),
        _c("operation", pl.String, "OTel gen_ai.operation.name: chat, embeddings, invoke_agent, execute_tool, …"),
        _c("emitter", pl.String, "which library spoke; a row of the emitter table"),
        _c("usage_scope", pl.String, "leaf (one provider request), aggregate or cumulative (repeats others), null: no call"),
        _c("status", pl.String, "ok or error"),
        _c("agent_id", pl.String, "stable agent id, as the span itself says"),
        _c("agent_name", pl.String, "agent name, as the span itself says"),
        _c("claimed_agent", pl.String, "root agent named by baggage, header or request tag; counts only if trusted (CH-7)"),
        _c("claimed_team", pl.String, "team named the same way"),
        _c("conversation_id", pl.String, "OTel gen_ai.conversation.id, or the gateway's session"),
        _c("credential", pl.String, "API key alias or hash, as the gateway authenticated it"),
        _c("credential_team", pl.String, "team the gateway holds the key for"),
        _c("principal", pl.String, "cloud identity that made the call"),
        _c("end_user", pl.String, "opaque id of the person served"),
        _c("tenant", pl.String, "customer or business unit served"),
        _c("environment", pl.String, "OTel deployment.environment.name"),
        _c("workflow", pl.String, "OTel gen_ai.workflow.name or the like"),
        _c("tool_name", pl.String, "OTel gen_ai.tool.name"),
        _c("gateway_call_id", pl.String, "LiteLLM call id: the same on every channel (CA-1)"),
        _c("provider_request_id", pl.String, "the provider's response id; evidence, not proof (CA-1)"),
        _c("provider", pl.String, "as emitted: openai, bedrock, …"),
        _c("request_model", pl.String, "model asked for"),
        _c("response_model", pl.String, "model that answered"),
        _c("deployment_id", pl.String, "gateway's id of the deployment"),
        _c("api_base", pl.String, "endpoint called, without credentials"),
        _c("account_id", pl.String, "cloud account, subscription or project, where known"),
        _c("region", pl.String, "cloud region, where known"),
        _c("service_tier", pl.String, "batch, flex, priority, …; null is standard"),
        _c("resource_id", pl.String, "inference profile, runtime, database or node that served it"),
        _c("input_tokens", pl.Int64, "as reported; see input_includes_cache. Absent is null, never 0 (CA-4)"),
        _c("input_includes_cache", pl.Boolean, "whether input_tokens counts cached ones; null: unknown (CA-5)"),
        _c("cache_read_tokens", pl.Int64, "as reported"),
        _c("cache_write_tokens", pl.Int64, "as reported, lifetime unknown"),
        _c("cache_write_5m_tokens", pl.Int64, "as reported"),
        _c("cache_write_1h_tokens", pl.Int64, "as reported"),
        _c("output_tokens", pl.Int64, "as reported; see output_includes_reasoning"),
        _c("output_includes_reasoning", pl.Boolean, "whether output_tokens counts reasoning; null: unknown"),
        _c("reasoning_tokens", pl.Int64, "as reported"),
        _c("input_audio_tokens", pl.Int64, "as reported"),
        _c("output_audio_tokens", pl.Int64, "as reported"),
        _c("input_image_tokens", pl.Int64, "as reported"),
        _c("output_image_tokens", pl.Int64, "as reported"),
        _c("total_tokens", pl.Int64, "as reported; decides inclusive or exclusive where unknown"),
        _c(
            "other_usage",
            pl.String,
            "what else was used: JSON {meter: quantity}, meters of METERS; null where nothing, the common case",
        ),
        _c("cache_hit", pl.Boolean, "answered by the gateway's own cache: costs 0 (CA-4)"),
        _c("reported_cost", RATE, "cost as the emitter estimates it; compared, never booked"),
        _c("attempt", pl.Int64, "retry number, from 0"),
        _c(
            "phase",
            pl.String,
            "overhead: no user's turn asked for it (a title, a recap, routing, a guardrail); null: ordinary work",
        ),
        _c("attributes", pl.String, "other mapped attributes, JSON"),
        _c("rank", pl.Int32, "how much the row tells; of two deliveries the fuller one is kept", required=True),
    ),
)

PRICES = Table(
    "prices",
    "fact",
    "The price book: one rate per model, meter, tier, context size and region, valid from a date. History is never rewritten. (ES-2)",
    key=("origin", "provider", "model", "meter", "service_tier", "context_above", "region", "valid_from"),
    partition_by=("origin",),
    columns=(
        _c("origin", pl.String, "list, contract or observed", required=True),
        _c("book", pl.String, "which list it was read from, with its version", required=True),
        _c("provider", pl.String, "as the list names it", required=True),
        _c("model", pl.String, "as the list names it", required=True),
        _c("meter", pl.String, "what is sold, a key of METERS", required=True),
        _c(
            "service_tier",
            pl.String,
            "standard, batch, flex, priority, fast, …; off_peak: at the hours of `hours`",
            required=True,
        ),
        _c("context_above", pl.Int64, "rate holds for requests with more prompt tokens than this; 0: all", required=True),
        _c("region", pl.String, "region the rate is for; regional: any but global; empty: any", required=True),
        _c("currency", pl.String, "currency of the rate", required=True),
        _c("rate", RATE, "price of one unit of the meter", required=True),
        _c("valid_from", TIME, "usage from here on is priced with it", required=True),
        _c("valid_to", TIME, "usage from here on is not, as when a contract ends; null: until a later rate"),
        _c("hours", pl.String, 'of an off_peak rate: JSON [{"hours_utc": ["16:30-00:30"], "weekdays": [1], "timezone": "UTC"}]'),
        _c("recorded_at", TIME, "when we learnt it", required=True),
    ),
)

PRICES_STAGED = Table(
    "prices_staged",
    "fact",
    "Rates of a price update that look wrong: they wait here, priced with by nobody, until somebody accepts or rejects them.",
    key=PRICES.key,
    partition_by=("origin",),
    columns=(
        *PRICES.columns,
        _c("uri", pl.String, "the file it was read from", required=True),
        _c("old_rate", RATE, "the rate in force at that time, if there is one"),
        _c("doubt", pl.String, "what looks wrong", required=True),
    ),
)

EXCHANGE_RATES = Table(
    "exchange_rates",
    "fact",
    "What one unit of a currency was worth in another, day by day, and who said so. Only applied where it is asked for and named. (RA-7)",
    key=("from_currency", "to_currency", "day", "recorded_at"),
    partition_by=("from_currency",),
    columns=(
        _c("from_currency", pl.String, "ISO 4217 code of what is exchanged", required=True),
        _c("to_currency", pl.String, "ISO 4217 code of what it is counted in", required=True),
        _c("day", pl.Date, "the day it is the rate of; it holds until the next one, for 31 days at most", required=True),
        _c("rate", RATE, "units of to_currency for one of from_currency", required=True),
        _c("source", pl.String, "who published it: ECB, the invoice, the treasury", required=True),
        _c("recorded_at", TIME, "when we learnt it; of two for one day the later one holds", required=True),
    ),
)

_WHO = (
    _c("initiator_agent", pl.String, "agent that started the chain (CH-4)"),
    _c("initiator_team", pl.String, "team that owned it when the call started (ID-1)"),
    _c("executor_agent", pl.String, "nearest agent at or above the call (CH-5)"),
    _c("executor_team", pl.String, "team that owned it then"),
    _c("method", pl.String, "how the initiator was found: path, claim, conversation, credential, principal, service, unknown"),
    _c("workflow", pl.String, "workflow of the call"),
    _c("tenant", pl.String, "tenant of the call"),
    _c("environment", pl.String, "environment of the call"),
)
_WHAT = (
    _c("provider", pl.String, "canonical provider, e.g. AWS, OpenAI"),
    _c("account", pl.String, "sub account: usage account, subscription, project"),
    _c("region", pl.String, "cloud region"),
    _c("service", pl.String, "service of the provider"),
    _c("model", pl.String, "canonical model"),
    _c("meter", pl.String, "a key of METERS"),
    _c("service_tier", pl.String, "standard, batch, flex, priority, …"),
    _c("context_above", pl.Int64, "context tier: prompt tokens above this; 0: base"),
    _c("resource", pl.String, "resource or inference profile"),
    _c("principal", pl.String, "cloud identity"),
)

CHAINS = Table(
    "chains",
    "conclusion",
    "One row per chain: all spans connected by parent or link edges, across services and traces.",
    key=("rollup_id", "chain_id"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the pass over the spans that drew it", required=True),
        _c("month", pl.String, "UTC month of its start, YYYY-MM", required=True),
        _c("chain_id", pl.String, "root span: trace id and span id", required=True),
        _c("root_name", pl.String, "name of the root span"),
        _c("start_time", TIME, "start of the first span", required=True),
        _c("end_time", TIME, "end of the last span"),
        _c("initiator_agent", pl.String, "agent of most of its cost"),
        _c("initiator_team", pl.String, "its team"),
        _c("method", pl.String, "how the initiator was found"),
        _c("reason", pl.String, "what was odd about it: missing_parent, cycle, fan_in"),
        _c("spans", pl.Int64, "spans in it", required=True),
        _c("calls", pl.Int64, "calls in it", required=True),
        _c("tokens", pl.Int64, "tokens used by them"),
        _c("list_cost", MONEY, "their cost at list price, where priced"),
        _c("trace_ids", pl.List(pl.String), "traces it runs through", required=True),
    ),
)

SHARES = pl.List(
    pl.Struct(
        {
            "usage_key": pl.Int64,
            "initiator_agent": pl.String,
            "initiator_team": pl.String,
            "executor_agent": pl.String,
            "executor_team": pl.String,
            "numerator": pl.Int64,
            "denominator": pl.Int64,
        }
    )
)
"""Owners of one call and the parts they have in it; quantities are split by them in the order of their usage keys."""

CALLS = Table(
    "calls",
    "conclusion",
    "One provider request attempt, whatever number of signals described it: the only thing that bears metered usage. (CA-1)",
    key=("rollup_id", "trace_key", "span_key"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the pass over the spans that drew it", required=True),
        _c("month", pl.String, "UTC month of its start, YYYY-MM", required=True),
        _c("chain_id", pl.String, "the chain it is in", required=True),
        _c("trace_key", pl.Int64, "as in `spans`", required=True),
        _c("span_key", pl.Int64, "as in `spans`", required=True),
        _c("trace_id", pl.String, "as sent"),
        _c("span_id", pl.String, "as sent"),
        _c("gateway_call_id", pl.String, "the gateway's id of the call"),
        _c("provider_request_id", pl.String, "the provider's id of the call"),
        _c("channels", pl.String, "which channels told of it, joined by +", required=True),
        _c("start_time", TIME, "start of the call", required=True),
        _c("hour", TIME, "hour it is charged to", required=True),
        _c("usage_key", pl.Int64, "the usage_hourly row it was summed into; null for a gateway cache hit"),
        *_WHO,
        *(c for c in _WHAT if c.name != "meter"),
        _c("reason", pl.String, "flags: missing_parent, aggregate_only, unpriced, cache_hit, retry, …"),
        _c("source", pl.String, "ingestor that saw it"),
        _c("status", pl.String, "ok or error"),
        *(_c(meter, pl.Int64, METERS[meter]) for meter in TOKEN_METERS),
        _c("requests", pl.Int64, METERS["requests"]),
        _c("list_cost", MONEY, "at the price book as of its start; null where unpriced, 0 for a cache hit"),
        _c("reported_cost", RATE, "as its emitter estimated it"),
        _c("other_usage", pl.String, "what else it used: JSON {meter: quantity}; null where nothing, the common case"),
        _c(
            "shares",
            SHARES,
            "of a call that several chains asked for (CH-1 fan-in): who else owns it, in parts that sum to 1, the first as in "
            "the columns above; null where one owner has it all, the common case",
        ),
    ),
)

USAGE_HOURLY = Table(
    "usage_hourly",
    "conclusion",
    "Additive quantities by hour and dimension: all that pricing and rating need, so that a bill never rereads spans.",
    key=("rollup_id", "hour"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the pass over the spans that drew it", required=True),
        _c("month", pl.String, "UTC month of the hour, YYYY-MM", required=True),
        _c("hour", TIME, "start of the hour, UTC", required=True),
        _c("usage_key", pl.Int64, "names hour, owner and dimensions together, without the meter", required=True),
        *_WHO,
        *_WHAT,
        _c("reason", pl.String, "flags of the calls: missing_parent, aggregate_only, input_semantics_unknown, …"),
        _c("source", pl.String, "ingestor that saw the calls"),
        _c("quantity", MONEY, "sum of the meter; tokens, requests, seconds", required=True),
        _c("calls", pl.Int64, "calls it sums", required=True),
        _c("list_cost", MONEY, "at the price book as of the call; null where unpriced"),
    ),
)

COSTS = Table(
    "costs",
    "conclusion",
    "The result: money on initiator, executor and every dimension, with a class, a method and a reason.",
    key=("run_id",),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month, YYYY-MM; UTC month for estimates", required=True),
        _c("period_start", TIME, "charge period start: the hour for hourly bills", required=True),
        _c("period_end", TIME, "charge period end", required=True),
        _c("cost_class", pl.String, "metered, owner, shared, idle or unallocated", required=True),
        _c("basis", pl.String, "billed or estimated", required=True),
        _c("reason", pl.String, "why it is in its class; empty for plainly metered cost"),
        _c("rule", pl.String, "rule of the specification, or shared-cost rule, that put it there"),
        *_WHO,
        *_WHAT,
        _c("billing_account", pl.String, "payer account"),
        _c("charge_category", pl.String, "FOCUS ChargeCategory"),
        _c("invoice_id", pl.String, "FOCUS InvoiceId"),
        _c("pool_id", pl.String, "the pool it was split from"),
        _c("usage_key", pl.Int64, "the usage_hourly row that got it; null where no call did"),
        _c("lot_id", pl.Int64, "the lot of charges it is a part of; null for estimates, and where it sums several"),
        _c("lot_ids", pl.List(pl.Int64), "the lots it sums, where it sums several"),
        _c("currency", pl.String, "billing currency", required=True),
        _c("quantity", MONEY, "the usage it pays for, in the meter's unit; set on usage charges only, so that it adds up"),
        *_COSTS,
    ),
)

LOTS = Table(
    "lots",
    "conclusion",
    "The way from a cost back to its charges: charges that no rule can tell apart, what they were read as, and their sum. (RA-1)",
    key=("run_id", "month", "lot_id"),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month", required=True),
        _c("lot_id", pl.Int64, "number of the lot within run and month; what `costs` name", required=True),
        *(c for c in CHARGES.columns if c.name in CHARGE_GROUP_COLUMNS),
        _c("unit", pl.String, "unit of the quantity that counts: consumed, else pricing"),
        _c("negative", pl.Boolean, "its charges give money back", required=True),
        _c("role", pl.String, "what rules make of it: tokens, driver, follow, tax, other"),
        *(c for c in _WHAT if c.name in ("provider", "model", "meter", "service_tier", "context_above")),
        _c("billed_quantity", MONEY, "its quantity in the meter's unit, where it is counted in one"),
        _c("charges", pl.Int64, "charges it sums", required=True),
        *_COSTS,
    ),
)

BALANCE = Table(
    "balance",
    "conclusion",
    "Control totals of a run: charges in = metered + owner + shared + idle + unallocated, difference 0. (MO-2)",
    key=("run_id", "currency", "invoice_month", "provider", "cost_column"),
    partition_by=("invoice_month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("currency", pl.String, "billing currency", required=True),
        _c("invoice_month", pl.String, "YYYY-MM", required=True),
        _c("provider", pl.String, "provider on the bill", required=True),
        _c("cost_column", pl.String, "one of the four FOCUS cost columns", required=True),
        _c("charges_in", MONEY, "sum of the charges", required=True),
        *(_c(name, MONEY, f"costs of class {name}", required=True) for name in COST_CLASSES),
        _c("difference", MONEY, "charges in minus costs out; 0 or the run is not published", required=True),
        _c("rounding", pl.String, "digits beyond the twelfth that import rounded away (MO-1a)", required=True),
    ),
)

RATES = Table(
    "rates",
    "conclusion",
    "What one unit really cost: effective price of a meter in a pool, from the bill.",
    key=("run_id", "pool_id"),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month", required=True),
        _c("pool_id", pl.String, "the pool", required=True),
        _c("period_start", TIME, "charge period start", required=True),
        _c("period_end", TIME, "charge period end", required=True),
        *_WHAT,
        _c("billing_account", pl.String, "payer account"),
        _c("currency", pl.String, "billing currency", required=True),
        _c("level", pl.String, "keys that were compared: exact, or the keys left out", required=True),
        _c("billed_quantity", MONEY, "quantity on the bill, in the meter's unit"),
        _c("logged_quantity", MONEY, "quantity in the logs", required=True),
        _c("denominator", MONEY, "D of RA-2", required=True),
        _c("flag", pl.String, "overlogged, coarse_match or empty"),
        *_COSTS,
        _c("list_at_book", MONEY, "the logged quantity at the price book; what ES-3 compares"),
    ),
)

BUDGET_STATUS = Table(
    "budget_status",
    "conclusion",
    "What a budget has left: spend in its window from the ledger, never a counter.",
    key=("budget", "month"),
    partition_by=("month",),
    columns=(
        _c("month", pl.String, "the window, YYYY-MM in the reporting timezone", required=True),
        _c("run_id", pl.String, "the newest run it was drawn from", required=True),
        _c("budget", pl.String, "name of the budget", required=True),
        _c("scope", pl.String, "team or agent", required=True),
        _c("scope_name", pl.String, "which one, compared whole", required=True),
        _c("view", pl.String, "initiator or executor", required=True),
        _c("currency", pl.String, "of amount and spend", required=True),
        _c("amount", MONEY, "the limit in force", required=True),
        _c("billed", MONEY, "spend in the window, from bills", required=True),
        _c("estimated", MONEY, "spend in the window no bill covers yet", required=True),
        _c("state", pl.String, "ok, warning or exceeded", required=True),
    ),
)

ANOMALIES = Table(
    "anomalies",
    "conclusion",
    "A day that is unlike its own past: spend of a team or agent against a robust baseline.",
    key=("month", "scope", "scope_name", "day", "currency"),
    partition_by=("month",),
    columns=(
        _c("month", pl.String, "YYYY-MM", required=True),
        _c("run_id", pl.String, "the run it was drawn from", required=True),
        _c("scope", pl.String, "team or agent", required=True),
        _c("scope_name", pl.String, "which one", required=True),
        _c("day", pl.Date, "the day", required=True),
        _c("currency", pl.String, "of the amounts", required=True),
        _c("actual", MONEY, "spend on the day", required=True),
        _c("expected", MONEY, "median of the days before", required=True),
        _c("excess", MONEY, "actual minus expected", required=True),
        _c("score_approx", pl.Float64, "excess in robust standard deviations; a statistic, not money", required=True),
    ),
)

PROBLEMS = Table(
    "problems",
    "conclusion",
    "What was wrong with the input, and what to do about it. The rest went on.",
    key=("problem_id",),
    partition_by=("source",),
    columns=(
        _c("problem_id", pl.String, "hash of the fault and its place", required=True),
        _c("source", pl.String, "who found it", required=True),
        _c("uri", pl.String, "file, object or request", required=True),
        _c("place", pl.String, "line, row or item in it", required=True),
        _c("field", pl.String, "field at fault", required=True),
        _c("reason", pl.String, "what is wrong", required=True),
        _c("remedy", pl.String, "what to do", required=True),
        _c("rows", pl.Int64, "input rows that share it", required=True),
        _c("severity", pl.String, "error: left out; warning: kept", required=True),
        _c("seen_at", TIME, "when", required=True),
        _c("run_id", pl.String, "the run that found it, if a run did"),
    ),
)

TABLES: Mapping[str, Table] = {
    t.name: t
    for t in (
        RAW_FILES,
        CHARGES,
        IMPORT_TOTALS,
        SPANS,
        METRIC_POINTS,
        PRICES,
        PRICES_STAGED,
        EXCHANGE_RATES,
        CHAINS,
        CALLS,
        USAGE_HOURLY,
        RATES,
        COSTS,
        LOTS,
        BALANCE,
        BUDGET_STATUS,
        ANOMALIES,
        PROBLEMS,
    )
}
