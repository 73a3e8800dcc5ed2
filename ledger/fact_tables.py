"""The tables of facts: what was imported. Rows are only added, or replaced period by period (a restated bill)."""

from __future__ import annotations

import polars as pl

from ledger.money import MONEY, RATE
from ledger.schema import Column, Table

TIME = pl.Datetime("us", "UTC")


def column(name: str, dtype: pl.DataType | type[pl.DataType], description: str, *, required: bool = False) -> Column:
    """A column; null is allowed unless it is `required`."""
    return Column(name, dtype, description, required)


COST_AMOUNTS = (
    column("billed_cost", MONEY, "FOCUS BilledCost: what is invoiced"),
    column("effective_cost", MONEY, "FOCUS EffectiveCost: with commitments amortised; the default of reports"),
    column("list_cost", MONEY, "FOCUS ListCost: at the public price"),
    column("contracted_cost", MONEY, "FOCUS ContractedCost: at the negotiated price, before commitments"),
)

CHARGES = Table(
    "charges",
    "fact",
    "The bill, row by row, in FOCUS terms, whatever the provider's own format.",
    key=("scope", "billing_month", "charge_id"),
    partition_by=("billing_month", "scope"),
    columns=(
        column(
            "charge_id",
            pl.String,
            "stable id of the row: hash of its content, and its ordinal among identical rows",
            required=True,
        ),
        column("source", pl.String, "which ingestor read it: focus, aws-cur, …", required=True),
        column(
            "scope",
            pl.String,
            "the dataset that a restatement replaces as a whole: an export, or the dataset of a file",
            required=True,
        ),
        column("raw_id", pl.String, "SHA-256 of the imported file or object", required=True),
        column("line", pl.Int64, "row number in that file, from 1"),
        column("billing_month", pl.String, "invoice month on the bill, YYYY-MM", required=True),
        column("final", pl.Boolean, "false while the provider may still restate the month"),
        column("billing_currency", pl.String, "FOCUS BillingCurrency; part of every key", required=True),
        *COST_AMOUNTS,
        column("charge_period_start", TIME, "FOCUS ChargePeriodStart, inclusive", required=True),
        column("charge_period_end", TIME, "FOCUS ChargePeriodEnd, exclusive", required=True),
        column("charge_category", pl.String, "FOCUS: Usage, Purchase, Tax, Credit, Adjustment", required=True),
        column("charge_class", pl.String, "FOCUS: Correction, or null"),
        column("charge_description", pl.String, "FOCUS ChargeDescription: the provider's own text"),
        column("charge_frequency", pl.String, "FOCUS ChargeFrequency"),
        column("provider_name", pl.String, "FOCUS ProviderName (ServiceProviderName from 1.3)", required=True),
        column("publisher_name", pl.String, "FOCUS PublisherName"),
        column("invoice_issuer_name", pl.String, "FOCUS InvoiceIssuerName"),
        column("invoice_id", pl.String, "FOCUS InvoiceId; empty while provisional"),
        column("billing_account_id", pl.String, "FOCUS BillingAccountId (payer)"),
        column("billing_account_name", pl.String, "FOCUS BillingAccountName"),
        column("sub_account_id", pl.String, "FOCUS SubAccountId (usage account, subscription, project)"),
        column("sub_account_name", pl.String, "FOCUS SubAccountName"),
        column("service_name", pl.String, "FOCUS ServiceName"),
        column("service_category", pl.String, "FOCUS ServiceCategory"),
        column("product_code", pl.String, "the provider's product code of the service (AmazonBedrock, …)"),
        column("region_id", pl.String, "FOCUS RegionId"),
        column("resource_id", pl.String, "FOCUS ResourceId: instance, runtime or inference profile"),
        column("resource_name", pl.String, "FOCUS ResourceName"),
        column("resource_type", pl.String, "FOCUS ResourceType"),
        column("sku_id", pl.String, "FOCUS SkuId"),
        column("sku_price_id", pl.String, "FOCUS SkuPriceId"),
        column("sku_meter", pl.String, "FOCUS SkuMeter, or AWS usage type; names model, token direction and tier"),
        column("operation", pl.String, "AWS operation"),
        column("line_item_type", pl.String, "AWS line item type, as on the bill"),
        column("pricing_category", pl.String, "FOCUS PricingCategory"),
        column("pricing_quantity", MONEY, "FOCUS PricingQuantity"),
        column("pricing_unit", pl.String, "FOCUS PricingUnit"),
        column("list_unit_price", RATE, "FOCUS ListUnitPrice"),
        column("contracted_unit_price", RATE, "FOCUS ContractedUnitPrice"),
        column("consumed_quantity", MONEY, "FOCUS ConsumedQuantity"),
        column("consumed_unit", pl.String, "FOCUS ConsumedUnit"),
        column("commitment_discount_id", pl.String, "FOCUS CommitmentDiscountId"),
        column("commitment_discount_status", pl.String, "FOCUS CommitmentDiscountStatus: Used or Unused"),
        column("principal", pl.String, "IAM principal that made the calls, where the bill has it"),
        column("tags", pl.String, "FOCUS Tags as a flat JSON object, with the provider's own keys"),
    ),
)

