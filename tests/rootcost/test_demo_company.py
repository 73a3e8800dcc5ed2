"""The demo company's files: real formats, read back with the formats' own readers, and a bill that adds up."""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import json
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ledger.errors import UsageError
from rootcost.demo import DemoCompany, generate, write
from rootcost.demo.company import AWS_METER, MODELS

CALLS = 2_000
SUM = Decimal(0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoCompany:
    return generate(tmp_path_factory.mktemp("demo") / "company", calls=CALLS)


@pytest.fixture(scope="module")
def truth(demo: DemoCompany) -> dict[str, Any]:
    return dict(json.loads(demo.truth.read_text()))


def _requests(demo: DemoCompany, *, resent: bool = False) -> list[ExportTraceServiceRequest]:
    return [
        ExportTraceServiceRequest.FromString(p.read_bytes())
        for p in sorted(demo.otlp.glob("*.pb"))
        if resent or "resent" not in p.name
    ]


def _spans(demo: DemoCompany) -> list[dict[str, Any]]:
    """Every span sent once, from both formats, with its service and attributes as plain values."""
    out = []
    for request in _requests(demo):
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for span in (s for scope in resource.scope_spans for s in scope.spans):
                values = {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in span.attributes}
                links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
                out.append(
                    {
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "service": service,
                        "name": span.name,
                        "values": values,
                        "links": links,
                        "code": span.status.code,
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                    }
                )
    for path in sorted(demo.otlp.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            for resource in json.loads(line)["resourceSpans"]:
                attributes = {a["key"]: a["value"].get("stringValue") for a in resource["resource"]["attributes"]}
                for s in resource["scopeSpans"][0]["spans"]:
                    values = {
                        a["key"]: a["value"].get("stringValue") or int(a["value"].get("intValue", 0)) for a in s["attributes"]
                    }
                    out.append(
                        {
                            "trace": s["traceId"],
                            "span": s["spanId"],
                            "parent": s["parentSpanId"],
                            "service": attributes["service.name"],
                            "name": s["name"],
                            "values": values,
                            "links": [],
                            "code": s["status"].get("code", 0),
                            "start": int(s["startTimeUnixNano"]),
                            "end": int(s["endTimeUnixNano"]),
                        }
                    )
    return out


@pytest.fixture(scope="module")
def spans(demo: DemoCompany) -> list[dict[str, Any]]:
    return _spans(demo)


def _payloads(demo: DemoCompany) -> list[dict[str, Any]]:
    files = [p for p in sorted(demo.litellm.rglob("*.jsonl")) if "retried" not in p.name]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _declared_by_litellm(*classes: str) -> set[str]:
    """The fields that litellm's own source declares, read without importing it."""
    package = importlib.util.find_spec("litellm")
    assert package is not None
    assert package.origin is not None
    tree = ast.parse((Path(package.origin).parent / "types" / "utils.py").read_text())
    found = [c for c in tree.body if isinstance(c, ast.ClassDef) and c.name in classes]
    assert len(found) == len(classes)
    return {f.target.id for c in found for f in c.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)}


def _rows(manifest: Path, bucket: Path) -> list[dict[str, Any]]:
    """A CUR as its manifest says: every file it names, nothing else."""
    named = json.loads(manifest.read_text())["dataFiles"]
    return [row for name in named for row in pq.read_table(bucket / name.removeprefix("s3://brightwater-billing/")).to_pylist()]


def _manifest(bucket: Path) -> Path:
    (found,) = bucket.rglob("*-Manifest.json")
    return found


def _money(rows: list[dict[str, Any]], column: str) -> Decimal:
    return sum((Decimal(repr(row[column])) for row in rows), SUM)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(folder: Path, seed: int) -> dict[str, str]:
        generate(folder, calls=300, seed=seed)
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != "demo.json"]
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    one, other = digest(tmp_path / "a", 7), digest(tmp_path / "c", 8)
    monkeypatch.setattr(write, "LARGE", 1)
    monkeypatch.setattr(write, "cpu_count", lambda: 2)
    assert digest(tmp_path / "b", 7) == one
    assert one["truth.json"] != other["truth.json"]


def test_the_scale_is_the_number_of_calls(demo: DemoCompany, truth: dict[str, Any]) -> None:
    assert abs(demo.calls - CALLS) < CALLS * 0.1
    assert demo.calls == truth["calls"]
    assert demo.spans > demo.calls


