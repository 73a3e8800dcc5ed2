"""Tables of how emitters count: what their records prove of it, and what stands on the emitter table. (CA-5, CA-6)"""

from __future__ import annotations

import polars as pl

from ledger.fact_tables import column as _c
from ledger.money import MONEY, RATE
from ledger.schema import Table

COUNT_EVIDENCE = Table(
    "count_evidence",
    "conclusion",
    "How emitters count: calls and money by emitter, version, provider and model, with what contradicts the emitter table and the costs "
    "that emitters report. (CA-5, CA-6)",
    key=("rollup_id", "emitter", "emitter_version", "source", "provider", "model"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the rollup (one pass over the spans) that produced it", required=True),
        _c("month", pl.String, "UTC month of the calls, YYYY-MM", required=True),
        _c("emitter", pl.String, "a row of the emitter table; the ingestor where no emitter was recognised"),
        _c("emitter_version", pl.String, "version of its instrumentation scope, as sent"),
        _c("source", pl.String, "ingestor that read the calls"),
        _c("provider", pl.String, "canonical provider"),
        _c("model", pl.String, "canonical model"),
        _c("calls", pl.Int64, "calls that used something at a provider", required=True),
        _c("tokens", pl.Int64, "their tokens, of all token meters"),
        _c("list_cost", MONEY, "their cost at the price-book rates; null where none is priced"),
        _c("contradicted_calls", pl.Int64, "calls whose record contradicts the emitter table", required=True),
        _c("contradicted_cost", MONEY, "their list cost"),
        _c(
            "assumed_calls",
            pl.Int64,
            "calls whose input was taken as inclusive of cached tokens because nothing says",
            required=True,
        ),
        _c("assumed_cost", MONEY, "their list cost"),
        _c("table_calls", pl.Int64, "calls whose counts are read as the emitter table says, since the record does not prove how"),
        _c("total_calls", pl.Int64, "calls with a total of their own"),
        _c("agreeing_total_calls", pl.Int64, "calls whose total is the sum of their tokens as they are read"),
        _c("compared_calls", pl.Int64, "calls with a reported cost and a list cost", required=True),
        _c("compared_cost", MONEY, "their list cost"),
        _c("reported_cost", RATE, "the cost their emitter reports for them; compared, never booked"),
        _c("absent_calls", pl.Int64, "calls that did not fail and report no usage: nothing is booked for them"),
        _c("absent_reported_cost", RATE, "the cost their emitter reports for them; null where it reports none"),
        _c("echo_spans", pl.Int64, "spans set aside because they repeat the call below them (CA-2b)"),
        _c("echo_cost", MONEY, "list cost of the usage they repeat; null where it has no price"),
        _c("wrapper_spans", pl.Int64, "wrappers whose usage, or a part of it, is set aside because the calls below report it"),
        _c("wrapper_cost", MONEY, "list cost of that usage at the wrapper's model"),
        _c("wrapper_excess_spans", pl.Int64, "wrappers that report more than the calls below them, all of which report"),
        _c("wrapper_excess_cost", MONEY, "list cost of that excess, which is counted nowhere"),
    ),
)

COUNT_READINGS = Table(
    "count_readings",
    "conclusion",
    "Quantities of usage rows whose reading the record does not prove: it stands on the emitter table, or on an assumption. All other usage is "
    "proven by its record. (CA-5)",
    key=("rollup_id", "usage_key", "meter", "reading", "emitter", "emitter_version"),
    partition_by=("month", "rollup_id"),
    columns=(
        _c("rollup_id", pl.String, "the rollup (one pass over the spans) that produced it", required=True),
        _c("month", pl.String, "UTC month of the usage, YYYY-MM", required=True),
        _c("usage_key", pl.Int64, "the usage_hourly row that includes the quantity", required=True),
        _c(
            "meter",
            pl.String,
            "input_tokens of calls with cached tokens, or output_tokens of calls with reasoning",
            required=True,
        ),
        _c("reading", pl.String, "table: as the emitter table says; assumption: nothing says", required=True),
        _c("emitter", pl.String, "a row of the emitter table; the ingestor where no emitter was recognised"),
        _c("emitter_version", pl.String, "version of its instrumentation scope, as sent"),
        _c("quantity", MONEY, "quantity of the meter", required=True),
        _c("calls", pl.Int64, "number of calls", required=True),
    ),
)
