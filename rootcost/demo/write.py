"""Writes the demo company's month to a folder: what `rootcost demo` ingests, and anyone can look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from os import cpu_count
from pathlib import Path
from typing import Any

import polars as pl

from ledger import periods
from ledger.errors import UsageError
from ledger.money import proportion, text
from rootcost.demo import bill, company, days, traffic, truth
from rootcost.demo.bill import AwsLine, Bill, OpenAiLine
from rootcost.demo.company import METERS, MODELS
from rootcost.demo.days import DayOutput
from rootcost.demo.exports import write_cur, write_focus
from rootcost.demo.shapes import Dice

RESTATED_DAY = 14
"""On this day of the month the first bill is missing part of the morning's tokens; the second one has them."""
FIRST_BILL_DAYS = 28
"""Days the first bill covers."""

LARGE = 150_000
"""Calls from which the days are played on all processors."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCompany:
    """Where everything of a generated month lies."""

    root: Path
    month: str
    bucket: Path
    restated: Path
    openai: Path
    otlp: Path
    litellm: Path
    registry: Path
    settings: Path
    budgets: Path
    truth: Path
    calls: int
    spans: int
    payloads: int

    @property
    def aws_export(self) -> Path:
        """The folder of the CUR export, as `rootcost ingest aws-cur` takes it."""
        return self.bucket / company.EXPORT_PREFIX / company.EXPORT

    def deliver_restatement(self) -> None:
        """Puts AWS's second run into the bucket, next to the first, as AWS would."""
        shutil.copytree(self.restated, self.bucket, dirs_exist_ok=True)


