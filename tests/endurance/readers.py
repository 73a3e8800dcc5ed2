"""`make readers`: many readers of the API while months are attributed and published again and again.

A company's month is served on loopback. Readers ask for cost tables (JSON, CSV, Parquet), the overview, control totals, chains and
derivations, as fast as they are answered. Meanwhile a bill is restated and the month attributed, several times. A failure is an answer
that is not 200, not whole or not readable; a total that is of no publication, or of another one than the answer names; and an answer whose
parts do not sum to its whole.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from tests.support.amounts import sum_of
from tests.support.cli_books import bill
from tests.support.served import serving

CURRENCY = "USD"


@dataclass
class Watch:
    """What the readers saw."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    totals: Counter[Decimal] = field(default_factory=Counter)
    totals_by_runs: dict[str, set[Decimal]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    repeated: int = 0
    is_over: bool = False

    def take_table(self, answer: httpx.Response) -> None:
        """A cost table: its rows sum to its total, and its total is that of its runs."""
        table = answer.json()
        total = Decimal(table["totals"][CURRENCY])
        rows = sum((Decimal(row["cost"]) for row in table["rows"] if row["currency"] == CURRENCY and row["cost"]), Decimal(0))
        self._equal(rows, total, "rows of a cost table")
        self.totals_by_runs.setdefault(str(sorted(table["runs"].items())), set()).add(total)
        self.totals[total] += 1

    def take_csv(self, answer: httpx.Response) -> None:
        """The same rows as CSV."""
        frame = pl.read_csv(io.BytesIO(answer.content), infer_schema=False).filter(pl.col("currency") == CURRENCY)
        self.totals[sum((Decimal(cost) for cost in frame["cost"] if cost), Decimal(0))] += 1

    def take_parquet(self, answer: httpx.Response) -> None:
        """The same rows as Parquet."""
        frame = pl.read_parquet(io.BytesIO(answer.content)).filter(pl.col("currency") == CURRENCY)
        self.totals[sum_of(frame["cost"])] += 1

    def take_overview(self, answer: httpx.Response) -> None:
        """The overview of the month: classes sum to the total."""
        overview = answer.json()
        totals = [Decimal(row["cost"]) for row in overview["totals"] if row["currency"] == CURRENCY]
        if len(totals) != 1:
            self.failures.append(f"an overview of {overview['month']} of {overview['months']} has totals {overview['totals']}")
            return
        total = totals[0]
        classes = sum((Decimal(row["cost"]) for row in overview["classes"] if row["currency"] == CURRENCY), Decimal(0))
        self._equal(classes, total, "classes of an overview")

    def take_balance(self, answer: httpx.Response) -> None:
        """Control totals balance."""
        for row in answer.json()["rows"]:
            if Decimal(row["difference"]):
                self.failures.append(f"control totals of {row['invoice_month']} differ by {row['difference']}")

    def take_steps(self, answer: httpx.Response) -> None:
        """A derivation is read to its end."""
        if not answer.json()["steps"]:
            self.failures.append("a derivation without steps")

    def take_page(self, answer: httpx.Response) -> None:
        """A page of a listing has the rows that it counts."""
        page = answer.json()
        if len(page["rows"]) > page["total"]:
            self.failures.append(f"a page of {len(page['rows'])} rows counts {page['total']}")

    def _equal(self, parts: Decimal, whole: Decimal, parts_name: str) -> None:
        if parts != whole:
            self.failures.append(f"{parts_name} sum to {parts}, not to {whole}")

    def verdict(self, expected_totals: set[Decimal]) -> list[str]:
        """All failures, with those that only the whole shows."""
        mixtures = [f"{runs} has totals {sorted(totals)}" for runs, totals in self.totals_by_runs.items() if len(totals) > 1]
        unknown = [
            f"{total} is the total of no publication ({n} answers)"
            for total, n in self.totals.items()
            if total not in expected_totals
        ]
        missing = [f"nobody saw the publication of {total}" for total in expected_totals - set(self.totals)]
        return [*self.failures, *mixtures, *unknown, *missing]


_REQUESTS: tuple[tuple[str, Callable[[Watch, httpx.Response], None]], ...] = (
    ("/v1/costs?by=team", Watch.take_table),
    ("/v1/costs?by=agent,model&view=executor", Watch.take_table),
    ("/v1/costs?by=team&format=csv", Watch.take_csv),
    ("/v1/costs?by=agent&format=parquet", Watch.take_parquet),
    ("/v1/overview", Watch.take_overview),
    ("/v1/balance", Watch.take_balance),
    ("/v1/explain/cell?by=team&most=10", Watch.take_steps),
    ("/v1/chains?limit=20", Watch.take_page),
    ("/v1/problems?limit=20", Watch.take_page),
    ("/v1/runs?limit=20", Watch.take_page),
)


async def _answer(http: httpx.AsyncClient, address: str, watch: Watch) -> httpx.Response:
    """The whole answer. An idle connection may be closed just when a request is sent: it is sent again, as every client of HTTP does."""
    request = http.build_request("GET", address)
    try:
        answer = await http.send(request, stream=True)
    except (httpx.ReadError, httpx.RemoteProtocolError):
        watch.repeated += 1
        answer = await http.send(request, stream=True)
    await answer.aread()
    return answer


async def _read(http: httpx.AsyncClient, number: int, watch: Watch) -> None:
    while not watch.is_over:
        address, take = _REQUESTS[number % len(_REQUESTS)]
        number += 7
        began = time.monotonic()
        try:
            answer = await _answer(http, address, watch)
            if answer.status_code == httpx.codes.OK:
                take(watch, answer)
            else:
                watch.failures.append(f"{address}: {answer.status_code} {answer.text[:300]}")
        except Exception as error:  # noqa: BLE001 - whatever keeps an answer from being read is a failure
            watch.failures.append(f"{address}: {type(error).__name__}: {str(error)[:300]}")
        watch.seconds.append(time.monotonic() - began)
        watch.answers[address] += 1


async def _watch(url: str, readers: int, publish: Callable[[], Any]) -> Watch:
    """Readers from before the first publication until after the last."""
    watch = Watch()
    limits = httpx.Limits(max_connections=readers, max_keepalive_connections=readers)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as http:
        tasks = [asyncio.create_task(_read(http, number, watch)) for number in range(readers)]
        try:
            await asyncio.to_thread(publish)
            await asyncio.sleep(1)
        finally:
            watch.is_over = True
            await asyncio.gather(*tasks)
    return watch


class Restatements:
    """Bills of one line that are restated, and the totals of the month that each gives."""

    def __init__(self, home: Path, count: int) -> None:
        self._home, self._count = home, count
        self.totals = set[Decimal]()

    def publish(self, url: str) -> None:
        """Restates the bill, attributes, and waits until the new total is seen."""
        for number in range(self._count + 1):
            if number:
                self._restate(f"{number}.25")
            rootcost(self._home, "attribute")
            with httpx.Client(base_url=url, timeout=600, trust_env=False) as http:
                table = http.get("/v1/costs?by=team").json()
            self.totals.add(Decimal(table["totals"][CURRENCY]))

    def _restate(self, cost: str) -> None:
        path = self._home.parent / "restated.csv"
        costs = dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost)
        path.write_text(bill(**costs, BillingAccountId="restated"))
        rootcost(self._home, "ingest", "focus", str(path), "--scope", "restated")


