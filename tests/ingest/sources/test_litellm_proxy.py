"""A real LiteLLM proxy, and a real OpenTelemetry SDK beside it: what they send is understood, and lands on the right agent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from ingest.sources import otlp
from ingest.sources.litellm import source
from ledger.settings import IngestSettings
from ledger.tables import SPANS
from tests.proxy.process import HERE, Proxy, why_absent
from tests.proxy.upstream import Upstream
from tests.support.served import Served

pytestmark = [pytest.mark.proxy, pytest.mark.slow, pytest.mark.skipif(why_absent() is not None, reason=why_absent() or "")]

FreePort = Callable[[], int]
StartProxy = Callable[[str, str], Proxy]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOKEN = "token-of-the-receiver"
CACHED: dict[str, Any] = {"messages": [{"role": "user", "content": "asked twice"}], "cache": {"use-cache": True}}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    provider = Upstream()
    yield provider
    provider.close()


@pytest.fixture
def proxy(upstream: Upstream, free_port: FreePort, tmp_path: Path) -> Iterator[StartProxy]:
    """Starts a real proxy that sends its payloads and spans to a receiver's address, with its token."""
    started: list[Proxy] = []

    def start(receiver: str, token: str) -> Proxy:
        started.append(Proxy(port=free_port(), upstream=upstream.url, receiver=receiver, token=token, folder=tmp_path))
        return started[-1].until_ready()

    yield start
    for process in started:
        process.stop()


