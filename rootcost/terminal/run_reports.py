"""What an import or an attribution run did, printed as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from ledger.money import text
from ledger.plurals import counted
from ledger.tables import COST_COLUMNS
from rootcost.terminal.console import out, say, terminal
from rootcost.terminal.tables import balance

if TYPE_CHECKING:
    from attribution.run import RunReport
    from ingest.run import IngestReport
    from ledger.db import Alert
    from ledger.problems import Problem


def ingested(report: IngestReport) -> None:
    """Prints what was read, its totals, and how much was left out."""
    noun = "charge" if report.kind == "bill" else "span"
    cached = f", {report.already_known} of them known already" if report.already_known else ""
    months = f" ({', '.join(report.months)})" if report.months else ""
    out(
        f"{counted(report.files, 'file')} read{cached}: "
        f"{counted(report.rows, noun)}{months}, {report.rows_changed:,} new or changed"
    )
    for currency, columns in report.totals.items():
        sums = (f"{name.replace('_', ' ')} {text(columns.get(name)) or 'unknown'}" for name in COST_COLUMNS)
        out(f"{currency} as read: {', '.join(sums)}")
    if report.warnings:
        say(f"{counted(report.warnings, 'row')} kept with a remark: rootcost problems")
    left_out(report.problems)


def left_out(found_problems: Sequence[Problem], *, most: int = 5) -> None:
    """Prints the first rows that were left out; `rootcost problems` lists all."""
    errors = [p for p in found_problems if p.severity == "error"]
    if not errors:
        return
    say(f"{sum(p.rows for p in errors):,} left out:")
    for problem in errors[:most]:
        say(
            "  "
            + ", ".join(x for x in (problem.uri, problem.place, problem.field) if x)
            + f": {problem.reason} — {problem.remedy}"
        )
    if len(errors) > most:
        say(f"  … {len(errors) - most} more: rootcost problems")


def attributed(report: RunReport, alerts: Sequence[Alert]) -> None:
    """Prints what a run did, by cost class, and the alerts it raised."""
    if report.settled:
        say(f"Not rebuilt, since facts of theirs were removed: {', '.join(report.settled)} (rootcost verify tells when)")
    if not report.months:
        out(
            "Nothing has changed since the last run."
            if report.unchanged or report.settled
            else "Nothing to attribute. Next: rootcost ingest (or: rootcost demo)"
        )
    else:
        read_text = f"{counted(report.spans_read, 'span')} read" + (
            f", usage of {counted(report.rollups_reused, 'month')} reused" if report.rollups_reused else ""
        )
        out(f"Run {report.run_id}: {', '.join(report.months)} published; {read_text}")
        if report.other_code:
            out(
                f"Rebuilt, since this version of RootCost may conclude otherwise than the one before: {', '.join(report.other_code)} "
                f"(what moved: rootcost runs OLD {report.run_id})"
            )
        if report.stale:
            say(f"Stale, since an earlier month was rebuilt: {', '.join(report.stale)}. Next: rootcost attribute")
        if report.balance.height:
            balance(report.balance.drop("run_id").filter(report.balance["cost_column"] == "effective_cost"))
    if report.problems:
        say(f"{counted(report.problems, 'finding')}: rootcost problems")
    for alert in alerts:
        terminal(stderr=True).print(Text.assemble(("! ", "bold red"), alert.text))
