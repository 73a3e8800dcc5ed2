"""`make soak`: telemetry, two sources, attribution and pages at once, for minutes; then the same data at rest, and both compared.

Spans of agents arrive over OTLP at a rate, two sources (a bill that is restated, a gateway's log that grows) are read by the clock, months
are attributed, and readers ask for pages. Told are the latencies, memory and the size of the ledger over time. Failures are: a delivery
refused for good, an answer that is not 200, spans that are not in the ledger once each, memory that grows in the second half, and figures
other than those of a ledger that was given the same files in one go.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ledger.store import Store
from ledger.tables import SPANS
from tests.endurance.readers import rootcost
from tests.support.cli_books import AGENTS, bill
from tests.support.served import Served, serving

BATCH_SPANS = 500
_SPANS_OF_A_TRACE = 5
_AGENTS = ("support-bot", "researcher", "coder")
_PAGES = ("/v1/overview", "/v1/costs?by=team", "/v1/problems?limit=20", "/v1/sources", "/v1/freshness", "/v1/chains?limit=20")
_MAX_GROWTH = 1.3
"""Of memory: the last quarter in multiples of the second."""


def export(first: int, at: datetime) -> bytes:
    """A delivery: traces of an agent with four calls each."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    nanoseconds = int(at.timestamp()) * 10**9
    for number in range(first, first + BATCH_SPANS):
        trace, place = divmod(number, _SPANS_OF_A_TRACE)
        span = scope.spans.add(trace_id=(trace + 1).to_bytes(16), span_id=(number + 1).to_bytes(8))
        span.start_time_unix_nano, span.end_time_unix_nano = nanoseconds + number, nanoseconds + number + 400_000_000
        if place:
            span.name, span.parent_span_id = "chat gpt-4o", (number - place + 1).to_bytes(8)
            _add(span, "gen_ai.operation.name", "chat")
            _add(span, "gen_ai.provider.name", "openai")
            _add(span, "gen_ai.request.model", "gpt-4o")
            _add(span, "gen_ai.usage.input_tokens", 100 + number % 4000)
            _add(span, "gen_ai.usage.output_tokens", number % 900)
        else:
            span.name = f"invoke_agent {_AGENTS[trace % 3]}"
            _add(span, "gen_ai.operation.name", "invoke_agent")
            _add(span, "gen_ai.agent.name", _AGENTS[trace % 3])
    content: bytes = request.SerializeToString()
    return content


def _add(span: Any, key: str, attribute: str | int) -> None:
    value = span.attributes.add(key=key).value
    if isinstance(attribute, int):
        value.int_value = attribute
    else:
        value.string_value = attribute