RAW_FILES = Table(
    "raw_files",
    "fact",
    "Every imported file or object, identified by its content, so that a figure can be traced to the bytes it was read from.",
    key=("source", "raw_id", "uri"),
    partition_by=("source",),
    columns=(
        column("raw_id", pl.String, "SHA-256 of the bytes", required=True),
        column("source", pl.String, "which ingestor read it", required=True),
        column("uri", pl.String, "address of the file or object", required=True),
        column("scope", pl.String, "the dataset it belongs to", required=True),
        column("billing_month", pl.String, "invoice month of a bill"),
        column("bytes", pl.Int64, "size in bytes, as fetched", required=True),
        column("rows_read", pl.Int64, "rows imported", required=True),
        column("rows_refused", pl.Int64, "rows left out; each is reported in `problems`", required=True),
        column("fetched_at", TIME, "when it was read", required=True),
        column("as_of", TIME, "the moment a bill's file can hold charges up to: when it was read, or written if earlier (ES-1a)"),
        column("version", pl.String, "version given by the sender: execution id or ETag"),
        column("broken_off", pl.String, "why a bill's file is known to end before its end; null for a whole file"),
    ),
)

IMPORT_TOTALS = Table(
    "import_totals",
    "fact",
    "Totals of an imported bill at full precision, as control totals for the balance. (MO-1a)",
    key=("scope", "billing_month", "currency", "provider", "cost_column"),
    partition_by=("billing_month", "scope"),
    columns=(
        column("scope", pl.String, "the dataset", required=True),
        column("billing_month", pl.String, "invoice month", required=True),
        column("currency", pl.String, "billing currency", required=True),
        column("provider", pl.String, "as `charges.provider_name`", required=True),
        column("cost_column", pl.String, "one of the four FOCUS cost columns", required=True),
        column("total", pl.String, "sum of the amounts as written, with all digits", required=True),
        column("rounding", pl.String, "that sum minus the sum of the rounded rows", required=True),
        column("rows", pl.Int64, "rows summed", required=True),
    ),
)

