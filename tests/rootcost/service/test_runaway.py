"""From the span of a runaway to the page: a real service, a real OpenTelemetry SDK, a real webhook, and a restart in between."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.alert_receiver import Receiver, receiving
from tests.support.served import Served, serving

LIMIT_SECONDS = 60
CALLS = 26
"""One more than `runaway.same_tool_calls` allows."""


def loop(service: Served, calls: int) -> tuple[str, float]:
    """An agent that calls one tool with the same arguments again and again and never ends: its trace id, and when the last call ended."""
    exporter = OTLPSpanExporter(f"{service.url}/v1/traces", headers={"Authorization": f"Bearer {service.token()}"})
    provider = TracerProvider(resource=Resource({"service.name": "care"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("opentelemetry.instrumentation.openai_v2")
    with tracer.start_as_current_span("invoke_agent bot", attributes={"gen_ai.operation.name": "invoke_agent"}) as root:
        for _ in range(calls):
            attributes = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
                "gen_ai.agent.name": "bot",
                "gen_ai.tool.call.arguments": json.dumps({"query": "SECRET"}),
            }
            with tracer.start_as_current_span("execute_tool search", attributes=attributes):
                pass
        end_seconds = time.monotonic()
        trace_id = f"{root.get_span_context().trace_id:032x}"
        provider.shutdown()  # the root span is never sent, as of a chain that goes on
    return trace_id, end_seconds


def pages(receiver: Receiver, least: int, seconds: float) -> float:
    """When so many pages had come; fails where they do not come in time."""
    deadline = time.monotonic() + seconds
    while len(receiver.deliveries) < least:
        assert time.monotonic() < deadline, f"{len(receiver.deliveries)} of {least} pages after {seconds} s"
        time.sleep(0.05)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.clock
def test_a_runaway_is_paged_within_a_minute_and_once_across_a_restart(home: Path) -> None:
    with receiving() as receiver:
        settings = {"ROOTCOST_ALERTS__WEBHOOK_URL": receiver.url}
        with serving(home, **settings) as service:
            trace_id, end_seconds = loop(service, CALLS)
            seconds = pages(receiver, 1, LIMIT_SECONDS) - end_seconds
        print(f"from the last span to the page: {seconds:.1f} s")
        (page,) = (delivery.document for delivery in receiver.deliveries)
        assert (page["kind"], page["subject"], page["chain_id"]) == ("runaway", "bot", trace_id)
        assert (page["figure"], page["limit_text"]) == (f"{CALLS} calls", f"{CALLS - 1} calls")
        assert trace_id in page["links"]["Chain"] and page["next_step"]
        assert "SECRET" not in json.dumps(page)
        with serving(
            home, **settings
        ) as service:  # another process sees the same spans in the window, and those of a second chain
            loop(service, CALLS)
            pages(receiver, 2, LIMIT_SECONDS)
        assert [delivery.document["chain_id"] for delivery in receiver.deliveries].count(trace_id) == 1