@dataclass
class Soak:
    """What is sent and measured while the service runs."""

    folder: Path
    service: Served
    rate: float
    spans: int = 0
    repeated: int = 0
    delivery_seconds: list[float] = field(default_factory=list)
    page_seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, minutes: float) -> None:
        """Everything at once, until the time is over."""
        steps = (self.send, self.write_files, self.ask, self.ask, self.measure)
        threads = [threading.Thread(target=self._guarded, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        self.stop.wait(minutes * 60)
        self.stop.set()
        for thread in threads:
            thread.join()

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - it is a failure of the run
            self.failures.append(f"{step.__name__}: {type(error).__name__}: {error}")

    def send(self) -> None:
        """Deliveries at the rate; one that is told to wait is sent again."""
        deliveries = self.folder / "deliveries"
        deliveries.mkdir()
        headers = {"Authorization": f"Bearer {self.service.token()}", "Content-Type": "application/x-protobuf"}
        next_seconds = time.monotonic()
        with self._client() as http:
            while not self.stop.is_set():
                body = export(self.spans, datetime.now(UTC))
                (deliveries / f"{self.spans:010}.bin").write_bytes(body)
                while True:
                    began = time.monotonic()
                    status = http.post("/v1/traces", content=body, headers=headers).status_code
                    if status == httpx.codes.OK:
                        break
                    self.repeated += 1
                    if status not in (429, 503):
                        self.failures.append(f"a delivery was answered {status}")
                    time.sleep(1)
                self.delivery_seconds.append(time.monotonic() - began)
                self.spans += BATCH_SPANS
                next_seconds += BATCH_SPANS / self.rate
                self.stop.wait(max(0.0, next_seconds - time.monotonic()))

    def write_files(self) -> None:
        """The bill is restated every minute, and the gateway's log gets a new file every 15 seconds."""
        for number in range(100_000):
            write_log(self.folder / "log" / f"{number:05}.jsonl", number)
            if number % 4 == 0:
                write_bill(self.folder / "bill" / "bill.csv", number)
            if self.stop.wait(15):
                return

    def ask(self) -> None:
        """Pages, as a dashboard asks for them."""
        with self._client() as http:
            while not self.stop.wait(1):
                for page in _PAGES:
                    began = time.monotonic()
                    answer = http.get(page)
                    self.page_seconds.append(time.monotonic() - began)
                    if answer.status_code != httpx.codes.OK:
                        self.failures.append(f"{page}: {answer.status_code} {answer.text[:200]}")

    def measure(self) -> None:
        """Memory of the service and of what it started."""
        process = psutil.Process(self.service.process.pid)
        while not self.stop.wait(2):
            processes = [process, *process.children(recursive=True)]
            self.memory_mb.append(sum(p.memory_info().rss for p in processes if p.is_running()) / 1e6)

    def until_booked(self, home: Path) -> None:
        """Waits until the spool is empty."""
        deadline = time.monotonic() + 600
        while any((home / "spool").glob("*.spool")) or self._spool_files():
            if time.monotonic() > deadline:
                self.failures.append("the spool is not empty after ten minutes")
                return
            time.sleep(1)

    def _spool_files(self) -> int:
        with self._client() as http:
            return int(http.get("/v1/freshness").json()["spool_files"])

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, timeout=300, trust_env=False)


def write_log(path: Path, number: int) -> None:
    """Twenty calls that a gateway logged."""
    path.parent.mkdir(exist_ok=True)
    at = datetime.now(UTC).replace(microsecond=0)
    calls = [
        {
            "id": f"call-{number}-{place}",
            "call_type": "acompletion",
            "model": "gpt-4o",
            "custom_llm_provider": "openai",
            "startTime": at.timestamp() + place,
            "endTime": at.timestamp() + place + 1,
            "prompt_tokens": 1000 + place,
            "completion_tokens": 100,
            "total_tokens": 1100 + place,
            "response_cost": 0.0035,
            "status": "success",
            "metadata": {"user_api_key_alias": "coder"},
        }
        for place in range(20)
    ]
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(call) + "\n" for call in calls))
    partial.replace(path)


def write_bill(path: Path, number: int) -> None:
    """A bill of this month, with one line of a cost that grows."""
    path.parent.mkdir(exist_ok=True)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    month = start.replace(day=1, hour=0)
    periods = {
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
        "ChargePeriodStart": month,
        "ChargePeriodEnd": month + timedelta(hours=1),
    }
    costs = dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), f"{number + 1}.25")
    partial = path.with_suffix(".part")
    partial.write_text(bill(**costs, **{name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in periods.items()}))
    partial.replace(path)


def prepare(home: Path, folder: Path) -> None:
    """Owners; the sources of the soak."""
    (folder / "agents.csv").write_text(AGENTS)
    rootcost(home, "agents", "import", str(folder / "agents.csv"))


def figures(home: Path) -> str:
    """Costs by team, agent and model, of a ledger that is attributed."""
    rootcost(home, "attribute")
    return rootcost(home, "costs", "--by", "team,agent,model", "--format", "csv")


