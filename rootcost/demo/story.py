"""`rootcost demo`: a month is ingested, attributed, restated, attributed again, and printed with its balance.

Nothing here is staged: the files go through the ingestors, the run and the queries that every user's files go through.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ledger.books import Books
from ledger.errors import BalanceError
from ledger.locks import home_write_lock, serve_lock
from rootcost.demo import company, pricebook, telling
from rootcost.demo import home as demo_home
from rootcost.demo.write import DemoCompany, generate

if TYPE_CHECKING:
    from api.models import ChainTree
    from attribution.run import RunReport
    from ledger.db import Alert

CALLS = 30_000
"""Provider calls of the company at scale 1."""

Tell = Callable[[str, int, int], None]


def run_demo(home: Path, *, scale: float = 1.0, seed: int = 7, console: Console | None = None) -> int:
    """Generates the company, runs its month through everything, shows the result. Returns the exit code.

    The ledger stays in `home`, where `rootcost serve` finds it. Raises `UsageError` if `home` holds data that no demo made.
    """
    from rootcost.terminal.console import terminal

    out = console or terminal()
    began = time.monotonic()
    with serve_lock(home, "the demo"), home_write_lock(home):
        folder = demo_home.clear(home)
        out.print(
            Panel.fit(
                Text.assemble(
                    (company.COMPANY, "bold"), ", a company that does not exist. Its files have the formats of real ones."
                )
            )
        )
        with _steps(out) as step:
            demo = _generated(folder, calls=max(200, round(CALLS * scale)), seed=seed, tell=step("making the month's files"))
            settings = demo_home.put_in_force(home, demo.settings)
            with Books(settings) as books:
                story = _DemoRun(books, demo, out)
                story.prepare(step)
                story.ingest(step)
                story.attribute(step)
                story.restate(step)
        with Books(settings) as books:
            code = _Report(books, story).tell()
    _print_next_steps(out, home, settings.serve.port, settings.serve.ui_port, time.monotonic() - began)
    return code


def _generated(folder: Path, *, calls: int, seed: int, tell: Tell) -> DemoCompany:
    return generate(folder, calls=calls, seed=seed, progress=tell)


@contextmanager
def _steps(out: Console) -> Iterator[Callable[[str], Tell]]:
    """Progress, one line a step."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as bar:

        def step(work: str) -> Tell:
            task = bar.add_task(work, total=None)

            def tell(_item: str, position: int, total: int) -> None:
                bar.update(task, completed=position, total=max(total, 1))

            return tell

        yield step


class _DemoRun:
    """Runs ingestion and attribution, and keeps what they report."""

    def __init__(self, books: Books, demo: DemoCompany, out: Console) -> None:
        self.books, self.made, self.out = books, demo, out
        self.read: list[telling.IngestLine] = []
        self.alerts: list[Alert] = []
        self.first: RunReport | None = None
        self.last: RunReport | None = None
        self.seconds: list[float] = []

    def prepare(self, step: Callable[[str], Tell]) -> None:
        """Registry, price book, budgets: what a company sets up once."""
        from api.changes import change_budget
        from api.models import BudgetChange
        from api.queries import of_operator
        from ingest.prices import litellm_map
        from ledger import registry

        tell = step("registry, public prices, budgets")
        registry.import_csv(self.books, self.made.registry, actor="demo")
        tell("prices", 1, 3)
        litellm_map.import_prices(self.books, pricebook.price_list())
        tell("budgets", 2, 3)
        for row in json.loads(self.made.budgets.read_text(encoding="utf-8")):
            change = BudgetChange(
                scope=row["scope"],
                scope_name=row["scope_name"],
                amount=Decimal(row["amount"]),
                currency=row["currency"],
                view="initiator",
            )
            change_budget(of_operator(self.books), row["name"], change)
        tell("done", 3, 3)

    def ingest(self, step: Callable[[str], Tell]) -> None:
        """Telemetry, gateway log and the two bills, in the order they arrive."""
        for label, source, path in (
            ("OpenTelemetry spans (OTLP)", "otlp", self.made.otlp),
            ("LiteLLM gateway log", "litellm", self.made.litellm),
            ("OpenAI bill (FOCUS 1.2)", "focus", self.made.openai),
            ("AWS bill (CUR 2.0), first version", "aws-cur", self.made.aws_export),
        ):
            self._ingest(step, label, source, path)

    def _ingest(self, step: Callable[[str], Tell], label: str, source: str, path: Path) -> None:
        from ingest.run import ingest

        tell, began = step(f"reading: {label}"), time.monotonic()
        report = ingest(self.books, source, [str(path)], progress=lambda uri, number, known: tell(uri, number - 1, known))
        tell("done", 1, 1)
        self.read.append(telling.IngestLine(label, report, time.monotonic() - began))

    def attribute(self, step: Callable[[str], Tell]) -> None:
        """The first run: every call, chain and charge of the month."""
        self.first = self._run(step("attributing: every dollar to the agent that started the work"), "demo", final=False)

    def restate(self, step: Callable[[str], Tell]) -> None:
        """AWS corrects its bill; the month is attributed again without reading a span."""
        self.made.deliver_restatement()
        self._ingest(step, "AWS bill (CUR 2.0), restated", "aws-cur", self.made.aws_export)
        self.last = self._run(step("attributing again: only what the new bill changes"), "AWS restated the bill", final=True)

    def _run(self, tell: Tell, cause: str, *, final: bool) -> RunReport:
        from attribution.monitoring import anomalies, budgets
        from attribution.run import attribute

        began = time.monotonic()
        report = attribute(self.books, cause=cause, progress=lambda stage, done, total: tell(stage, done, total + 1))
        if final:  # an alert keeps its figures, so only the final bill is evaluated
            self.alerts += budgets.evaluate(self.books)
        anomalies.detect(self.books)
        tell("done", 1, 1)
        self.seconds.append(time.monotonic() - began)
        return report