class Collector:
    """A receiver that keeps every request body as it came."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, str], bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def calls(self) -> pl.DataFrame:
        """The payloads received so far, as spans."""
        settings = IngestSettings(trusted_sources=["litellm"])
        frames = [SPANS.empty()]
        for path, headers, body in list(self.bodies):
            if path == "/v1/litellm":
                assert headers["authorization"] == f"Bearer {TOKEN}"
                reading = source.read_body(body, raw_id="r", uri=path, settings=settings)
                assert reading.problems == []
                frames.append(reading.frame)
        return pl.concat(frames)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    receiver = Collector()
    yield receiver
    receiver.close()


def until(done: Callable[[], Any], seconds: float, otherwise: Callable[[], object]) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.2)
    return result


def test_every_call_of_a_real_proxy_is_told_once_and_priced_as_by_hand(proxy: StartProxy, collector: Collector) -> None:
    gateway = proxy(collector.url, TOKEN)
    tagged = {"x-litellm-tags": "agent:planner,team:ads", "traceparent": f"00-{TRACE}-{SPAN}-01", "x-litellm-end-user-id": "u-1"}
    made: set[str] = set()

    def ask_all(attempt: int) -> dict[str, str]:
        twice = CACHED | {"messages": [{"role": "user", "content": f"asked twice {attempt}"}]}
        answers = {
            "tagged": gateway.chat(headers=tagged),
            "session": gateway.chat("fast", headers={"x-litellm-session-id": "sess-1", "traceparent": f"00-{TRACE}-{SPAN}-01"}),
            "streamed": gateway.chat("fast", stream=True),
            "anthropic": gateway.chat("claude"),
            "native": gateway.ask(
                "/v1/messages", {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
            ),
            "embedding": gateway.ask("/v1/embeddings", {"model": "embed", "input": "words to keep private"}),
            "refused": gateway.chat(messages=[{"role": "user", "content": "REFUSE"}]),
            "unlisted": gateway.chat("unlisted"),
            "fallback": gateway.chat("flaky"),
            "first": gateway.chat(**twice),
            "again": gateway.chat(**twice),
        }
        assert {name for name, answer in answers.items() if answer.status_code != 200} == {"refused"}
        call_ids = {name: answer.headers["x-litellm-call-id"] for name, answer in answers.items()}
        made.update(call_ids.values())
        return call_ids

    def untold() -> set[str]:
        seen = collector.calls()
        answered = set(seen.filter(pl.col("status") == "ok")["gateway_call_id"])
        return {
            name for name, call_id in ids.items() if call_id not in (seen["gateway_call_id"] if name == "refused" else answered)
        }

    # LiteLLM tells of calls as well as it can: on a busy machine its logger drops some. Then all are made once more.
    ids = ask_all(1)
    try:
        until(lambda: not untold(), 30, untold)
    except AssertionError:
        ids = ask_all(2)
        until(lambda: not untold(), 60, lambda: f"{untold()}: {gateway.log.read_text()[-2000:]}")

    assert set(collector.calls()["gateway_call_id"]) <= made
    frame = collector.calls().filter(pl.col("gateway_call_id").is_in(list(ids.values())))
    called = {row["gateway_call_id"]: row for row in frame.sort("rank").iter_rows(named=True)}
    found = {name: called[call_id] for name, call_id in ids.items()}
    answered = frame.filter(pl.col("status") == "ok")["gateway_call_id"]
    assert answered.is_unique().all(), "one answer a call"
    # LiteLLM also tells of the attempt before a fallback, though under load its logger may drop it: never as another call.
    attempts = frame.filter((pl.col("status") == "error") & (pl.col("gateway_call_id") != ids["refused"]))
    assert attempts.height <= 1
    assert set(attempts["gateway_call_id"]) <= {ids["fallback"]}
    # 176 x 0.0000025 + 1024 x 0.00000125 + 80 x 0.00001 = 0.00252, and Claude's caches: 0.0102.
    plain, cached = Decimal("0.00252"), Decimal("0.0102")
    assert {name: row["reported_cost"] for name, row in found.items()} == {
        "tagged": plain,
        "session": plain,
        "streamed": plain,
        "anthropic": cached,
        "native": cached,
        "embedding": Decimal("0.00000014"),
        "refused": None,
        "unlisted": None,
        "fallback": plain,
        "first": plain,
        "again": Decimal(0),
    }
    usage = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "output_tokens",
        "reasoning_tokens",
    )
    assert [found["streamed"][c] for c in usage] == [1200, 1024, None, None, 80, 32]
    assert [found["native"][c] for c in usage] == [3550, 1500, 1200, 800, 20, 0]
    assert [found["refused"][c] for c in usage] == [None] * 6
    assert (found["refused"]["status"], found["again"]["cache_hit"]) == ("error", True)
    assert found["again"]["provider_request_id"] is None
    assert found["first"]["provider_request_id"].startswith("chatcmpl-up")
    seen = found["tagged"]
    assert (seen["claimed_agent"], seen["claimed_team"], seen["end_user"]) == ("planner", "ads", "u-1")
    assert (seen["trace_id"], seen["parent_span_id"]) == (TRACE, SPAN)
    assert (found["session"]["trace_id"], found["session"]["conversation_id"]) == ("sess-1", "sess-1")
    assert (found["session"]["request_model"], found["session"]["response_model"]) == ("fast", "gpt-4o")
    told = frame.filter(pl.col("gateway_call_id") == ids["fallback"]).sort("status")
    assert told["status"].to_list() == ["error", "ok"][1 - attempts.height :]
    assert told["span_key"].is_unique().all()
    for private in ("keep private", "REFUSE", "asked twice"):
        assert private not in frame.write_json()


@pytest.mark.slow
def test_the_spans_of_a_real_proxy_carry_the_ids_of_its_payloads(proxy: StartProxy, collector: Collector) -> None:
    gateway = proxy(collector.url, TOKEN)
    ids = {gateway.chat().headers["x-litellm-call-id"], gateway.chat("claude", stream=True).headers["x-litellm-call-id"]}

    def spans() -> pl.DataFrame:
        from ingest.otel.decode import decode_request

        frames = [SPANS.empty()]
        for path, headers, body in list(collector.bodies):
            if path == "/v1/traces":
                export = decode_request(body, headers["content-type"])
                frames.append(otlp.read_export(export, raw_id="r", uri=path, settings=IngestSettings()).frame)
        return pl.concat(frames).filter(pl.col("gateway_call_id").is_in(list(ids)))

    until(
        lambda: set(collector.calls()["gateway_call_id"]) >= ids and spans().height >= 2,
        30,
        lambda: gateway.log.read_text()[-2000:],
    )
    both = ["gateway_call_id", "provider_request_id", "input_tokens", "output_tokens", "trace_key"]
    told = collector.calls().select(both).sort(both)
    assert spans().filter(usage_scope="leaf").select(both).sort(both).equals(told)


def costs(served: Served, by: str, view: str = "initiator") -> list[dict[str, str]]:
    answer = httpx.get(f"{served.url}/v1/costs", params={"by": by, "view": view}, timeout=30)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, str]] = answer.json()["rows"]
    return rows


@pytest.mark.slow
def test_gateway_and_sdk_send_to_a_served_ledger_and_calls_appear_under_their_agents(
    proxy: StartProxy, home: Path, free_port: FreePort, tmp_path: Path
) -> None:
    from opentelemetry import propagate
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    serving = {"ROOTCOST_INGEST__TRUSTED_SOURCES": '["litellm", "otlp"]', "ROOTCOST_SERVE__ATTRIBUTE_SECONDS": "1"}
    served = Served(home, port=free_port(), environment=serving)
    try:
        served.until_ready()
        gateway = proxy(served.url, served.token())
        provider = TracerProvider(resource=Resource({"service.name": "assistant"}))
        exporter = OTLPSpanExporter(f"{served.url}/v1/traces", headers={"Authorization": f"Bearer {served.token()}"})
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
        tracer = provider.get_tracer("assistant")

        def agent(name: str) -> dict[str, str]:
            return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}

        def ask(model: str) -> None:
            carried: dict[str, str] = {}
            propagate.inject(carried)
            assert gateway.chat(model, headers=carried).status_code == 200

        with tracer.start_as_current_span("invoke_agent support-bot", attributes=agent("support-bot")):
            ask("gpt-4o")
            with tracer.start_as_current_span("invoke_agent researcher", attributes=agent("researcher")):
                ask("claude")
        tagged = {"x-litellm-tags": "agent:planner"}
        assert gateway.chat(headers=tagged, stream=True).status_code == 200
        assert gateway.chat("flaky", headers=tagged).status_code == 200
        began = time.monotonic()
        provider.shutdown()

        # support-bot: 0.00252 by itself, 0.0102 by its researcher. planner: 0.00252 streamed, 0.00252 answered by the fallback.
        expected = {"support-bot": "0.01272", "planner": "0.00504"}

        def by_agent() -> dict[str, str]:
            return {
                row["initiator_agent"]: row["cost"]
                for row in costs(served, "initiator_agent,basis")
                if row["basis"] == "estimated"
            }

        def what_is_there_instead() -> str:
            return json.dumps(costs(served, "initiator_agent,model,basis,reason"), indent=1) + served.said()[-1500:]

        until(lambda: by_agent() == expected, 40, what_is_there_instead)
        assert time.monotonic() - began < 30
        executed = {row["executor_agent"]: row["cost"] for row in costs(served, "executor_agent", "executor")}
        assert executed == {"support-bot": "0.00252", "researcher": "0.0102", "planner": "0.00504"}
        assert {row["cost_class"] for row in costs(served, "cost_class")} == {"metered"}
    finally:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A bucket `gateway` in an S3 on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="gateway")
    yield client
    server.stop()


class Relay:
    """Stands between a gateway and us: passes each request on, one at a time, and keeps which calls we answered with a 2xx.

    While we are away it breaks the connection, as nobody would answer there.
    """

    def __init__(self, target: str) -> None:
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.passing = threading.Lock()
        """Held while a request is on its way: who holds it knows that none is."""
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {
                    k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type", "content-encoding")
                }
                calls = {item["litellm_call_id"] for item in json.loads(body)} if self.path == "/v1/litellm" else set()
                with relay.passing:
                    try:
                        answer = httpx.post(f"{target}{self.path}", content=body, headers=headers, timeout=60)
                    except httpx.TransportError:
                        relay.refused.update(calls)
                        self.close_connection = True
                        return
                    if answer.is_success:
                        relay.accepted.update(calls)
                    else:
                        relay.refused.update(calls)
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.slow
def test_what_an_outage_of_ours_lost_is_pulled_and_every_call_is_there_once(
    upstream: Upstream, bucket: Any, home: Path, free_port: FreePort, tmp_path: Path
) -> None:
    """What we answered with a 2xx is known from the callback, and nothing else; the rest it lost. The bucket has every call.

    How many calls LiteLLM sends, and when, is LiteLLM's own: it clears its queue after a flush, and a call that ended meanwhile with it.
    So the calls that we accepted are counted on the way.
    """
    port = free_port()
    asked = dict[str, tuple[str, str]]()
    """When each call was asked, before, during or after the outage, and which model; in the order they began."""
    serving = {"ROOTCOST_SERVE__ATTRIBUTE_SECONDS": "1", "ROOTCOST_SERVE__DRAIN_SECONDS": "0.5"}
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": bucket.meta.endpoint_url}
    served = Served(home, port=port, environment=serving).until_ready()
    relay = Relay(served.url)
    gateway: Proxy | None = None

    def calls(when: str) -> set[str]:
        return {call for call, (asked_when, _) in asked.items() if asked_when == when}

    def ask(when: str, seen: set[str]) -> None:
        """Six calls, one after the other; six more where LiteLLM lost all of them before one was among those seen."""
        assert gateway is not None
        for _ in range(5):
            for model, stream in [(model, stream) for model in ("gpt-4o", "claude") for stream in (False, True, False)]:
                answer = gateway.chat(model, stream=stream)
                assert answer.status_code == 200
                asked[answer.headers["x-litellm-call-id"]] = (when, model)
            with contextlib.suppress(AssertionError):
                until(lambda: seen & calls(when), 40, lambda: None)
                break
        assert seen & calls(when), gateway.log.read_text()[-2000:]
        until(lambda: stored() == len(asked), 150, stored)

    def standing() -> dict[str, dict[str, Any]]:
        answer = httpx.get(f"{served.url}/v1/gaps", timeout=30)
        assert answer.status_code == 200, answer.text
        return {row["channel"]: row for row in answer.json()["channels"]}

    def stored() -> int:
        return len(bucket.list_objects_v2(Bucket="gateway").get("Contents", ()))

    def pull() -> str:
        command = [sys.executable, "-m", "rootcost.cli", "--home", str(home), "ingest", "litellm", "s3://gateway/logs/"]
        done = subprocess.run(command, env={**os.environ, **aws}, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def there_instead() -> str:
        assert gateway is not None
        known = {"accepted": sorted(relay.accepted), "refused": sorted(relay.refused), "asked": asked}
        return json.dumps([standing(), known], indent=1) + gateway.log.read_text()[-2000:] + served.said()[-1500:]

    def spent() -> Decimal:
        """What all calls cost. Spans that OpenTelemetry lost with the outage are a reason of their own, so there may be several rows."""
        return sum((Decimal(row["cost"]) for row in costs(served, "basis")), Decimal(0))

    def expected() -> dict[str, Any]:
        """What the callback must be said to know and to have lost, by what was accepted."""
        places = [place for place, call in enumerate(asked) if call in relay.accepted]
        missed = lost()
        tokens, cost = {"gpt-4o": 1280, "claude": 3570}, {"gpt-4o": Decimal("0.00252"), "claude": Decimal("0.0102")}
        return {
            "calls": len(asked),
            "known": len(places),
            "lost": len(missed),
            "before": places[0],
            "after": len(asked) - 1 - places[-1],
            "lost_tokens": sum(tokens[asked[call][1]] for call in missed),
            "lost_reported_cost": sum((cost[asked[call][1]] for call in missed), Decimal(0)),
        }

    def lost() -> set[str]:
        """The calls that were not accepted, between the first and the last that were."""
        in_order = list(asked)
        places = [place for place, call in enumerate(in_order) if call in relay.accepted]
        return set(in_order[places[0] : places[-1]]) - relay.accepted

    def said() -> dict[str, Any]:
        """The same, as the report says it."""
        answer = httpx.get(f"{served.url}/v1/gaps", timeout=30).json()
        row = next(row for row in answer["channels"] if row["channel"] == "litellm-callback")
        counts = {name: row[name] for name in ("calls", "known", "lost", "before", "after", "lost_tokens")}
        return counts | {"lost_reported_cost": Decimal(row["lost_reported_cost"])}

    def agrees() -> bool:
        accepted = set(relay.accepted)
        report = said()
        return accepted == relay.accepted and report == expected()

    try:
        gateway = Proxy(
            port=free_port(), upstream=upstream.url, receiver=relay.url, token=served.token(), folder=tmp_path,
            config=HERE / "config_three_ways.yaml", more={"S3_ENDPOINT": bucket.meta.endpoint_url},
        ).until_ready()  # fmt: skip
        ask("before", relay.accepted)
        with relay.passing:
            served.process.kill()
            served.process.wait(timeout=10)
        ask("during", relay.refused)
        served = Served(home, port=port, environment=serving).until_ready()
        ask("after", relay.accepted)

        pull()
        until(lambda: standing().get("litellm", {}).get("known") == len(asked), 150, there_instead)
        until(agrees, 150, there_instead)
        assert standing()["litellm"]["lost"] == 0
        assert relay.refused & calls("during") <= lost()
        rows = httpx.get(f"{served.url}/v1/gaps", timeout=30).json()["rows"]
        examples = {call for row in rows if row["channel"] == "litellm-callback" for call in row["examples"]}
        assert examples
        assert examples <= lost()
        # Every call once, nothing lost, whichever channels told of it: half of them gpt-4o at 0.00252, half Claude at 0.0102.
        until(lambda: spent() == len(asked) * Decimal("0.00636"), 150, there_instead)
        assert "0 files read" in pull(), "what was read is not fetched again"
        assert spent() == len(asked) * Decimal("0.00636")
    finally:
        if gateway is not None:
            gateway.stop()
        relay.close()
        if served.process.poll() is None:
            served.stop()
