"""LiteLLM's payloads by columns: what `rows.of_item` makes of a payload, for many lines at once.

Ids, times, counts and costs are a call's own. All else repeats from call to call: of the calls that agree in it one is read by
`rows.of_item`, and the others take its columns. What is odd in a payload is left to `rows.of_item` altogether: `PayloadRows` names the
lines that were not taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.logs import json_columns
from ingest.logs import rows as log_rows
from ingest.logs.json_columns import ParsedLines
from ingest.logs.json_fields import ABSENT_VALUES, MAX_TEXT_LENGTH, parse_json, text
from ingest.logs.json_items import LineBlock
from ingest.logs.unread_usage import UnreadUsage
from ingest.sources.litellm import line_columns, line_schema, names
from ingest.sources.litellm import rows as litellm_rows
from ingest.sources.litellm.line_columns import HEADERS, TRACEPARENT, USAGE
from ingest.sources.litellm.line_schema import Skeletons
from ledger.hashing import row_hash
from ledger.settings import IngestSettings

MIN_LINES: Final = 64
"""Fewer lines are read one by one."""
_MAX_TEMPLATES: Final = 20_000
_USAGE_OBJECT, _LABELS = "metadata.usage_object", "metadata.spend_logs_metadata"
_WORD: Final = r"\A[!#-\[\]-~](?:[ !#-\[\]-~]*[!#-\[\]-~])?\z"
"""Text that needs no trimming, and no escape in JSON."""
_BILLS_OTHER_WORK: Final = r"_cache_hit[0-9.]*\z|_batch_cost\z|_background[a-z_]*\z|_[a-z_]*cost\z"
_CALLER: Final = r"\A[0-9a-fA-F]{2}-[0-9a-fA-F]{32}-[0-9a-fA-F]{16}-[0-9a-fA-F]{2}\z"
_ZERO_IDS: Final = r"-0{32}-|-0{16}-"
_LATEST_US: Final = 7_258_118_400_000_000
_NARROW_AMOUNT: Final = (Decimal(10**8), 30)
_NARROW: Final = {"startTime": (Decimal(10**11), 6), "endTime": (Decimal(10**11), 6), "response_cost": (Decimal(10**8), 18)}
"""Below which amount numbers are taken, and to how many places: what is above is read by itself."""
_RARE_METERS: Final = (
    *("video_tokens", "character_count", "image_count", "length_seconds", "query_count", "web_search", "browser_open"),
    *("maps_grounding", "citation_tokens", "cached_tokens_details"),
)
"""Parts of the names of usage other than tokens: it is read payload by payload."""


class LineBlockTable(NamedTuple):
    """A block's lines, parsed: `parts` are those of all lines."""

    block: LineBlock
    parsed: ParsedLines
    parts: pl.DataFrame
    amounts: Sequence[str]


class PayloadRows(NamedTuple):
    """Rows of `spans` of some lines; the positions of these lines in the block, and of all others; usage in which something may be unread."""

    spans: pl.DataFrame
    positions: list[int]
    remainder: list[int]
    usage: Mapping[int, Mapping[str, Any]]


class _Template(NamedTuple):
    """What payloads have in common that agree in all but a call's own fields."""

    row: litellm_rows.Row
    before_cost: str | None
    after_cost: str | None
    scope_of_usage: str | None
    is_free: bool
    """Whether a cost of 0 is a price, and not the lack of one."""


def parse(block: LineBlock) -> LineBlockTable:
    """The lines of a block as a table."""
    parts = line_schema.open_parts(pl.Series(block.lines, dtype=pl.Binary).cast(pl.String, strict=False))
    numbers = Skeletons(parts["cost_breakdown skeleton"]).numbers()
    amounts = [name for name in numbers if name not in line_schema.BREAKDOWN_TEXTS]
    return LineBlockTable(block, json_columns.parse(block.lines, line_schema.schema(amounts)), parts, amounts)