def test_a_folder_that_is_not_a_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError):
        generate(tmp_path, calls=300)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


class TestTelemetry:
    def test_official_readers_read_every_span(self, demo: DemoCompany, spans: list[dict[str, Any]]) -> None:
        assert len(spans) == demo.spans
        assert len({(s["trace"], s["span"]) for s in spans}) == demo.spans
        assert all(len(s["trace"]) == 32 and len(s["span"]) == 16 and s["start"] <= s["end"] for s in spans)
        assert {"care-web", "support-bot", "research-service", "mcp-knowledge", "litellm", "doc-indexer"} <= {
            s["service"] for s in spans
        }

    def test_parents_run_across_services_and_only_a_few_are_lost(self, spans: list[dict[str, Any]]) -> None:
        service = {(s["trace"], s["span"]): s["service"] for s in spans}
        children = [s for s in spans if s["parent"]]
        lost = [s for s in children if (s["trace"], s["parent"]) not in service]
        crossing = {(service[s["trace"], s["parent"]], s["service"]) for s in children if (s["trace"], s["parent"]) in service}
        assert {("care-web", "support-bot"), ("support-bot", "research-service"), ("support-bot", "mcp-knowledge")} <= crossing
        assert {s["name"] for s in lost} == {"POST /a2a"}
        assert 0 < len(lost) < len(spans) * 0.01

    def test_queues_are_crossed_by_links(self, spans: list[dict[str, Any]]) -> None:
        known = {(s["trace"], s["span"]) for s in spans}
        linked = [s for s in spans if s["links"]]
        assert linked
        assert all(not s["parent"] and s["links"][0] in known and s["links"][0][0] != s["trace"] for s in linked)

    def test_wrappers_repeat_their_calls(self, spans: list[dict[str, Any]]) -> None:
        below: dict[tuple[str, str], int] = defaultdict(int)
        for s in spans:
            if s["name"].startswith("chat ") and "gen_ai.usage.output_tokens" in s["values"]:
                below[s["trace"], s["parent"]] += s["values"]["gen_ai.usage.output_tokens"]
        wrappers = [s for s in spans if s["name"].startswith("invoke_agent") and "gen_ai.usage.output_tokens" in s["values"]]
        assert len(wrappers) > 50
        assert all(s["values"]["gen_ai.usage.output_tokens"] == below[s["trace"], s["span"]] for s in wrappers)

    def test_some_deliveries_come_twice(self, demo: DemoCompany) -> None:
        def ids(requests: list[ExportTraceServiceRequest]) -> Counter[bytes]:
            return Counter(s.span_id for r in requests for rs in r.resource_spans for sc in rs.scope_spans for s in sc.spans)

        again = ids(_requests(demo, resent=True)) - ids(_requests(demo))
        assert again
        assert set(again) <= set(ids(_requests(demo)))

    def test_the_hosted_sdk_counts_input_without_cached_tokens(self, spans: list[dict[str, Any]]) -> None:
        calls = [s["values"] for s in spans if s["service"] == "contract-review" and s["name"].startswith("chat ")]
        cached = [v for v in calls if v["gen_ai.usage.cache_read.input_tokens"] > v["gen_ai.usage.input_tokens"]]
        assert len(cached) > len(calls) / 3


class TestGateway:
    @pytest.mark.slow
    def test_payloads_have_the_shape_of_the_real_ones(self, demo: DemoCompany) -> None:
        payloads = _payloads(demo)
        assert len(payloads) == demo.payloads
        assert len({p["litellm_call_id"] for p in payloads}) == len(payloads)
        declared = _declared_by_litellm("StandardLoggingPayload", "StandardLoggingMetadata", "StandardLoggingUserAPIKeyMetadata")
        assert set(payloads[0]) | set(payloads[0]["metadata"]) <= declared

    def test_tokens_are_consistent_and_inclusive(self, demo: DemoCompany) -> None:
        for p in _payloads(demo):
            assert p["total_tokens"] == p["prompt_tokens"] + p["completion_tokens"]
            if p["status"] == "success":
                usage = p["metadata"]["usage_object"]
                details = usage["prompt_tokens_details"]
                assert (
                    details["cached_tokens"] + details.get("cache_creation_tokens", 0)
                    <= usage["prompt_tokens"]
                    == p["prompt_tokens"]
                )
            else:
                assert p["total_tokens"] == 0
                assert p["error_str"]

    def test_a_call_in_both_channels_carries_the_same_ids_and_usage(self, demo: DemoCompany, spans: list[dict[str, Any]]) -> None:
        told = {
            s["values"]["gen_ai.response.id"]: s
            for s in spans
            if s["name"].startswith("chat ") and "gen_ai.response.id" in s["values"]
        }
        shared = [(told[p["id"]], p) for p in _payloads(demo) if p["id"] in told]
        assert len(shared) > demo.payloads / 2
        for span, payload in shared:
            assert span["trace"] == payload["trace_id"]
            assert span["values"]["gen_ai.usage.input_tokens"] == payload["prompt_tokens"]
            assert span["values"]["gen_ai.usage.output_tokens"] == payload["completion_tokens"]

    def test_there_are_failures_cache_hits_and_keys_nobody_knows(self, demo: DemoCompany) -> None:
        payloads = _payloads(demo)
        assert any(p["status"] == "failure" for p in payloads)
        assert all(p["response_cost"] == 0 for p in payloads if p["cache_hit"])
        assert any(p["cache_hit"] for p in payloads)
        assert any(p["metadata"]["user_api_key_alias"] == "legacy-default-key" for p in payloads)