def generate(out: Path, *, calls: int, seed: int = 7, month: str = "2026-10", progress: Progress | None = None) -> DemoCompany:
    """Writes a month of about `calls` provider calls under `out`, which is emptied first if an earlier demo made it.

    The same arguments give the same bytes. `progress` is told (what, done, of).
    """
    if calls < 200:
        raise UsageError(f"{calls} calls are too few to tell a story", where="calls", remedy="ask for 200 or more")
    _clear(out)
    tell = progress or (lambda _what, _done, _of: None)
    first, end = periods.month_start(month), periods.month_end(month)
    nodes = max(1, min(len(company.GPU_NODES), calls // 40_000))
    schedule = traffic.plan(calls, first=first, end=end, seed=seed, gpu_nodes=nodes)
    signals = days.play(schedule, out, month, processes=(cpu_count() or 1) if calls >= LARGE else 1, tell=tell)
    usage = signals.usage
    billed_until = end - timedelta(days=1)
    charges = _charge(usage, signals.seconds, first=first, until=billed_until, nodes=nodes, calls=calls, seed=seed)
    full = charges.aws + list(bill.monthly_lines(charges.aws, first, end))
    early = _first_version(charges.aws, first)
    early += bill.monthly_lines(early, first, end)
    write_cur(out / "bucket", early, first=first, end=end, run=first + timedelta(days=FIRST_BILL_DAYS, hours=6))
    write_cur(out / "restated", full, first=first, end=end, run=end + timedelta(hours=5))
    write_focus(out / "openai" / f"focus-1.2-{month}.csv", charges.openai, first=first, end=end)
    (out / "registry.csv").write_text(company.registry_csv(month), encoding="utf-8")
    (out / "rootcost.toml").write_text(company.settings_toml(), encoding="utf-8")
    truth_values = _truth(usage, early, full, charges.openai, billed_until, month=month, seed=seed, signals=signals, nodes=nodes)
    _json(out / "truth.json", truth_values)
    _json(out / "budgets.json", _budgets(truth_values))
    demo = DemoCompany(
        root=out,
        month=month,
        bucket=out / "bucket",
        restated=out / "restated",
        openai=out / "openai" / f"focus-1.2-{month}.csv",
        otlp=out / "otlp",
        litellm=out / "litellm",
        registry=out / "registry.csv",
        settings=out / "rootcost.toml",
        budgets=out / "budgets.json",
        truth=out / "truth.json",
        calls=signals.calls,
        spans=signals.spans,
        payloads=signals.payloads,
    )
    _json(out / MARKER, {k: str(v) for k, v in asdict(demo).items()})
    return demo


MARKER = "demo.json"
"""A folder that holds this file was made by `generate` and may be made again."""


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise UsageError("the folder holds something that no demo made", where=str(out), remedy="name an empty folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _charge(
    usage: pl.DataFrame,
    seconds: dict[str, dict[int, float]],
    *,
    first: datetime,
    until: datetime,
    nodes: int,
    calls: int,
    seed: int,
) -> Bill:
    """The month's charges, without what is added at its end."""
    limit = int(until.timestamp()) // 3600
    billed_usage = usage.filter(pl.col("hour") < limit)
    usage_sums = billed_usage.group_by("hour", "model", "principal").agg(pl.col(m).sum() for m in METERS)
    aws = [m.name for m in MODELS if m.on_aws]
    runtime = {h: s for h, s in seconds.get(company.AGENT_RUNTIME, {}).items() if h < limit}
    scale = max(1, calls // 25_000)
    lines = list(bill.token_lines(usage_sums.filter(pl.col("model").is_in(aws))))
    lines += _shadows(usage_sums, first, seed=seed, calls=calls)
    lines += bill.gpu_lines(first, until, nodes)
    lines += bill.store_lines(first, until, Decimal(scale) / 2)
    lines += bill.runtime_lines(runtime)
    lines += bill.plumbing_lines(first, until, scale)
    openai = [m.name for m in MODELS if m.provider == "openai"]
    return Bill(lines, list(bill.openai_lines(usage_sums.filter(pl.col("model").is_in(openai)))))


def _shadows(usage_sums: pl.DataFrame, first: datetime, *, seed: int, calls: int) -> list[AwsLine]:
    """Usage that was billed and nobody logged: a script with a tagged principal, one without, and a job known by its role."""
    rng, begin = Dice(seed, 4), int(first.timestamp()) // 3600

    def rows(model: company.Model, principal: str, hours: list[int], prompt: int, answer: int) -> pl.DataFrame:
        usage_rows = []
        for hour in hours:
            size = 0.7 + 0.6 * rng.uniform()
            usage_rows.append((hour, model.name, principal, int(prompt * size) + 1, 0, 0, int(answer * size) + 1))
        return pl.DataFrame(usage_rows, schema=["hour", "model", "principal", *METERS], orient="row")

    tagged_usage = rows(
        company.SONNET, company.SHADOW_TAGGED, [begin + d * 24 + h for d in range(4, 8) for h in range(19, 24)], calls * 10, calls
    )
    plain_hours = [begin + d * 24 + h for d in range(8, 11) for h in range(20, 24)]
    untagged_usage = rows(company.HAIKU, company.SHADOW_PLAIN, plain_hours, calls * 12, calls * 2)
    job = rows(company.NOVA_PRO, company.SHADOW_REGISTERED, [begin + d * 24 + 3 for d in range(30)], calls * 8, calls)
    # Beyond the tolerance in every hour it runs, or it would count as noise between a bill and a log.
    logged_usage = (
        usage_sums.filter(pl.col("model") == company.HAIKU.name)
        .group_by("hour")
        .agg(pl.col(m).sum().alias(f"{m}_logged") for m in METERS)
    )
    untagged_usage = (
        untagged_usage.join(logged_usage, on="hour", how="left")
        .with_columns(
            pl.max_horizontal(m, (pl.col(f"{m}_logged").fill_null(0) // 20).cast(pl.Int64)).alias(m)
            for m in ("input_tokens", "output_tokens")
        )
        .select(untagged_usage.columns)
    )
    tag = (("iamPrincipal/team", "Growth"),)
    return [
        *bill.token_lines(tagged_usage, truth="shadow-tagged", tags=tag, account=company.SANDBOX),
        *bill.token_lines(untagged_usage, truth="shadow-plain"),
        *bill.token_lines(job, truth="shadow-registered", account=company.ANALYTICS),
    ]


def _first_version(lines: list[AwsLine], first: datetime) -> list[AwsLine]:
    """The bill as AWS first stated it: up to a few days before, and with a morning whose tokens were not all counted yet."""
    until = first + timedelta(days=FIRST_BILL_DAYS)
    morning = {first + timedelta(days=RESTATED_DAY - 1, hours=h) for h in range(9, 14)}
    out = []
    for line in lines:
        if line.start >= until:
            continue
        if line.start in morning and company.SONNET.billed in line.usage_type and line.region == company.US:
            quantity = Decimal(int(line.quantity * 1000) * 88 // 100).scaleb(-3)
            list_cost = quantity * line.rate
            out.append(replace(line, quantity=quantity, listed=list_cost, net=list_cost * (1 - company.PRIVATE_RATE)))
        else:
            out.append(line)
    return out


def _truth(
    usage: pl.DataFrame,
    early: list[AwsLine],
    full: list[AwsLine],
    openai: list[OpenAiLine],
    until: datetime,
    *,
    month: str,
    seed: int,
    signals: DayOutput,
    nodes: int,
) -> dict[str, Any]:
    limit = int(until.timestamp()) // 3600
    billed_usage, later = usage.filter(pl.col("hour") < limit), usage.filter(pl.col("hour") >= limit)
    starts, works = ["initiator_team", "initiator_agent"], ["executor_team", "executor_agent"]
    return {
        "company": company.COMPANY,
        "month": month,
        "seed": seed,
        "currency": company.CURRENCY,
        "calls": signals.calls,
        "spans": signals.spans,
        "payloads": signals.payloads,
        "billed_until": until.isoformat(),
        "gpu_nodes": nodes,
        "bills": {
            "AWS, first": truth.aws_totals(early),
            "AWS, restated": truth.aws_totals(full),
            "OpenAI": truth.openai_totals(openai),
        },
        "initiators": truth.priced(billed_usage, starts),
        "executors": truth.priced(billed_usage, works),
        "unbilled": truth.priced(later, starts),
        "uncaptured": truth.uncaptured(full),
        "resource_seconds": {resource: round(sum(hours.values()), 3) for resource, hours in sorted(signals.seconds.items())},
    }


def _budgets(truth_values: dict[str, Any]) -> list[dict[str, str]]:
    """Monthly budgets in round figures, of which one has been overrun."""
    kinds = {kind: Decimal(total) for kind, total in truth_values["bills"]["AWS, restated"]["by_kind"].items()}
    spent = {"Care": kinds["vector-store"], "Growth": kinds["shadow-tagged"], "Legal": kinds.get("runtime", Decimal(0))}
    for row in truth_values["initiators"]:
        team = row["initiator_team"]
        if team:
            spent[team] = spent.get(team, Decimal(0)) + Decimal(row["effective_cost"])
    everyone = sum(spent.values(), Decimal(0))
    chosen = {"Engineering": Decimal("0.85"), "Care": Decimal("1.5"), "Growth": Decimal(2), "Legal": Decimal("1.3")}
    return [
        {
            "name": f"{team} monthly",
            "scope": "team",
            "scope_name": team,
            "amount": text(_round_up((spent[team] + proportion(kinds["support"], spent[team], everyone)) * share)) or "",
            "currency": company.CURRENCY,
        }
        for team, share in chosen.items()
    ]


def _round_up(amount: Decimal) -> Decimal:
    """The next amount with two leading digits, at least 1.

    >>> text(_round_up(Decimal("132.4"))), text(_round_up(Decimal("0.2")))
    ('140', '1')
    """
    step = Decimal(1).scaleb(max(0, amount.adjusted() - 1))
    return max(Decimal(1), amount.quantize(step, rounding=ROUND_CEILING))


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