SPANS = Table(
    "spans",
    "fact",
    "One node of a request chain: an OpenTelemetry span, or a gateway's log row. Several can describe the same call.",
    key=("date", "trace_key", "span_key", "channel"),
    partition_by=("date",),
    columns=(
        column("date", pl.Date, "UTC date of the start; the partition", required=True),
        column(
            "channel",
            pl.String,
            "how the span was delivered: otlp, litellm (payloads in files), litellm-callback (payloads sent live), litellm-spend-logs",
            required=True,
        ),
        column("source", pl.String, "the ingestor", required=True),
        column("raw_id", pl.String, "SHA-256 of the file, object or request it was read from"),
        column("trace_key", pl.Int64, "low 64 bits of the trace id (see `ledger.ids`)", required=True),
        column("span_key", pl.Int64, "the span id as an integer, or a hash of the row's own id", required=True),
        column("parent_key", pl.Int64, "span_key of the parent, in the same trace"),
        column("link_trace_key", pl.Int64, "first span link: its trace"),
        column("link_span_key", pl.Int64, "first span link: its span"),
        column("links", pl.String, "all links, JSON [[trace id, span id], …], where there is more than one"),
        column("trace_id", pl.String, "as sent; 32 hex digits for OpenTelemetry"),
        column("span_id", pl.String, "as sent; 16 hex digits for OpenTelemetry"),
        column("parent_span_id", pl.String, "as sent"),
        column("start_time", TIME, "start of the span; decides the charge period, never ownership (CH-6)", required=True),
        column("end_time", TIME, "end of the span"),
        column("service_name", pl.String, "OTel service.name"),
        column(
            "process",
            pl.String,
            "process that a running counter belongs to: service.instance.id, else host and pid; null on all other spans (CA-2a)",
        ),
        column("name", pl.String, "span name"),
        column("operation", pl.String, "OTel gen_ai.operation.name: chat, embeddings, invoke_agent, execute_tool, …"),
        column("emitter", pl.String, "instrumentation library that emitted it; a row of the emitter table"),
        column("emitter_version", pl.String, "version of its instrumentation scope, as sent; decides how it counts (CA-5)"),
        column(
            "usage_scope",
            pl.String,
            "leaf: usage of one provider request; aggregate or cumulative: repeats the usage of other spans; null: no call",
        ),
        column("status", pl.String, "ok or error"),
        column("agent_id", pl.String, "OTel gen_ai.agent.id, as on the span"),
        column("agent_name", pl.String, "OTel gen_ai.agent.name, as on the span"),
        column(
            "claimed_agent",
            pl.String,
            "root agent named by baggage, header or request tag; used only if the source is trusted (CH-7)",
        ),
        column("claimed_team", pl.String, "root team named by baggage, header or request tag"),
        column("conversation_id", pl.String, "OTel gen_ai.conversation.id, or the gateway's session id"),
        column("credential", pl.String, "API key alias or hash, as the gateway authenticated it"),
        column("credential_team", pl.String, "team the gateway has registered for the key"),
        column("principal", pl.String, "cloud identity (IAM principal) that made the call"),
        column("end_user", pl.String, "opaque id of the end user"),
        column("tenant", pl.String, "customer or business unit served"),
        column("environment", pl.String, "OTel deployment.environment.name"),
        column("workflow", pl.String, "OTel gen_ai.workflow.name or an equivalent attribute"),
        column("tool_name", pl.String, "OTel gen_ai.tool.name"),
        column("gateway_call_id", pl.String, "LiteLLM call id: the same on every channel (CA-1)"),
        column("provider_request_id", pl.String, "the provider's response id; evidence, not proof (CA-1)"),
        column("request_ids", pl.String, "further ids of the same request (headers, message id), JSON list (CA-1a)"),
        column("provider", pl.String, "as emitted: openai, bedrock, …"),
        column("request_model", pl.String, "OTel gen_ai.request.model"),
        column("response_model", pl.String, "OTel gen_ai.response.model"),
        column("deployment_id", pl.String, "the gateway's deployment id"),
        column("api_base", pl.String, "endpoint of the call, without credentials"),
        column("account_id", pl.String, "cloud account, subscription or project, where known"),
        column("region", pl.String, "cloud region, where known"),
        column("service_tier", pl.String, "batch, flex, priority, …; null is standard"),
        column("resource_id", pl.String, "inference profile, runtime, database or node that served it"),
        column(
            "input_tokens", pl.Int64, "prompt tokens as reported; see input_includes_cache. Null where absent, never 0 (CA-4)"
        ),
        column("input_includes_cache", pl.Boolean, "whether input_tokens includes cached tokens; null: unknown (CA-5)"),
        column("cache_read_tokens", pl.Int64, "as reported"),
        column("cache_write_tokens", pl.Int64, "as reported, with unknown cache lifetime"),
        column("cache_write_5m_tokens", pl.Int64, "as reported"),
        column("cache_write_1h_tokens", pl.Int64, "as reported"),
        column("output_tokens", pl.Int64, "as reported; see output_includes_reasoning"),
        column("output_includes_reasoning", pl.Boolean, "whether output_tokens includes reasoning tokens; null: unknown"),
        column("reasoning_tokens", pl.Int64, "as reported"),
        column(
            "count_evidence",
            pl.String,
            "provider: the provider's own usage in the record says what the counts include; provider_input, provider_output: of one side "
            "only (CA-5)",
        ),
        column(
            "count_contradiction", pl.Boolean, "true where the record contradicts the emitter table on what the counts include"
        ),
        column("input_audio_tokens", pl.Int64, "as reported"),
        column("output_audio_tokens", pl.Int64, "as reported"),
        column("input_image_tokens", pl.Int64, "as reported"),
        column("output_image_tokens", pl.Int64, "as reported"),
        column("total_tokens", pl.Int64, "as reported; evidence of whether input and output are inclusive (CA-5)"),
        column(
            "other_usage",
            pl.String,
            "quantities of other meters as JSON {meter: quantity}; usually null",
        ),
        column("cache_hit", pl.Boolean, "answered from the gateway's own cache, at a cost of 0 (CA-4)"),
        column("reported_cost", RATE, "cost estimated by the emitter; compared, never booked (CA-6)"),
        column("attempt", pl.Int64, "retry number, from 0"),
        column(
            "phase",
            pl.String,
            "overhead: a call the user did not ask for (a title, a summary, routing, a guardrail); null: ordinary work",
        ),
        column("attributes", pl.String, "other mapped attributes, JSON"),
        column(
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
        column("origin", pl.String, "list, contract or observed", required=True),
        column("book", pl.String, "price list it was read from, with its version", required=True),
        column("provider", pl.String, "as in the price list", required=True),
        column("model", pl.String, "as in the price list", required=True),
        column("meter", pl.String, "the meter that is priced, a key of METERS", required=True),
        column(
            "service_tier",
            pl.String,
            "standard, batch, flex, priority, fast, …; off_peak: during `hours`",
            required=True,
        ),
        column(
            "context_above",
            pl.Int64,
            "the rate applies to requests with more prompt tokens than this; 0: all requests",
            required=True,
        ),
        column(
            "region", pl.String, "region of the rate; regional: every region except global; empty: every region", required=True
        ),
        column("currency", pl.String, "currency of the rate", required=True),
        column("rate", RATE, "price of one unit of the meter", required=True),
        column("valid_from", TIME, "first instant of usage the rate applies to", required=True),
        column(
            "valid_to",
            TIME,
            "first instant the rate no longer applies to, such as the end of a contract; null: until a later rate",
        ),
        column(
            "hours",
            pl.String,
            'hours of an off_peak rate: JSON [{"hours_utc": ["16:30-00:30"], "weekdays": [1], "timezone": "UTC"}]',
        ),
        column("recorded_at", TIME, "when the rate was imported", required=True),
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
        column("uri", pl.String, "the file it was read from", required=True),
        column("old_rate", RATE, "the rate in force when it was staged, if there was one"),
        column("doubt", pl.String, "why the rate is implausible", required=True),
    ),
)

EXCHANGE_RATES = Table(
    "exchange_rates",
    "fact",
    "Daily exchange rates and their publisher. A rate is applied only on request, and every report names the rates it used. (RA-7)",
    key=("from_currency", "to_currency", "day", "recorded_at"),
    partition_by=("from_currency",),
    columns=(
        column("from_currency", pl.String, "ISO 4217 code of the currency that is converted", required=True),
        column("to_currency", pl.String, "ISO 4217 code of the currency it is converted into", required=True),
        column("day", pl.Date, "day of the rate; it applies until the next rate, for 31 days at most", required=True),
        column("rate", RATE, "units of to_currency for one unit of from_currency", required=True),
        column("source", pl.String, "publisher of the rate: ECB, the invoice, the treasury", required=True),
        column("recorded_at", TIME, "when it was imported; of two rates for one day the later import applies", required=True),
    ),
)
