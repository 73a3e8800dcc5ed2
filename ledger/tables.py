"""Every table and column of the ledger, declared once, each with a description.

Storage checks, `docs/tables.md` and the API's field descriptions are derived from here. Bills use the terms of FOCUS, spans those of
OpenTelemetry, allocation those of FinOps. Times are UTC microseconds, intervals ``[start, end)``; money is `ledger.money.MONEY`.

*Facts* are only added, or replaced period by period (a restated bill). *Conclusions* carry the id of the run that computed
them and can be deleted and rebuilt.
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
"""The classes an allocated cost can have. Their sum is the bill (MO-2)."""

USAGE_COLUMNS = (*TOKEN_METERS, "cache_write_tokens", "total_tokens")
"""Columns of `spans` with token counts as reported: they may overlap; an absent count is null."""


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
    "The bill, row by row, in FOCUS terms, whatever the provider's own format.",
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
        _c(
            "scope",
            pl.String,
            "the dataset that a restatement replaces as a whole: an export, or the dataset of a file",
            required=True,
        ),
        _c("raw_id", pl.String, "SHA-256 of the imported file or object", required=True),
        _c("line", pl.Int64, "row number in that file, from 1"),
        _c("billing_month", pl.String, "invoice month on the bill, YYYY-MM", required=True),
        _c("final", pl.Boolean, "false while the provider may still restate the month"),
        _c("billing_currency", pl.String, "FOCUS BillingCurrency; part of every key", required=True),
        *_COSTS,
        _c("charge_period_start", TIME, "FOCUS ChargePeriodStart, inclusive", required=True),
        _c("charge_period_end", TIME, "FOCUS ChargePeriodEnd, exclusive", required=True),
        _c("charge_category", pl.String, "FOCUS: Usage, Purchase, Tax, Credit, Adjustment", required=True),
        _c("charge_class", pl.String, "FOCUS: Correction, or null"),
        _c("charge_description", pl.String, "FOCUS ChargeDescription: the provider's own text"),
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
        _c("product_code", pl.String, "the provider's product code of the service (AmazonBedrock, …)"),
        _c("region_id", pl.String, "FOCUS RegionId"),
        _c("resource_id", pl.String, "FOCUS ResourceId: instance, runtime or inference profile"),
        _c("resource_name", pl.String, "FOCUS ResourceName"),
        _c("resource_type", pl.String, "FOCUS ResourceType"),
        _c("sku_id", pl.String, "FOCUS SkuId"),
        _c("sku_price_id", pl.String, "FOCUS SkuPriceId"),
        _c("sku_meter", pl.String, "FOCUS SkuMeter, or AWS usage type; names model, token direction and tier"),
        _c("operation", pl.String, "AWS operation"),
        _c("line_item_type", pl.String, "AWS line item type, as on the bill"),
        _c("pricing_category", pl.String, "FOCUS PricingCategory"),
        _c("pricing_quantity", MONEY, "FOCUS PricingQuantity"),
        _c("pricing_unit", pl.String, "FOCUS PricingUnit"),
        _c("list_unit_price", RATE, "FOCUS ListUnitPrice"),
        _c("contracted_unit_price", RATE, "FOCUS ContractedUnitPrice"),
        _c("consumed_quantity", MONEY, "FOCUS ConsumedQuantity"),
        _c("consumed_unit", pl.String, "FOCUS ConsumedUnit"),
        _c("commitment_discount_id", pl.String, "FOCUS CommitmentDiscountId"),
        _c("commitment_discount_status", pl.String, "FOCUS CommitmentDiscountStatus: Used or Unused"),
        _c("principal", pl.String, "IAM principal that made the calls, where the bill has it"),
        _c("tags", pl.String, "FOCUS Tags as a flat JSON object, with the provider's own keys"),
    ),
)

RAW_FILES = Table(
    "raw_files",
    "fact",
    "Every imported file or object, identified by its content, so that a figure can be traced to the bytes it was read from.",
    key=("source", "raw_id", "uri"),
    partition_by=("source",),
    columns=(
        _c("raw_id", pl.String, "SHA-256 of the bytes", required=True),
        _c("source", pl.String, "which ingestor read it", required=True),
        _c("uri", pl.String, "address of the file or object", required=True),
        _c("scope", pl.String, "the dataset it belongs to", required=True),
        _c("billing_month", pl.String, "invoice month of a bill"),
        _c("bytes", pl.Int64, "size in bytes, as fetched", required=True),
        _c("rows_read", pl.Int64, "rows imported", required=True),
        _c("rows_refused", pl.Int64, "rows left out; each is reported in `problems`", required=True),
        _c("fetched_at", TIME, "when it was read", required=True),
        _c("version", pl.String, "version given by the sender: execution id or ETag"),
    ),
)

IMPORT_TOTALS = Table(
    "import_totals",
    "fact",
    "Totals of an imported bill at full precision, as control totals for the balance. (MO-1a)",
    key=("scope", "billing_month", "currency", "provider", "cost_column"),
    partition_by=("billing_month", "scope"),
    columns=(
        _c("scope", pl.String, "the dataset", required=True),
        _c("billing_month", pl.String, "invoice month", required=True),
        _c("currency", pl.String, "billing currency", required=True),
        _c("provider", pl.String, "as `charges.provider_name`", required=True),
        _c("cost_column", pl.String, "one of the four FOCUS cost columns", required=True),
        _c("total", pl.String, "sum of the amounts as written, with all digits", required=True),
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
            "how the span was delivered: otlp, litellm (payloads in files), litellm-callback (payloads sent live), litellm-spend-logs",
            required=True,
        ),
        _c("source", pl.String, "the ingestor", required=True),
        _c("raw_id", pl.String, "SHA-256 of the file, object or request it was read from"),
        _c("trace_key", pl.Int64, "low 64 bits of the trace id (see `ledger.ids`)", required=True),
        _c("span_key", pl.Int64, "the span id as an integer, or a hash of the row's own id", required=True),
        _c("parent_key", pl.Int64, "span_key of the parent, in the same trace"),
        _c("link_trace_key", pl.Int64, "first span link: its trace"),
        _c("link_span_key", pl.Int64, "first span link: its span"),
        _c("links", pl.String, "all links, JSON [[trace id, span id], …], where there is more than one"),
        _c("trace_id", pl.String, "as sent; 32 hex digits for OpenTelemetry"),
        _c("span_id", pl.String, "as sent; 16 hex digits for OpenTelemetry"),
        _c("parent_span_id", pl.String, "as sent"),
        _c("start_time", TIME, "start of the span; decides the charge period, never ownership (CH-6)", required=True),
        _c("end_time", TIME, "end of the span"),
        _c("service_name", pl.String, "OTel service.name"),
        _c("name", pl.String, "span name"),
        _c("operation", pl.String, "OTel gen_ai.operation.name: chat, embeddings, invoke_agent, execute_tool, …"),
        _c("emitter", pl.String, "instrumentation library that emitted it; a row of the emitter table"),
        _c(
            "usage_scope",
            pl.String,
            "leaf: usage of one provider request; aggregate or cumulative: repeats the usage of other spans; null: no call",
        ),
        _c("status", pl.String, "ok or error"),
        _c("agent_id", pl.String, "OTel gen_ai.agent.id, as on the span"),
        _c("agent_name", pl.String, "OTel gen_ai.agent.name, as on the span"),
        _c(
            "claimed_agent",
            pl.String,
            "root agent named by baggage, header or request tag; used only if the source is trusted (CH-7)",
        ),
        _c("claimed_team", pl.String, "root team named by baggage, header or request tag"),
        _c("conversation_id", pl.String, "OTel gen_ai.conversation.id, or the gateway's session id"),
        _c("credential", pl.String, "API key alias or hash, as the gateway authenticated it"),
        _c("credential_team", pl.String, "team the gateway has registered for the key"),
        _c("principal", pl.String, "cloud identity (IAM principal) that made the call"),
        _c("end_user", pl.String, "opaque id of the end user"),
        _c("tenant", pl.String, "customer or business unit served"),
        _c("environment", pl.String, "OTel deployment.environment.name"),
        _c("workflow", pl.String, "OTel gen_ai.workflow.name or an equivalent attribute"),
        _c("tool_name", pl.String, "OTel gen_ai.tool.name"),
        _c("gateway_call_id", pl.String, "LiteLLM call id: the same on every channel (CA-1)"),
        _c("provider_request_id", pl.String, "the provider's response id; evidence, not proof (CA-1)"),
        _c("provider", pl.String, "as emitted: openai, bedrock, …"),
        _c("request_model", pl.String, "OTel gen_ai.request.model"),
        _c("response_model", pl.String, "OTel gen_ai.response.model"),
        _c("deployment_id", pl.String, "the gateway's deployment id"),
        _c("api_base", pl.String, "endpoint of the call, without credentials"),
        _c("account_id", pl.String, "cloud account, subscription or project, where known"),
        _c("region", pl.String, "cloud region, where known"),
        _c("service_tier", pl.String, "batch, flex, priority, …; null is standard"),
        _c("resource_id", pl.String, "inference profile, runtime, database or node that served it"),
        _c("input_tokens", pl.Int64, "prompt tokens as reported; see input_includes_cache. Null where absent, never 0 (CA-4)"),
        _c("input_includes_cache", pl.Boolean, "whether input_tokens includes cached tokens; null: unknown (CA-5)"),
        _c("cache_read_tokens", pl.Int64, "as reported"),
        _c("cache_write_tokens", pl.Int64, "as reported, with unknown cache lifetime"),
        _c("cache_write_5m_tokens", pl.Int64, "as reported"),
        _c("cache_write_1h_tokens", pl.Int64, "as reported"),
        _c("output_tokens", pl.Int64, "as reported; see output_includes_reasoning"),
        _c("output_includes_reasoning", pl.Boolean, "whether output_tokens includes reasoning tokens; null: unknown"),
        _c("reasoning_tokens", pl.Int64, "as reported"),
        _c("input_audio_tokens", pl.Int64, "as reported"),
        _c("output_audio_tokens", pl.Int64, "as reported"),
        _c("input_image_tokens", pl.Int64, "as reported"),
        _c("output_image_tokens", pl.Int64, "as reported"),
        _c("total_tokens", pl.Int64, "as reported; evidence of whether input and output are inclusive (CA-5)"),
        _c(
            "other_usage",
            pl.String,
            "quantities of other meters as JSON {meter: quantity}; usually null",
        ),
        _c("cache_hit", pl.Boolean, "answered from the gateway's own cache, at a cost of 0 (CA-4)"),
        _c("reported_cost", RATE, "cost estimated by the emitter; compared, never booked (CA-6)"),
        _c("attempt", pl.Int64, "retry number, from 0"),
        _c(
            "phase",
            pl.String,
            "overhead: a call the user did not ask for (a title, a summary, routing, a guardrail); null: ordinary work",
        ),
        _c("attributes", pl.String, "other mapped attributes, JSON"),
        _c(
            "rank",
            pl.Int32,
            "completeness of the row: of two deliveries of one span, the one with the higher rank is kept",
            required=True,
        ),
    ),
)

PRICES = Table(
    "prices",
    "fact",
    "The price book: one rate per model, meter, service tier, context tier and region, valid from a date. Past rates never change. (ES-2)",
    key=("origin", "provider", "model", "meter", "service_tier", "context_above", "region", "valid_from"),
    partition_by=("origin",),
    columns=(
        _c("origin", pl.String, "list, contract or observed", required=True),
        _c("book", pl.String, "price list it was read from, with its version", required=True),
        _c("provider", pl.String, "as in the price list", required=True),
        _c("model", pl.String, "as in the price list", required=True),
        _c("meter", pl.String, "the meter that is priced, a key of METERS", required=True),
        _c(
            "service_tier",
            pl.String,
            "standard, batch, flex, priority, fast, …; off_peak: during `hours`",
            required=True,
        ),
        _c(
            "context_above",
            pl.Int64,
            "the rate applies to requests with more prompt tokens than this; 0: all requests",
            required=True,
        ),
        _c("region", pl.String, "region of the rate; regional: every region except global; empty: every region", required=True),
        _c("currency", pl.String, "currency of the rate", required=True),
        _c("rate", RATE, "price of one unit of the meter", required=True),
        _c("valid_from", TIME, "first instant of usage the rate applies to", required=True),
        _c(
            "valid_to",
            TIME,
            "first instant the rate no longer applies to, such as the end of a contract; null: until a later rate",
        ),
        _c(
            "hours",
            pl.String,
            'hours of an off_peak rate: JSON [{"hours_utc": ["16:30-00:30"], "weekdays": [1], "timezone": "UTC"}]',
        ),
        _c("recorded_at", TIME, "when the rate was imported", required=True),
    ),
)

PRICES_STAGED = Table(
    "prices_staged",
    "fact",
    "Implausible rates of a price update. They are not used for pricing until somebody accepts or rejects them.",
    key=PRICES.key,
    partition_by=("origin",),
    columns=(
        *PRICES.columns,
        _c("uri", pl.String, "the file it was read from", required=True),
        _c("old_rate", RATE, "the rate in force when it was staged, if there was one"),
        _c("doubt", pl.String, "why the rate is implausible", required=True),
    ),
)

EXCHANGE_RATES = Table(
    "exchange_rates",
    "fact",
    "Daily exchange rates and their publisher. A rate is applied only on request, and every report names the rates it used. (RA-7)",
    key=("from_currency", "to_currency", "day", "recorded_at"),
    partition_by=("from_currency",),
    columns=(
        _c("from_currency", pl.String, "ISO 4217 code of the currency that is converted", required=True),
        _c("to_currency", pl.String, "ISO 4217 code of the currency it is converted into", required=True),
        _c("day", pl.Date, "day of the rate; it applies until the next rate, for 31 days at most", required=True),
        _c("rate", RATE, "units of to_currency for one unit of from_currency", required=True),
        _c("source", pl.String, "publisher of the rate: ECB, the invoice, the treasury", required=True),
        _c("recorded_at", TIME, "when it was imported; of two rates for one day the later import applies", required=True),
    ),
)

_WHO = (
    _c("initiator_agent", pl.String, "agent that started the chain (CH-4)"),
    _c("initiator_team", pl.String, "team that owned it when the call started (ID-1)"),
    _c("executor_agent", pl.String, "nearest agent at or above the call (CH-5)"),
    _c("executor_team", pl.String, "team that owned the executor when the call started (ID-1)"),
    _c(
        "method",
        pl.String,
        "how the initiator was determined: path, claim, conversation, credential, principal, service, unknown",
    ),
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
    _c("context_above", pl.Int64, "context tier: rate for requests with more prompt tokens than this; 0: base tier"),
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
        _c("rollup_id", pl.String, "the rollup (one pass over the spans) that produced it", required=True),
        _c("month", pl.String, "UTC month of its start, YYYY-MM", required=True),
        _c("chain_id", pl.String, "root span: trace id and span id", required=True),
        _c("root_name", pl.String, "name of the root span"),
        _c("start_time", TIME, "start of the first span", required=True),
        _c("end_time", TIME, "end of the last span"),
        _c("initiator_agent", pl.String, "agent of most of its cost"),
        _c("initiator_team", pl.String, "team of the initiator"),
        _c("method", pl.String, "how the initiator was determined"),
        _c("reason", pl.String, "irregularities of the chain: missing_parent, cycle, fan_in"),
        _c("spans", pl.Int64, "number of spans", required=True),
        _c("calls", pl.Int64, "number of calls", required=True),
        _c("tokens", pl.Int64, "tokens used by its calls"),
        _c("list_cost", MONEY, "cost of its calls at list price, where priced"),
        _c("trace_ids", pl.List(pl.String), "ids of its traces", required=True),
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
"""Owners of one call and their shares; quantities are split by the shares in the order of the usage keys."""

CALLS = Table(
    "calls",
    "conclusion",
    "One provider request attempt, merged from all signals that describe it. Only calls have metered usage. (CA-1)",
    key=("rollup_id", "trace_key", "span_key"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the rollup (one pass over the spans) that produced it", required=True),
        _c("month", pl.String, "UTC month of its start, YYYY-MM", required=True),
        _c("chain_id", pl.String, "the chain it belongs to", required=True),
        _c("trace_key", pl.Int64, "as in `spans`", required=True),
        _c("span_key", pl.Int64, "as in `spans`", required=True),
        _c("trace_id", pl.String, "as sent"),
        _c("span_id", pl.String, "as sent"),
        _c("gateway_call_id", pl.String, "the gateway's id of the call"),
        _c("provider_request_id", pl.String, "the provider's id of the call"),
        _c("channels", pl.String, "channels that reported it, joined by +", required=True),
        _c("start_time", TIME, "start of the call", required=True),
        _c("hour", TIME, "hour its usage is charged to, UTC", required=True),
        _c("usage_key", pl.Int64, "the usage_hourly row that includes its usage; null for a gateway cache hit"),
        *_WHO,
        *(c for c in _WHAT if c.name != "meter"),
        _c("reason", pl.String, "flags: missing_parent, aggregate_only, unpriced, cache_hit, retry, …"),
        _c("source", pl.String, "ingestor that read it"),
        _c("status", pl.String, "ok or error"),
        *(_c(meter, pl.Int64, METERS[meter]) for meter in TOKEN_METERS),
        _c("requests", pl.Int64, METERS["requests"]),
        _c("list_cost", MONEY, "cost at the price-book rate as of its start; null where unpriced, 0 for a cache hit"),
        _c("reported_cost", RATE, "cost estimated by the emitter"),
        _c("other_usage", pl.String, "quantities of other meters as JSON {meter: quantity}; usually null"),
        _c(
            "shares",
            SHARES,
            "owners of a call started by several chains (fan-in, CH-1), with shares that sum to 1; the first is the owner in the "
            "columns above. Null where a call has one owner, the usual case",
        ),
    ),
)

USAGE_HOURLY = Table(
    "usage_hourly",
    "conclusion",
    "Additive quantities by hour and dimension. Pricing and rating read only these, so a new bill needs no second pass over the spans.",
    key=("rollup_id", "hour"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the rollup (one pass over the spans) that produced it", required=True),
        _c("month", pl.String, "UTC month of the hour, YYYY-MM", required=True),
        _c("hour", TIME, "start of the hour, UTC", required=True),
        _c("usage_key", pl.Int64, "hash of hour, owner and dimensions, without the meter", required=True),
        *_WHO,
        *_WHAT,
        _c("caller_place", pl.String, "which of account and region only the caller states: tried first, then dropped (RA-1d)"),
        _c("reason", pl.String, "flags of the calls: missing_parent, aggregate_only, input_semantics_unknown, …"),
        _c("source", pl.String, "ingestor that read the calls"),
        _c("quantity", MONEY, "sum of the meter: tokens, requests, seconds, …", required=True),
        _c("calls", pl.Int64, "number of calls", required=True),
        _c("list_cost", MONEY, "cost at the price-book rates as of the calls; null where unpriced"),
    ),
)

COSTS = Table(
    "costs",
    "conclusion",
    "Allocated cost by initiator, executor and every dimension, with a cost class, a method and a reason.",
    key=("run_id",),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month, YYYY-MM; UTC month for estimates", required=True),
        _c("period_start", TIME, "start of the charge period; of an hourly bill, the hour", required=True),
        _c("period_end", TIME, "charge period end", required=True),
        _c("cost_class", pl.String, "metered, owner, shared, idle or unallocated", required=True),
        _c("basis", pl.String, "billed or estimated", required=True),
        _c("reason", pl.String, "why the cost is in its class; empty for metered cost without irregularities"),
        _c("rule", pl.String, "the rule that allocated it: of the specification, or a shared-cost rule"),
        *_WHO,
        *_WHAT,
        _c("billing_account", pl.String, "payer account"),
        _c("charge_category", pl.String, "FOCUS ChargeCategory"),
        _c("invoice_id", pl.String, "FOCUS InvoiceId"),
        _c("pool_id", pl.String, "the rating pool it was split from"),
        _c("usage_key", pl.Int64, "the usage_hourly row it is allocated to; null where no call used it"),
        _c("lot_id", pl.Int64, "the charge group it is a part of; null for estimates, and for a row that sums several groups"),
        _c("lot_ids", pl.List(pl.Int64), "the charge groups of a row that sums several"),
        _c("currency", pl.String, "billing currency", required=True),
        _c(
            "quantity",
            MONEY,
            "usage it pays for, in the meter's unit; set on usage charges only, so that quantities can be summed",
        ),
        *_COSTS,
    ),
)

LOTS = Table(
    "lots",
    "conclusion",
    "Charge groups: charges that no allocation rule distinguishes, with their classification and their sum. They link a cost to its charges. (RA-1)",
    key=("run_id", "month", "lot_id"),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month", required=True),
        _c("lot_id", pl.Int64, "number of the charge group within run and month; `costs.lot_id` refers to it", required=True),
        *(c for c in CHARGES.columns if c.name in CHARGE_GROUP_COLUMNS),
        _c("unit", pl.String, "unit of the quantity that counts: consumed, else pricing"),
        _c("negative", pl.Boolean, "whether its charges are negative (credits, refunds)", required=True),
        _c("role", pl.String, "how the rules treat it: tokens, driver, follow, tax, other"),
        *(c for c in _WHAT if c.name in ("provider", "model", "meter", "service_tier", "context_above")),
        _c("billed_quantity", MONEY, "its quantity in the meter's unit, where it has one"),
        _c("charges", pl.Int64, "number of charges", required=True),
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
        _c("rounding", pl.String, "amount lost when the import rounded to twelve decimals (MO-1a)", required=True),
    ),
)

RATES = Table(
    "rates",
    "conclusion",
    "Effective price of one unit of a meter in a pool, derived from the bill.",
    key=("run_id", "pool_id"),
    partition_by=("month", "run_id"),
    columns=(
        _c("run_id", pl.String, "the attribution run", required=True),
        _c("month", pl.String, "invoice month", required=True),
        _c("pool_id", pl.String, "the rating pool", required=True),
        _c("period_start", TIME, "charge period start", required=True),
        _c("period_end", TIME, "charge period end", required=True),
        *_WHAT,
        _c("billing_account", pl.String, "payer account"),
        _c("currency", pl.String, "billing currency", required=True),
        _c("level", pl.String, "matching level: exact, or the keys that were left out", required=True),
        _c("billed_quantity", MONEY, "quantity on the bill, in the meter's unit"),
        _c("logged_quantity", MONEY, "quantity in the logs", required=True),
        _c("denominator", MONEY, "denominator D of the rate (RA-2)", required=True),
        _c("flag", pl.String, "overlogged, coarse_match or empty"),
        *_COSTS,
        _c("list_at_book", MONEY, "the logged quantity at price-book rates, for the drift of estimates (ES-3)"),
    ),
)

BUDGET_STATUS = Table(
    "budget_status",
    "conclusion",
    "Spend against each budget in its month, computed from the ledger.",
    key=("budget", "month"),
    partition_by=("month",),
    columns=(
        _c("month", pl.String, "the window, YYYY-MM in the reporting timezone", required=True),
        _c("run_id", pl.String, "the newest run it was computed from", required=True),
        _c("budget", pl.String, "name of the budget", required=True),
        _c("scope", pl.String, "team or agent", required=True),
        _c("scope_name", pl.String, "name of the team or agent; must match exactly", required=True),
        _c("view", pl.String, "initiator or executor", required=True),
        _c("currency", pl.String, "currency of amount and spend", required=True),
        _c("amount", MONEY, "the limit in force", required=True),
        _c("billed", MONEY, "spend in the window, from bills", required=True),
        _c("estimated", MONEY, "spend in the window that no bill covers yet", required=True),
        _c("state", pl.String, "ok, warning or exceeded", required=True),
    ),
)

ANOMALIES = Table(
    "anomalies",
    "conclusion",
    "Days on which a team or agent spent far more or less than its robust baseline.",
    key=("month", "scope", "scope_name", "day", "currency"),
    partition_by=("month",),
    columns=(
        _c("month", pl.String, "YYYY-MM", required=True),
        _c("run_id", pl.String, "the run it was computed from", required=True),
        _c("scope", pl.String, "team or agent", required=True),
        _c("scope_name", pl.String, "name of the team or agent", required=True),
        _c("day", pl.Date, "the day", required=True),
        _c("currency", pl.String, "currency of the amounts", required=True),
        _c("actual", MONEY, "spend on the day", required=True),
        _c("expected", MONEY, "median of the days before", required=True),
        _c("excess", MONEY, "actual minus expected", required=True),
        _c("score_approx", pl.Float64, "excess in robust standard deviations; a statistic, not money", required=True),
    ),
)

PROBLEMS = Table(
    "problems",
    "conclusion",
    "Errors and warnings about the input, each with a remedy. The rest of the input was processed.",
    key=("problem_id",),
    partition_by=("source",),
    columns=(
        _c("problem_id", pl.String, "hash of the problem and its place", required=True),
        _c("source", pl.String, "component that reported it: an ingestor, attribution, …", required=True),
        _c("uri", pl.String, "file, object or request", required=True),
        _c("place", pl.String, "line, row or item within it", required=True),
        _c("field", pl.String, "field that has the problem", required=True),
        _c("reason", pl.String, "what is wrong", required=True),
        _c("remedy", pl.String, "what to do", required=True),
        _c("rows", pl.Int64, "number of input rows with this problem", required=True),
        _c("severity", pl.String, "error: the row was left out; warning: it was kept", required=True),
        _c("seen_at", TIME, "when it was first seen", required=True),
        _c("run_id", pl.String, "the run that reported it, if a run did"),
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