def rootcost(home: Path, *arguments: str) -> str:
    """What a command on a home prints; its failure is one of this run."""
    command = [sys.executable, "-m", "rootcost.cli", "--home", str(home), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"rootcost {' '.join(arguments)} ended with {process.returncode}: {process.stderr[-2000:]}")
    return process.stdout


def run(home: Path, *, readers: int, rounds: int) -> list[str]:
    """Serves a home to many readers while its month is published `rounds` times; returns what went wrong, and prints how it was."""
    restatements = Restatements(home, rounds)
    with serving(home) as service:
        began = time.monotonic()
        watch = asyncio.run(_watch(service.url, readers, lambda: restatements.publish(service.url)))
        seconds = time.monotonic() - began
    failures = watch.verdict(restatements.totals)
    if len(restatements.totals) != rounds + 1:
        failures.append(f"{len(restatements.totals)} totals of {rounds + 1} publications")
    if "Traceback" in (home / "rootcost.log").read_text():
        failures.append("there are tracebacks in the log")
    slowest = sorted(watch.seconds)
    print(
        f"{readers} readers, {rounds + 1} publications, {watch.answers.total():,} answers in {seconds:.0f} s, half of them within "
        f"{slowest[len(slowest) // 2]:.1f} s, the slowest in {slowest[-1]:.1f} s; totals seen: "
        f"{', '.join(f'{total:.2f} ({n})' for total, n in sorted(watch.totals.items()))}; requests sent twice: {watch.repeated}; failures: {len(failures)}"
    )
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="how often the bill is restated")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rootcost-readers-") as folder:
        home = Path(folder) / "home"
        rootcost(home, "demo", "--scale", "0.05")
        failures = run(home, readers=options.readers, rounds=options.rounds)
    print(*failures[:50], sep="\n", end="\n" if failures else "")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
