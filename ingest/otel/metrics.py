"""Usage metrics as rows of `metric_points`; `metrics.csv` lists which metrics. They repeat the usage of spans and events.

Counters and the sums of histograms are read, delta or cumulative. Of the attributes only model, provider and conversation are kept;
a hash of all attributes identifies the series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import polars as pl
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from ingest.logs.unread_usage import UnreadUsage
from ingest.otel import signals
from ingest.otel.attribute_values import AttributeValueError, quantity, text
from ingest.otel.emitters import rows_of
from ingest.otel.export_problems import EARLIEST_NS, LATEST_NS, ExportProblems
from ingest.otel.salvage import METRICS
from ingest.source import Reading
from ledger.money import RATE
from ledger.tables import METRIC_POINTS

_MODELS = ("model", "gen_ai.response.model", "gen_ai.request.model", "model_name")
_PROVIDERS = ("gen_ai.provider.name", "gen_ai.system")
_SESSIONS = ("session.id", "gen_ai.conversation.id", "conversation.id")
_KINDS = ("sum", "histogram", "exponential_histogram")


def read_metrics(
    body: bytes, *, raw_id: str, uri: str, source: str = "otlp", content_type: str = "", content_encoding: str = ""
) -> Reading:
    """The usage points of one metric export, as `metric_points`. Raises `FormatError` for anything else."""
    message, failures = signals.decode(body, METRICS, content_type, content_encoding)
    problems, unread = ExportProblems(source, uri), UnreadUsage(source, uri, paths=())
    for part in failures:
        problems.add(part.place, "metric", part.reason, "the sender's exporter wrote it so; update it or report it there")
    rows = [row | {"source": source, "raw_id": raw_id} for row in _rows(message, problems, unread)]
    if not rows:
        return Reading(METRIC_POINTS.empty(), [*problems.problems(), *unread.problems()])
    moment = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(rows, schema_overrides={"start": pl.Int64, "end": pl.Int64}, infer_schema_length=None)
    frame = frame.with_columns(
        start_time=(pl.col("start") // 1000).cast(moment),
        time=(pl.col("end") // 1000).cast(moment),
        quantity=pl.col("quantity").cast(RATE),
    ).drop("start", "end")
    return Reading(
        METRIC_POINTS.conform(frame.with_columns(date=pl.col("time").dt.date())), [*problems.problems(), *unread.problems()]
    )


@lru_cache(maxsize=1)
def _meanings() -> Mapping[str, list[Mapping[str, str]]]:
    meanings: dict[str, list[Mapping[str, str]]] = {}
    for row in rows_of("metrics"):
        meanings.setdefault(row["metric"], []).append(row)
    return meanings


def _rows(message: Any, problems: ExportProblems, unread: UnreadUsage) -> Iterator[dict[str, Any]]:
    for resource_metrics in message.resource_metrics:
        resource = _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                meanings = _meanings().get(metric.name)
                if meanings:
                    yield from _points(metric, meanings, resource, problems, unread)
                elif _counts_tokens(metric):
                    for point in _data_points(metric):
                        unread.add_field(metric.name, _number(point))


def _points(
    metric: Any,
    meanings: Iterable[Mapping[str, str]],
    resource: Mapping[str, str],
    problems: ExportProblems,
    unread: UnreadUsage,
) -> Iterator[dict[str, Any]]:
    kind = metric.WhichOneof("data")
    if kind not in _KINDS:
        return
    metric_body = getattr(metric, kind)
    cumulative = metric_body.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    for number, point in enumerate(metric_body.data_points, 1):
        point_attributes = _attributes(point.attributes)
        meaning = next((m for m in meanings if not m["attribute"] or point_attributes.get(m["attribute"]) == m["value"]), None)
        if meaning is None:
            [attribute] = {row["attribute"] for row in meanings}
            unread.add_field(f"{metric.name}{{{attribute}={point_attributes.get(attribute, '')}}}"[:200], _number(point))
            continue
        end = point.time_unix_nano
        if not EARLIEST_NS <= end < LATEST_NS:
            problems.add(
                f"{metric.name} point {number}", "time_unix_nano", "no time in the years 2010 to 2100", "set the sender's clock"
            )
            continue
        try:
            used = quantity(_number(point))
        except AttributeValueError as error:
            problems.add(f"{metric.name} point {number}", "value", error.reason, error.remedy)
            continue
        start = point.start_time_unix_nano
        attributes = {**resource, **point_attributes}
        yield {
            "series": _series(metric.name, resource, point_attributes),
            "name": metric.name,
            "emitter": meaning["emitter"],
            "service_name": resource.get("service.name"),
            "conversation_id": _first(attributes, _SESSIONS),
            "provider": _first(attributes, _PROVIDERS),
            "model": _first(attributes, _MODELS),
            "meter": meaning["meter"],
            "start": start if EARLIEST_NS <= start <= end else end,
            "end": end,
            "cumulative": cumulative,
            "quantity": used or "0",
        }


def _data_points(metric: Any) -> Iterable[Any]:
    kind = metric.WhichOneof("data")
    points: Iterable[Any] = getattr(metric, kind).data_points if kind in _KINDS else ()
    return points


def _counts_tokens(metric: Any) -> bool:
    """Whether a metric states how much was used, going by its unit and name."""
    return metric.unit.strip("{}").lower() in ("token", "tokens") or ".token.usage" in metric.name or ".usage." in metric.name


def _number(point: Any) -> int | float:
    if hasattr(point, "as_int"):
        value: int | float = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
        return value
    total: float = point.sum
    return total


def _attributes(pairs: Iterable[Any]) -> dict[str, str]:
    """Attributes with scalar values, as text."""
    values = {}
    for pair in pairs:
        value_kind = pair.value.WhichOneof("value")
        if value_kind in ("string_value", "int_value", "bool_value", "double_value"):
            name = text(getattr(pair.value, value_kind))
            if name is not None:
                values[pair.key] = name
    return values


def _first(attributes: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((attributes[name] for name in names if name in attributes), None)


def _series(metric: str, resource: Mapping[str, str], point_attributes: Mapping[str, str]) -> str:
    parts = [
        metric,
        *(f"{k}={v}" for k, v in sorted(resource.items())),
        "",
        *(f"{k}={v}" for k, v in sorted(point_attributes.items())),
    ]
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()
