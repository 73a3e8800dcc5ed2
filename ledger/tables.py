"""Every table and column of the ledger, declared once, each with a description.

Storage checks, `docs/tables.md` and the API's field descriptions are derived from here. Bills use the terms of FOCUS, spans those of
OpenTelemetry, allocation those of FinOps. Times are UTC microseconds, intervals ``[start, end)``; money is `ledger.money.MONEY`.

*Facts* (`ledger.fact_tables`, `ledger.metric_points`) are only added, or replaced period by period (a restated bill).
*Conclusions*, declared here, carry the id of the run that computed
them and can be deleted and rebuilt.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ledger.charge_groups import CHARGE_GROUP_COLUMNS
from ledger.count_tables import COUNT_EVIDENCE as COUNT_EVIDENCE
from ledger.count_tables import COUNT_READINGS as COUNT_READINGS
from ledger.fact_tables import CHARGES as CHARGES
from ledger.fact_tables import COST_AMOUNTS as _COSTS
from ledger.fact_tables import EXCHANGE_RATES as EXCHANGE_RATES
from ledger.fact_tables import IMPORT_TOTALS as IMPORT_TOTALS
from ledger.fact_tables import PRICES as PRICES
from ledger.fact_tables import PRICES_STAGED as PRICES_STAGED
from ledger.fact_tables import RAW_FILES as RAW_FILES
from ledger.fact_tables import SPANS as SPANS
from ledger.fact_tables import TIME as TIME
from ledger.fact_tables import column as _c
from ledger.meters import METERS as METERS
from ledger.meters import TOKEN_METERS as TOKEN_METERS
from ledger.metric_points import METRIC_POINTS as METRIC_POINTS
from ledger.money import MONEY, RATE
from ledger.schema import Column as Column
from ledger.schema import Table as Table

FACTS = (CHARGES, RAW_FILES, IMPORT_TOTALS, SPANS, METRIC_POINTS, PRICES, EXCHANGE_RATES)
"""The tables of facts; all others are concluded from them, but for problems, which both have."""

COST_COLUMNS = ("billed_cost", "effective_cost", "list_cost", "contracted_cost")
"""The four cost columns of FOCUS. All are allocated by the same weights (RA-6)."""

COST_CLASSES = ("metered", "owner", "shared", "idle", "unallocated")
"""The classes an allocated cost can have. Their sum is the bill (MO-2)."""

USAGE_COLUMNS = (*TOKEN_METERS, "cache_write_tokens", "total_tokens")
"""Columns of `spans` with token counts as reported: they may overlap; an absent count is null."""


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
    _c("release", pl.String, "release the model's name states, as month and day or year and month: 0806, 2407 (RA-1c)"),
    _c("model_version", pl.String, "version the model's name states: 2 of claude-3-5-sonnet-v2"),
    _c("geography", pl.String, "inference geography the model's name states: us, eu, apac, global, …"),
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
        _c("trace_key", pl.Int64, "as in `spans`, which have its ids as sent", required=True),
        _c("span_key", pl.Int64, "as in `spans`", required=True),
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
        _c("hour", TIME, "start of the hour in which the calls started, UTC", required=True),
        _c(
            "end_hour",
            TIME,
            "start of the hour in which the calls ended, UTC; null where they ended in the hour of their start (RA-3)",
        ),
        _c("usage_key", pl.Int64, "hash of both hours, owner and dimensions, without the meter", required=True),
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
        _c("usage_hour", TIME, "hour of the usage it pays for, whatever period its charge has; null where no call used it"),
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
        _c("charges_in", MONEY, "sum of the charges; null where none of them has the column"),
        *(_c(name, MONEY, f"costs of class {name}; null where none of them has the column") for name in COST_CLASSES),
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

ANOMALIES = Table(
    "anomalies",
    "conclusion",
    "Where spend, or a chain, is unlike its own past, and why: drivers that sum to the difference.",
    key=("month", "anomaly_id"),
    partition_by=("month",),
    columns=(
        _c("month", pl.String, "YYYY-MM in which it began", required=True),
        _c("run_id", pl.String, "the run it was computed from", required=True),
        _c("scope", pl.String, "agent, workflow, tool, team, model, provider, …", required=True),
        _c("scope_name", pl.String, "its name", required=True),
        _c("day", pl.Date, "the first day, in the reporting timezone", required=True),
        _c("currency", pl.String, "currency of the amounts", required=True),
        _c("actual", MONEY, "what was spent", required=True),
        _c("expected", MONEY, "what its past leads to expect", required=True),
        _c("excess", MONEY, "actual minus expected", required=True),
        _c(
            "score_approx",
            pl.Float64,
            "the largest excess in robust standard deviations; a statistic, not money",
            required=True,
        ),
        _c("kind", pl.String, "spike, level_shift, new, silent, runaway, …; null in rows of older versions"),
        _c("grain", pl.String, "what it was found in: day, hour or chain"),
        _c("start_time", TIME, "when it began"),
        _c("end_time", TIME, "end of what is counted in actual and expected; of a level shift the days until it was called"),
        _c("is_open", pl.Boolean, "whether the newest figures still belong to it"),
        _c("expected_end", TIME, "when it is over at the latest: what lasts longer is the level that is expected then"),
        _c("drivers", pl.String, "why: JSON {driver: amount}; the amounts sum to `excess`"),
        _c("chains", pl.String, "the dearest chains of this time: JSON list of ids"),
        _c("chain_note", pl.String, "how its chains differ from those before, in words"),
        _c("team", pl.String, "the owner"),
        _c("anomaly_id", pl.String, "hash of scope, name, currency and start: of one cause in every run"),
        _c("part_of", pl.String, "the narrower anomaly with the same cause; null: told on its own"),
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
        _c("cost", MONEY, "the money it concerns: effective or list cost; null where none is known"),
        _c("currency", pl.String, "currency of the cost"),
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
        COUNT_EVIDENCE,
        COUNT_READINGS,
        CALLS,
        USAGE_HOURLY,
        RATES,
        COSTS,
        LOTS,
        BALANCE,
        ANOMALIES,
        PROBLEMS,
    )
}