class TestBill:
    def test_the_export_lies_as_aws_lays_it(self, demo: DemoCompany) -> None:
        manifest = _manifest(demo.bucket)
        told = json.loads(manifest.read_text())
        assert manifest.relative_to(demo.bucket).parts[:4] == (
            "exports",
            "brightwater-cur2",
            "metadata",
            "BILLING_PERIOD=2026-10",
        )
        assert told["billingPeriod"] == {"start": "20261001T000000.000Z", "end": "20261101T000000.000Z"}
        assert len(told["dataFiles"]) == 3
        assert all("/data/BILLING_PERIOD=2026-10/" in name for name in told["dataFiles"])

    def test_columns_have_the_documented_types(self, demo: DemoCompany) -> None:
        first = json.loads(_manifest(demo.bucket).read_text())["dataFiles"][0].removeprefix("s3://brightwater-billing/")
        schema = pq.read_schema(demo.bucket / first)
        assert pa.types.is_map(schema.field("resource_tags").type)
        assert pa.types.is_map(schema.field("tags").type)
        assert schema.field("discount").type == pa.map_(pa.string(), pa.float64())
        assert schema.field("line_item_net_unblended_cost").type == pa.float64()

    def test_every_usage_row_is_quantity_times_rate_and_the_contract_gives_12_percent(self, demo: DemoCompany) -> None:
        rows = [r for r in _rows(_manifest(demo.restated), demo.restated) if r["line_item_line_item_type"] == "Usage"]
        bedrock = [r for r in rows if r["line_item_product_code"] == "AmazonBedrock"]
        assert len(bedrock) > 500
        for row in rows:
            cost = Decimal(repr(row["line_item_unblended_cost"]))
            assert cost == Decimal(repr(row["line_item_usage_amount"])) * Decimal(row["line_item_unblended_rate"])
            discount = Decimal("0.88") if row["line_item_product_code"] == "AmazonBedrock" else Decimal(1)
            assert Decimal(repr(row["line_item_net_unblended_cost"])) == cost * discount

    def test_totals_are_those_of_the_truth(self, demo: DemoCompany, truth: dict[str, Any]) -> None:
        for version, bucket in (("AWS, first", demo.bucket), ("AWS, restated", demo.restated)):
            rows = _rows(_manifest(bucket), bucket)
            assert len(rows) == truth["bills"][version]["rows"]
            assert _money(rows, "line_item_net_unblended_cost") == Decimal(truth["bills"][version]["billed_cost"])
            assert _money(rows, "line_item_unblended_cost") == Decimal(truth["bills"][version]["unblended_cost"])

    def test_it_bills_the_tokens_that_were_used_to_the_last_one(self, demo: DemoCompany, truth: dict[str, Any]) -> None:
        name = {(m.billed, m.region): m.name for m in MODELS if m.on_aws}
        meter = {word: key for key, word in AWS_METER.items()}
        logged: dict[tuple[str, str], int] = defaultdict(int)
        for row in truth["initiators"]:
            if row["provider"] == "AWS":
                logged[row["model"], row["meter"]] += row["tokens"]
        billed: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        shadows = {u["principal"] for u in truth["uncaptured"]}
        for row in _rows(_manifest(demo.restated), demo.restated):
            if row["pricing_unit"] == "1K tokens" and row["line_item_iam_principal"] not in shadows:
                model, _, word = row["line_item_usage_type"].partition("-")[2].partition("-")
                billed[name[model, row["product_region_code"]], meter[word]] += (
                    Decimal(repr(row["line_item_usage_amount"])) * 1000
                )
        assert billed == {key: Decimal(tokens) for key, tokens in logged.items()}

    def test_it_holds_what_real_bills_hold(self, demo: DemoCompany, truth: dict[str, Any]) -> None:
        rows = _rows(_manifest(demo.restated), demo.restated)
        kinds = Counter(r["line_item_line_item_type"] for r in rows)
        assert kinds["Credit"] == kinds["Refund"] == kinds["Fee"] == 1
        assert kinds["Tax"] == 2
        products = {r["line_item_product_code"] for r in rows}
        assert {
            "AmazonBedrock",
            "AmazonEC2",
            "AmazonES",
            "AmazonBedrockAgentCore",
            "AWSSupportBusiness",
            "AmazonS3",
            "AWSLambda",
        } == products
        assert {u["owner_team"] for u in truth["uncaptured"]} == {"Growth", "Data", None}
        assert all(r["bill_invoice_id"] == "" for r in rows)
        last = max(
            r["line_item_usage_start_date"]
            for r in rows
            if r["line_item_product_code"] == "AmazonBedrock" and r["pricing_unit"] == "1K tokens"
        )
        assert (last.month, last.day) == (10, 30)

    def test_the_restatement_adds_a_morning_and_two_days(self, demo: DemoCompany) -> None:
        def by_day(bucket: Path) -> dict[int, Decimal]:
            sums: dict[int, Decimal] = defaultdict(Decimal)
            for r in _rows(_manifest(bucket), bucket):
                if r["pricing_unit"] == "1K tokens":
                    sums[r["line_item_usage_start_date"].day] += Decimal(repr(r["line_item_unblended_cost"]))
            return sums

        first, restated = by_day(demo.bucket), by_day(demo.restated)
        assert {day for day, cost in restated.items() if first.get(day) != cost} == {14, 29, 30}
        assert first[14] < restated[14]

    def test_openai_bills_in_focus(self, demo: DemoCompany, truth: dict[str, Any]) -> None:
        with demo.openai.open() as file:
            rows = list(csv.DictReader(file))
        assert sum((Decimal(r["BilledCost"]) for r in rows), SUM) == Decimal(truth["bills"]["OpenAI"]["billed_cost"])
        assert {r["ConsumedUnit"] for r in rows} == {"Tokens"}
        assert all(Decimal(r["ConsumedQuantity"]) * Decimal(r["ListUnitPrice"]) == Decimal(r["ListCost"]) for r in rows)
        assert {r["ChargePeriodStart"][11:] for r in rows} == {"00:00:00Z"}