class _Report:
    """Prints the results."""

    def __init__(self, books: Books, story: _DemoRun) -> None:
        self.books, self.story, self.out = books, story, story.out
        self.currency = company.CURRENCY

    def tell(self) -> int:
        """All chapters; returns the exit code."""
        from api import queries
        from api.queries import of_operator

        demo, out = self.story.made, self.out
        sentence = (
            f"{demo.calls:,} model calls of {demo.month}, told by {demo.spans:,} spans and {demo.payloads:,} gateway lines."
        )
        telling.heading(out, "What was read", sentence)
        telling.read(out, self.story.read, currency=self.currency)
        self._restatement()
        by = ("initiator_team", "initiator_agent", "basis", "service", "cost_class", "reason")
        costs = queries.costs(of_operator(self.books), queries.CostQuery(by=by))
        telling.heading(
            out,
            "Who started it",
            "Effective cost. Metered: what the bill says for calls that were logged. Estimated: no bill yet.",
        )
        telling.teams(out, costs, currency=self.currency)
        self._strangers()
        telling.heading(out, "What is left, and why")
        telling.rest(out, costs, currency=self.currency)
        if tree := self._good_chain():
            telling.heading(out, "One chain, from a customer's question to the last token")
            telling.chain(out, tree, explain=f"rootcost explain {tree.chain.chain_id}{_home_option(self.books.home)}")
        telling.heading(out, "Budgets")
        telling.budgets(out, queries.budgets(of_operator(self.books)), self.story.alerts)
        telling.heading(out, "The balance", f"Effective cost in {self.currency}, every digit.")
        frame = queries.balance(of_operator(self.books), [demo.month])
        telling.balance(out, frame)
        self._findings()
        return 0 if (frame["difference"] == 0).all() else BalanceError.exit_code

    def _restatement(self) -> None:
        first, last = (next(r.report for r in self.story.read if r.what.endswith(e)) for e in ("first version", "restated"))
        before, after = (r.totals[self.currency]["billed_cost"] for r in (first, last))
        self.out.print(
            f"AWS restated its bill: {before:,.2f} → {after:,.2f} {self.currency} ({after - before:+,.2f}), "
            f"{last.rows_changed:,} rows new or changed."
        )
        estimated_before, still = (self._estimated(run) for run in (self.story.first, self.story.last))
        self.out.print(
            f"Attributed again in {self.story.seconds[-1]:.1f} s without reading a span; "
            f"estimates: {estimated_before:,.2f} → {still:,.2f} {self.currency}."
        )
        self.out.print("The first run stays readable.", style="dim")

    def _estimated(self, run: RunReport | None) -> Decimal:
        import polars as pl

        from ledger.tables import COSTS

        run_id = "" if run is None else run.run_id
        rows = self.books.store.scan(COSTS, {"month": [self.story.made.month], "run_id": [run_id]}).filter(
            pl.col("basis") == "estimated"
        )
        return Decimal(rows.select(pl.col("effective_cost").sum()).collect().item() or 0)

    def _strangers(self) -> None:
        from api import queries
        from api.queries import of_operator

        for agent in queries.agents(of_operator(self.books)).unregistered:
            if agent.agent == company.UNREGISTERED:
                self.out.print(
                    Text.assemble(
                        (agent.agent, "yellow"),
                        (" spends without being registered: rootcost agents import gives it a team.", "dim"),
                    )
                )

    def _good_chain(self) -> ChainTree | None:
        """A whole chain that crosses teams and services, is billed, and still fits a screen."""
        from api import queries
        from api.queries import of_operator
        from ledger.periods import month_start

        start = month_start(self.story.made.month)
        until = start + timedelta(days=27)
        page = queries.chains(
            of_operator(self.books),
            queries.ChainQuery(start=start, end=until, agent=company.SUPPORT_BOT.name, search="POST /chat"),
        ).page(limit=400)
        whole = [c for c in page.rows if not c.reason and 14 <= c.spans <= 26]
        trees = (queries.chain(of_operator(self.books), c.chain_id) for c in whole[:12])
        crossing = {"research-service", "mcp-knowledge"}
        return next((t for t in trees if not t.unpriced_calls and crossing <= {n.service_name for n in t.nodes}), None)

    def _findings(self) -> None:
        from api import queries
        from api.queries import of_operator

        page = queries.problems(of_operator(self.books)).page(limit=5)
        if not page.total:
            return
        telling.heading(
            self.out,
            "Findings",
            f"{page.total} in all; what to do about each: rootcost problems{_home_option(self.books.home)}",
        )
        for row in page.rows:
            self.out.print(Text.assemble("  • ", (row.line or row.file, "bold"), f"  {row.reason}"))


def _home_option(home: Path) -> str:
    """What a command needs to find this home; nothing for the default one."""
    return "" if home == Path(".rootcost") else f" --home {home}"


def _print_next_steps(out: Console, home: Path, port: int, ui_port: int, seconds: float) -> None:
    text = Text.assemble(
        ("Look at it:  ", ""),
        (f"rootcost serve{_home_option(home)}", "bold cyan"),
        f"\nDashboard    http://127.0.0.1:{ui_port}\nAPI          http://127.0.0.1:{port}/openapi.json",
        (f"\n\nAll of it took {seconds:.0f} seconds. The company's files are in {home / demo_home.COMPANY_FOLDER}.", "dim"),
    )
    out.print()
    out.print(Panel.fit(text, border_style="cyan"))