def size_mb(home: Path) -> float:
    """What the tables of a ledger take on the disk."""
    return sum(path.stat().st_size for path in (home / "tables").rglob("*") if path.is_file()) / 1e6


def run(folder: Path, *, minutes: float, rate: float) -> list[str]:
    """The soak, then the same at rest; returns what went wrong, and prints what was measured."""
    home, home_at_rest = folder / "home", folder / "rest"
    prepare(home, folder)
    write_log(folder / "log" / "first.jsonl", 10**6)
    write_bill(folder / "bill" / "bill.csv", 0)
    rootcost(home, "sources", "add", "gateway", "litellm", str(folder / "log" / "*.jsonl"), "--cron", "* * * * *")
    rootcost(home, "sources", "add", "bill", "focus", str(folder / "bill" / "*.csv"), "--cron", "* * * * *", "--scope", "bill")
    with serving(home, ROOTCOST_SERVE__ATTRIBUTE_SECONDS="60") as service:
        soak = Soak(folder, service, rate)
        soak.run(minutes)
        soak.until_booked(home)
    sources = (("litellm", "log/*.jsonl", ""), ("focus", "bill/*.csv", "bill"), ("otlp", "deliveries/*.bin", ""))
    for source, files, scope in sources[:2]:
        _ingest(home, source, folder / files, scope)
    prepare(home_at_rest, folder)
    for source, files, scope in sources:
        _ingest(home_at_rest, source, folder / files, scope)
    failures = [*soak.failures, *_compared(home, home_at_rest, soak.spans)]
    memory = soak.memory_mb
    quarter = max(1, len(memory) // 4)
    second, last = _mean(memory[quarter : 2 * quarter]), _mean(memory[-quarter:])
    if last > _MAX_GROWTH * second:
        failures.append(f"memory grew from {second:.0f} to {last:.0f} MB")
    print(
        f"{minutes:g} min, {soak.spans:,} spans ({soak.spans / minutes / 60:,.0f} a second), {soak.repeated} deliveries repeated; "
        f"deliveries p50 {_quantile(soak.delivery_seconds, 0.5):.0f}, p99 {_quantile(soak.delivery_seconds, 0.99):.0f} ms; "
        f"{len(soak.page_seconds)} pages p50 {_quantile(soak.page_seconds, 0.5):.0f}, p99 {_quantile(soak.page_seconds, 0.99):.0f} ms; "
        f"memory {second:.0f} MB in the second quarter, {last:.0f} MB in the last; "
        f"tables {size_mb(home):.1f} MB, at rest {size_mb(home_at_rest):.1f} MB; failures: {len(failures)}"
    )
    return failures


def _ingest(home: Path, source: str, files: Path, scope: str) -> None:
    rootcost(home, "ingest", source, str(files), *(["--scope", scope] if scope else []))


def _compared(home: Path, home_at_rest: Path, spans: int) -> list[str]:
    """Whether every span is there once, and both ledgers come to the same figures."""
    failures = []
    rows = (
        Store(home / "tables")
        .scan(SPANS)
        .filter(channel="otlp")
        .select(pl.len(), keys=pl.struct("trace_key", "span_key").n_unique())
    )
    count, keys = rows.collect().row(0)
    if not count == keys == spans:
        failures.append(f"{spans} spans were acknowledged, {count} are in the ledger, {keys} of them different")
    live_figures, figures_at_rest = figures(home), figures(home_at_rest)
    if sorted(live_figures.splitlines()) != sorted(figures_at_rest.splitlines()):
        failures.append(f"figures differ:\n{live_figures}\nat rest:\n{figures_at_rest}")
    return failures


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _quantile(seconds: Sequence[float], share: float) -> float:
    return 1000 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=5000, help="spans a second")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rootcost-soak-") as folder:
        failures = run(Path(folder), minutes=options.minutes, rate=options.rate)
    print(*failures[:20], sep="\n", end="\n" if failures else "")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