class PayloadColumns:
    """Reads the lines of one file; what calls have in common is kept from block to block."""

    def __init__(self, settings: IngestSettings, unread: UnreadUsage) -> None:
        self._settings, self._unread = settings, unread
        self._templates = dict[int, _Template | None]()

    def read(self, table: LineBlockTable) -> PayloadRows:
        """The rows of the lines that nothing is odd about."""
        fields = _leaves(table.parsed.table)
        parts = table.parts[table.parsed.fitting]
        fields = pl.concat([fields, parts.select(pl.all().name.prefix("text "))], how="horizontal").with_columns(
            # What stands elsewhere under the same name is no part of the payload.
            pl.when(f"{path}?").then(f"text {name}").alias(f"text {name}")
            for path in line_schema.OPEN_PARTS
            for name in (path, f"{path} skeleton")
            if name in parts.columns
        )
        common_fields = [
            name for name in fields.columns if not (line_columns.is_own(name) or name.endswith("?") or name.startswith("text "))
        ]
        common_fields.append(f"text {_LABELS}")
        fields = fields.with_columns(position=pl.Series(table.parsed.fitting), template=row_hash(*common_fields))
        fields = fields.filter(~_odd_rows(fields, table.amounts))
        self._add_templates(fields, common_fields)
        template_keys = [key for key in fields["template"].unique().to_list() if self._templates[key] is not None]
        fields = fields.filter(pl.col("template").is_in(template_keys))
        is_trusted = "litellm" in self._settings.trusted_sources
        calls = line_columns.of_calls(fields, table.amounts, is_trusted=is_trusted)
        positions = fields["position"].to_list()
        remainder = sorted({*range(len(table.block.lines))}.difference(positions))
        return PayloadRows(self._spans(calls, template_keys), positions, remainder, self._usage_to_check(fields))

    def _usage_to_check(self, fields: pl.DataFrame) -> dict[int, Mapping[str, Any]]:
        skeleton = f"text {_USAGE_OBJECT} skeleton"
        unread = Skeletons(fields[skeleton]).where(lambda usage: not self._unread.knows(usage))
        rows = fields.filter(pl.col(skeleton).is_in(unread)).select("position", f"text {_USAGE_OBJECT}").rows()
        return {position: parse_json(text) for position, text in rows}

    def _add_templates(self, fields: pl.DataFrame, common_fields: list[str]) -> None:
        if len(self._templates) > _MAX_TEMPLATES:
            self._templates.clear()
        new = fields.filter(~pl.col("template").is_in(list(self._templates))).unique("template", keep="any")
        keys = new["template"].to_list()
        for key, values in zip(keys, new.select(common_fields).rows(named=True), strict=True):
            self._templates[key] = _template(values, self._settings)

    def _spans(self, calls: pl.DataFrame, keys: list[int]) -> pl.DataFrame:
        templates = [template for key in keys if (template := self._templates[key]) is not None]
        common = log_rows.columns([template.row for template in templates])
        numbers = pl.DataFrame(
            {"template": pl.Series(keys, dtype=pl.UInt64), "number": pl.Series(range(len(keys)), dtype=pl.UInt32)}
        )
        at = calls.select("template").join(numbers, on="template", how="left", maintain_order="left")["number"]
        extra = pl.DataFrame(
            {
                "before": pl.Series([t.before_cost for t in templates], dtype=pl.String),
                "after": pl.Series([t.after_cost for t in templates], dtype=pl.String),
                "scope": pl.Series([t.scope_of_usage for t in templates], dtype=pl.String),
                "free": pl.Series([t.is_free for t in templates], dtype=pl.Boolean),
            }
        )[at]
        own = calls.with_columns(extra)
        attributes = pl.concat_str(["before", "cost", "after", "traceparent"], separator=", ", ignore_nulls=True)
        cost = pl.col("response_cost")
        own = own.select(
            *line_columns.OWN_COLUMNS,
            *(line_columns.CALLER_COLUMNS if "parent_key" in own.columns else ()),
            attributes=pl.when(attributes != "").then(pl.concat_str(pl.lit("{"), attributes, pl.lit("}"))),
            reported_cost=pl.when((cost > 0) | ((cost == 0) & pl.col("free") & pl.col("input_tokens").is_not_null())).then(cost),
            __scope=pl.when(pl.col("__used")).then("scope"),
        )
        spans = common[at].with_columns(own.drop("__scope"))
        return log_rows.ranked(spans.with_columns(usage_scope=pl.coalesce(own["__scope"], "usage_scope")))


def _leaves(table: pa.Table) -> pl.DataFrame:
    """The fields of a table by their dotted names, and ``name?``: whether a record is there."""
    columns = dict[str, pa.Array]()

    def add(path: str, array: pa.Array) -> None:
        if not pa.types.is_struct(array.type):
            columns[path] = array
            return
        columns[f"{path}?"] = array.is_valid()
        for field in array.type:
            if field.name != line_schema.NO_FIELD:
                add(f"{path}.{field.name}", pc.struct_field(array, [field.name]))

    for name in table.column_names:
        chunks = table[name]
        add(name, chunks.chunk(0) if chunks.num_chunks else pa.nulls(0, chunks.type))
    large = pa.nulls(table.num_rows, pa.bool_())
    for name, array in columns.items():
        if pa.types.is_decimal(array.type):
            limit, scale = _NARROW.get(name, _NARROW_AMOUNT)
            extremes = pc.min_max(array).as_py()
            if extremes["max"] is not None and not -limit < extremes["min"] <= extremes["max"] < limit:
                is_within = pc.less(pc.abs(array), limit)
                large = pc.or_kleene(large, pc.invert(is_within))
                columns[name] = pc.if_else(is_within, array, None)
            amounts = columns[name] if scale == array.type.scale else pc.round(columns[name], scale, "half_to_even")
            columns[name] = amounts.cast(pa.decimal128(38, scale))
    return pl.DataFrame(pl.from_arrow(pa.table(columns | {"large": large})))


