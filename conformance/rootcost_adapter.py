"""This repository's own implementation behind the contract of the conformance suite: INPUT folder in, OUTPUT/costs.csv out.

Books are opened in a temporary home; registry, prices, bills and logs go in through the product's own readers, every delivery is
followed by an attribution run, and the costs are what the product's own query answers. Nothing is computed here.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from api import queries
from api.changes import add_budget
from api.models import NewBudget
from api.queries import of_operator
from api.queries.gate import published
from attribution.run import attribute
from ingest.prices.books import read_prices
from ingest.prices.updates import apply_update, compare
from ingest.run import ingest
from ledger import registry
from ledger.books import Books
from ledger.budgets import reservations
from ledger.published import PublishedMonth
from ledger.reservation_tables import Reservation
from ledger.settings import AttributionSettings, IngestSettings, Settings, load
from ledger.tables import COSTS

NOT_CLAIMED = 77
READERS = {"bill": "focus", "spans": "otlp", "gateway": "litellm"}
KNOWN = {*READERS, "registry", "prices", "settings"}
BY = (
    "agent", "team", "basis", "method", "rule", "charge_category", "provider", "account", "region", "service", "model", "meter",
    "service_tier", "workflow", "tenant", "environment", "month",
)  # fmt: skip
VIEWS: tuple[Literal["initiator", "executor"], ...] = ("initiator", "executor")


def main(given: Path, out: Path) -> int:
    """Draws the input up; returns the exit code."""
    if (given / "requests.csv").is_file():
        return _decide(given, out)
    if strange := [name for delivery in _deliveries(given) for name in _files(delivery) if name.split("-")[0] not in KNOWN]:
        print(f"no reader for {strange[0]}", file=sys.stderr)
        return NOT_CLAIMED
    with tempfile.TemporaryDirectory(prefix="rootcost-conformance-") as folder:
        home = Path(folder, "home")
        home.mkdir()
        with Books(_settings(home, given / "settings.toml")) as books:
            after: dict[int, list[PublishedMonth]] = {}
            for number, delivery in enumerate(_deliveries(given)):
                _take_in(books, delivery)
                attribute(books)
                after[number] = list(published(of_operator(books)))
            _write(out / "costs.csv", _costs(books))
            for number, months in after.items():
                _write(out / f"costs-after-{number}.csv", _costs_as_published(books, months))
    return 0


def _decide(given: Path, out: Path) -> int:
    """F32: asks the budgets, in order, and writes what each step was answered and what is held and committed then."""
    with tempfile.TemporaryDirectory(prefix="rootcost-conformance-") as folder, Books.open(folder) as books:
        limits = {row["budget"]: row for row in _read(given / "budgets.csv")}
        for name, row in limits.items():
            budget = NewBudget(
                name=name, scopes={"team": row["team"]}, amount=Decimal(row["cap"]), currency=row["currency"], enforcement="hard"
            )
            add_budget(of_operator(books), budget)
        decisions = [
            {"step": row["step"], "decision": _asked(books, row, limits[row["budget"]]), **_sums(books)}
            for row in _read(given / "requests.csv")
        ]
    with (out / "decisions.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, ["step", "decision", "reserved", "committed"])
        writer.writeheader()
        writer.writerows(decisions)
    return 0


def _asked(books: Books, row: dict[str, str], limit: dict[str, str]) -> str:
    """One request, and its answer."""
    if row["request"] == "commit":
        reservations.commit(books, row["id"], Decimal(row["amount"]))
        return "done"
    if row["request"] == "release":
        reservations.release(books, row["id"])
        return "done"
    request = reservations.Request({"team": limit["team"]}, Decimal(row["amount"]), limit["currency"], 3600, row["id"])
    try:
        reservations.reserve(books, request, "conformance")
    except reservations.BudgetRefusedError:
        return "denied"
    return "granted"


def _sums(books: Books) -> dict[str, str]:
    """What is held and committed, as the ledger's database has it."""
    with books.database.session() as session:
        rows = list(session.scalars(sa.select(Reservation)))
    held = sum((row.amount for row in rows if row.state == reservations.OPEN), Decimal(0))
    committed = sum((row.cost or Decimal(0) for row in rows), Decimal(0))
    return {"reserved": f"{held:f}", "committed": f"{committed:f}"}


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _settings(home: Path, asked: Path) -> Settings:
    """The product's settings; those a case asks for under the names they have here."""
    settings = load(home)
    told = tomllib.loads(asked.read_text(encoding="utf-8")) if asked.is_file() else {}
    ingesting = {**settings.ingest.model_dump(), "trusted_sources": [READERS[kind] for kind in told.get("trusted", ())]}
    attributing = {**settings.attribution.model_dump(), "shared": told.get("shared", [])}
    return settings.model_copy(
        update={
            "ingest": IngestSettings.model_validate(ingesting),
            "attribution": AttributionSettings.model_validate(attributing),
        }
    )


def _deliveries(given: Path) -> list[Path]:
    numbered = sorted((path for path in given.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return [given, *numbered]


def _files(delivery: Path) -> Iterator[str]:
    return (path.name.rpartition(".")[0] for path in sorted(delivery.iterdir()) if path.is_file())


def _take_in(books: Books, delivery: Path) -> None:
    for path in sorted(delivery.glob("registry*.csv")):
        registry.import_csv(books, path)
    for path in sorted(delivery.glob("prices*.csv")):
        apply_update(books, compare(books, read_prices(path), valid_from=datetime(1970, 1, 1, tzinfo=UTC)), accept=True)
    for kind, source in READERS.items():
        # A bill's dataset is its file's name: the same name again is a restatement, another name another bill.
        if found := [str(path) for path in sorted(delivery.glob(f"{kind}*"))]:
            report = ingest(books, source, found)
            for problem in report.problems:
                print(f"{problem.severity}: {problem.uri} {problem.place} {problem.field}: {problem.reason}", file=sys.stderr)


def _costs(books: Books) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for view in VIEWS:
        frame = queries.costs(
            of_operator(books), queries.CostQuery(by=(*BY, "cost_class", "reason"), view=view, granularity="day")
        )
        rows += [
            {"view": view, **row, "day": row["period_start"][:10], "invoice_month": row["month"], "phase": _phase(row["reason"])}
            for row in frame.iter_rows(named=True)
        ]
    return rows


def _costs_as_published(books: Books, months: list[PublishedMonth]) -> list[dict[str, Any]]:
    """What an earlier run said, read now: a superseded run stays readable."""
    held = books.store.scan(COSTS, {"month": [m.month for m in months], "run_id": [m.run_id for m in months]}).collect()
    rows: list[dict[str, Any]] = []
    for view in VIEWS:
        for row in held.iter_rows(named=True):
            who = {"agent": row[f"{view}_agent"], "team": row[f"{view}_team"]}
            day = row["period_start"].date().isoformat()
            kept = {name: row[name] for name in (*BY[2:], "cost_class", "reason", "currency")}
            kept |= {"day": day, "invoice_month": row["month"], "phase": _phase(row["reason"])}
            rows.append({"view": view, **who, **kept, "cost": row["effective_cost"]})
    return rows


def _phase(reason: str | None) -> str:
    return "overhead" if "overhead" in (reason or "").split(",") else ""


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = ["view", *BY, "cost_class", "reason", "phase", "currency", "day", "invoice_month", "cost"]
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            cost = row["cost"]
            writer.writerow({**row, "cost": "" if cost is None else f"{cost:f}"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
