"""Evidence at the terminal: the figure, what decides it, how emitters count, and findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from ledger.plurals import counted
from rootcost.terminal.console import say
from rootcost.terminal.tables import amount, console_of, draw, table
from ui import labels

if TYPE_CHECKING:
    from decimal import Decimal

    from api.models import EmitterRow, Evidence, EvidenceRow, FindingRow

_SUMS = ("cost", "billed", "estimated")


def evidence(report: Evidence, section: str = "", *, path: Path | None = None) -> None:
    """Prints the sections of a report, or one of them."""
    wide = None if path is None else console_of(path).width
    tables_by_section = {
        "figure": [_figure(report, wide), _deciders(report, wide)] if report.rows else [],
        "emitters": [_emitters(report.emitters, wide)] if report.emitters else [],
        "findings": [_findings(report.findings, wide)] if report.findings else [],
    }
    tables = [one for name, parts in tables_by_section.items() if section in ("", name) for one in parts]
    if tables:
        draw(Group(*tables), path)
    else:
        say({"findings": "Nothing was noticed.", "emitters": "No call was logged."}.get(section, "No costs in this month."))
    without_cost = sum(part.calls_without_cost for part in report.parts)
    if without_cost and section in ("", "figure"):
        say(f"{counted(without_cost, 'call')} whose money is not known: no price, or covered by a bill that does not name them")


def _figure(report: Evidence, width: int | None) -> Any:
    """The four parts, and their total."""
    rows = [
        {
            "stands on": labels.EVIDENCE[part.evidence],
            "cost": part.cost,
            "billed": part.cost_billed,
            "estimated": part.cost_estimated,
            "share": _percent(part.percent),
            "currency": part.currency,
        }
        for part in report.parts
    ]
    currencies = list(report.totals)
    columns = ["stands on", *_SUMS, "share", *(["currency"] if len(currencies) > 1 else [])]
    footer = {"stands on": "total"}
    for column, field in (("cost", "cost"), ("billed", "cost_billed"), ("estimated", "cost_estimated")):
        sums = [sum(getattr(part, field) for part in report.parts if part.currency == currency) for currency in currencies]
        footer[column] = "\n".join(amount(total) for total in sums)
    footer |= {"currency": "\n".join(currencies)} if len(currencies) > 1 else {}
    period = "all months" if report.month == "all" else str(report.month)
    caption = f"{report.basis} cost{'' if len(currencies) > 1 else f' in {currencies[0]}'}, invoice month {period}"
    return table(columns, rows, money=_SUMS, numbers=["share"], footer=footer, caption=caption, keep=columns, width=width)


def _percent(share: Decimal | None) -> str:
    return "—" if share is None else f"{share:.1f} %"


def decided_by(row: EvidenceRow) -> str:
    """What decides a row, in a few words: a reason, a method, or an emitter whose counts are read by the table."""
    parts = (row.column.replace("_", " "), row.value, row.emitter, row.emitter_version)
    return " ".join(part for part in parts if part)


def _deciders(report: Evidence, width: int | None) -> Any:
    is_mixed = len(report.totals) > 1
    rows = [
        {
            "stands on": labels.EVIDENCE[row.evidence],
            "because of": decided_by(row),
            "cost": row.cost,
            "currency": row.currency,
            "calls without": row.calls_without_cost or "",
            "meaning": row.meaning,
            "what to do": row.remedy,
        }
        for row in report.rows
    ]
    columns = ["stands on", "because of", "cost", *(["currency"] if is_mixed else []), "calls without", "meaning", "what to do"]
    return table(columns, rows, money=["cost"], numbers=["calls without"], title="Because of", keep=columns[:3], width=width)


def _emitters(emitters: list[EmitterRow], width: int | None) -> Any:
    rows = [
        {
            "emitter": " ".join(part for part in (row.emitter, row.emitter_version) if part) or "?",
            "provider": row.provider,
            "model": row.model,
            "calls": f"{row.calls:,}",
            "tokens": "—" if row.tokens is None else f"{row.tokens:,}",
            "list cost": row.list_cost,
            "by the table": _calls(row.table_calls),
            "contradict it": _calls(row.contradicted_calls),
            "totals agree": _agreement(row.agreeing_total_calls, row.total_calls),
            "set aside": _calls((row.echo_spans or 0) + (row.wrapper_spans or 0)),
            "own cost": row.reported_cost,
            "our cost": row.compared_cost,
        }
        for row in emitters
    ]
    columns = list(rows[0])
    numbers = ["calls", "tokens", "by the table", "contradict it", "totals agree", "set aside"]
    money = ["list cost", "own cost", "our cost"]
    return table(columns, rows, money=money, numbers=numbers, title="How emitters count", keep=["emitter"], width=width)


def _calls(number: int | None) -> str:
    return f"{number:,}" if number else "" if number == 0 else "—"


def _agreement(agreeing: int | None, totals: int | None) -> str:
    return f"{agreeing:,} of {totals:,}" if totals and agreeing is not None else ""


def _findings(findings: list[FindingRow], width: int | None) -> Any:
    rows = [
        {
            "finding": row.finding,
            "where": row.place,
            "cost": row.cost,
            "currency": row.currency if row.cost is not None else None,
            "rows": row.rows,
            "description": row.description,
            "what to do": row.remedy,
        }
        for row in findings
    ]
    return table(list(rows[0]), rows, money=["cost"], numbers=["rows"], title="Noticed", keep=["finding"], width=width)
