"""Spans whose usage is set aside: wrappers and echoes, whose usage the calls below them report. (CA-2b)"""

from __future__ import annotations

import polars as pl

from api.models import Part, Step
from api.queries.explain import text
from api.queries.gate import ScopedBooks, published, scan_rollups
from ledger.tables import CALLS, SPANS, USAGE_COLUMNS

_TEXTS = {
    "leaf": "it repeats a call that another span or log reports: model and usage agree",
    "aggregate": "it sums up the calls below it, which report their own usage",
    "cumulative": "it is a running total of the calls below it, which report their own usage",
}


def spans_set_aside(books: ScopedBooks, ref: str) -> pl.DataFrame:
    """Spans with that id (span id or ``trace id:span id``) that report usage in a trace with published calls, but are no call."""
    trace, _, span = ref.rpartition(":")
    is_match = pl.col("span_id") == (span or ref)
    if trace:
        is_match &= pl.col("trace_id") == trace
    has_usage = pl.any_horizontal(pl.col(c).is_not_null() for c in (*USAGE_COLUMNS, "other_usage"))
    spans = (
        books.whole.store.scan(SPANS)
        .filter(is_match.fill_null(value=False) & has_usage)
        .sort("start_time", "trace_key")
        .collect()
    )
    if not spans.height:
        return spans
    calls = scan_rollups(books, CALLS, published(books), "initiator").select("trace_key", "span_key", "chain_id")
    chains = calls.select("trace_key", "chain_id").unique("trace_key", keep="any")
    no_calls = spans.lazy().join(calls, on=["trace_key", "span_key"], how="anti", maintain_order="left")
    return no_calls.join(chains, on="trace_key", how="left" if books.sees_all else "inner", maintain_order="left").collect()


def set_aside_step(spans: pl.DataFrame, most: int) -> Step:
    """Why the usage of these spans is counted nowhere, and the chain whose calls have it."""
    parts = [
        Part(
            sentence=f"{row['name'] or row['span_id']}: {_tokens(row)} set aside, since {_TEXTS.get(row['usage_scope'] or 'leaf')}",
            facts=text.json_values(
                {name: row[name] for name in ("trace_id", "span_id", "usage_scope", "emitter", *USAGE_COLUMNS)}
            ),
        )
        for row in spans.head(most).iter_rows(named=True)
    ]
    step = Step(
        step="span",
        rule="CA-2b",
        sentence="This span is no call of its own: its usage is counted once, at the calls that report it.",
        facts={"reason": sorted({"echo" if row in (None, "leaf") else "wrapper" for row in spans["usage_scope"]})},
        parts=parts,
    )
    step.links = [text.link("chain", chain) for chain in spans["chain_id"].unique(maintain_order=True)]
    return step


def _tokens(row: dict[str, object]) -> str:
    counts = {"input": row["input_tokens"], "output": row["output_tokens"]}
    texts = [f"{count:,} {side} tokens" for side, count in counts.items() if isinstance(count, int)]
    return " and ".join(texts) or "its usage is"