def _odd_rows(fields: pl.DataFrame, amounts: Sequence[str]) -> pl.Series:
    """The rows whose payload is read by itself."""
    col = pl.col
    counts = [name for name, dtype in fields.schema.items() if dtype == pl.Int64]
    rare_meters = [name for name in fields.columns if name.startswith(USAGE) and any(part in name for part in _RARE_METERS)]
    ids = line_columns.header_ids(fields.columns)
    known_ids = pl.sum_horizontal(*(col(name).is_not_null().cast(pl.UInt32) for name in ids))
    no_usage = Skeletons(fields[f"text {_USAGE_OBJECT} skeleton"]).where(lambda usage: not usage)
    is_without_usage = ~col(f"{_USAGE_OBJECT}?") | col(f"text {_USAGE_OBJECT} skeleton").is_in(no_usage)
    unread_amounts = Skeletons(fields["text cost_breakdown skeleton"]).where(
        lambda part: any(
            value is not None and name not in (*amounts, *line_schema.BREAKDOWN_TEXTS) for name, value in part.items()
        )
    )
    conditions = [
        *(col(name).is_null() for name in ("call_type", "id", "litellm_call_id", "startTime", "response_cost")),
        *(col(name).is_in(ABSENT_VALUES) for name in ("id", "litellm_call_id")),
        col("large") | col("cache_hit"),
        col("id").str.contains(_BILLS_OTHER_WORK),
        col("metadata.billed_retry_attempt").is_not_null(),
        col("saved_cache_cost") != 0,
        *(~_is_plain(name) for name in (*line_columns.OWN_TEXTS, *ids)),
        ~col(TRACEPARENT).str.contains(_CALLER) | col(TRACEPARENT).str.contains(_ZERO_IDS),
        *(~col(name).to_physical().is_between(1, _LATEST_US - 1) for name in ("startTime", "endTime")),
        col("response_cost") < 0,
        *(col(name) < 0 for name in counts),
        *(col(name) != 0 for name in rare_meters if not name.endswith("?")),
        # Parts that are rare, or that another one stands in for where they are empty.
        *(col(f"{name}?") for name in line_schema.RARE),
        is_without_usage & (col("hidden_params.usage_object?") | col("metadata.additional_usage_values?")),
        *(
            col(f"{USAGE}{one}_tokens_details?") & col(f"{USAGE}{other}_tokens_details?")
            for one, other in (("prompt", "input"), ("completion", "output"))
        ),
        # Parts of any keys: not found in the line, or with keys that the schema has not.
        *(col(f"{path}?") & col(f"text {path}").is_null() for path in line_schema.OPEN_PARTS),
        col("text cost_breakdown skeleton").is_in(unread_amounts),
        line_schema.has_odd_headers(col(f"text {HEADERS[:-1]}"), known_ids),
        col("text escaped"),
    ]
    return fields.select(odd=pl.any_horizontal(condition.fill_null(value=False) for condition in conditions))["odd"]


def _is_plain(name: str) -> pl.Expr:
    text = pl.col(name)
    return text.is_in(ABSENT_VALUES) | (text.str.contains(_WORD) & (text.str.len_bytes() <= MAX_TEXT_LENGTH))


def _template(values: Mapping[str, Any], settings: IngestSettings) -> _Template | None:
    """What payloads with these values have in common; None where each of them is to be read by itself."""
    payload: dict[str, Any] = {}
    for path, value in values.items():
        *outer, name = path.removeprefix("text ").split(".")
        part = payload
        for step in outer:
            part = part.setdefault(step, {})
        part[name] = parse_json(value) if path == f"text {_LABELS}" and value is not None else value
    payload |= {"id": "request", "litellm_call_id": "call", "startTime": 1}
    row, problems = litellm_rows.of_item(payload, settings)
    call_type = text(payload["call_type"]) or ""
    if row is None or problems or names.is_batch_retrieval(call_type) or names.makes_images(call_type):
        return None
    attributes = json.loads(row["attributes"] or "{}")
    members = {
        key: json.dumps({key: value}, sort_keys=True, ensure_ascii=False)[1:-1] for key, value in sorted(attributes.items())
    }
    entry = payload["model_map_information"]["model_map_value"]
    return _Template(
        row,
        ", ".join(member for key, member in members.items() if key < "cost") or None,
        ", ".join(member for key, member in members.items() if key > "cost") or None,
        names.usage_scope(call_type, used=True),
        bool(entry["mode"]),
    )