class TestTraffic:
    def test_offices_sleep_at_night(self, spans: list[dict[str, Any]]) -> None:
        hours = Counter(s["start"] // 3_600_000_000_000 % 24 for s in spans if s["service"] == "care-web")
        assert sum(hours[h] for h in range(2, 8)) * 5 < sum(hours[h] for h in range(11, 17))

    def test_one_day_an_agent_runs_in_a_loop(self, spans: list[dict[str, Any]]) -> None:
        longest = Counter(s["trace"] for s in spans if s["service"] == "coder-runner" and s["name"].startswith("chat "))
        (trace, calls), *_ = longest.most_common(1)
        day = next(s["start"] for s in spans if s["trace"] == trace) // 86_400_000_000_000
        assert calls >= 60
        assert day == 20_748  # 22 October 2026

    def test_prompts_of_a_loop_are_mostly_read_from_the_cache(self, spans: list[dict[str, Any]]) -> None:
        calls = [
            s["values"] for s in spans if s["service"] == "coder-runner" and "gen_ai.usage.cache_read.input_tokens" in s["values"]
        ]
        read, whole = (sum(v[f"gen_ai.usage.{k}"] for v in calls) for k in ("cache_read.input_tokens", "input_tokens"))
        assert read > 0.7 * whole


def test_budgets_are_round_and_of_teams_that_spend(demo: DemoCompany, truth: dict[str, Any]) -> None:
    budgets = json.loads(demo.budgets.read_text())
    assert {b["scope_name"] for b in budgets} <= {row["initiator_team"] for row in truth["initiators"]}
    assert all(len(Decimal(b["amount"]).normalize().as_tuple().digits) <= 2 for b in budgets)
