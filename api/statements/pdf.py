"""Statements as PDF, made by typst from `statement.typ`: tagged for screen readers (PDF/UA-1), for archives (PDF/A-2a), the same bytes each time.

The data goes to the template as JSON, so that no text of it is a command. A letter that the fonts of typst lack is an error of these standards: then
the fonts of the system are tried, and after that such letters are written as their numbers, U+65E5, rather than left blank.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC
from importlib import resources
from typing import Any, Final

import typst

from api.models import Statement
from api.statements.tables import about
from ledger.closing.cents import smallest_unit
from ledger.money import text

_LETTERS: Final = re.compile(r"[^\x20-\u024f\u0370-\u04ff\u2010-\u2027\u20a0-\u20bf]")
"""What the fonts of typst need not have."""
_MAX_AGENTS: Final = 30


def render(statement: Statement) -> bytes:
    """The document."""
    template = resources.files("api.statements").joinpath("statement.typ").read_bytes()
    data = json.dumps(_data(statement), ensure_ascii=False)
    plain_data = _LETTERS.sub(lambda letter: f"U+{ord(letter[0]):04X} ", data)
    timestamp = int(statement.made_at.astimezone(UTC).timestamp())

    def compiled(content: str, *, use_system_fonts: bool) -> bytes:
        document = typst.compile(
            template,
            format="pdf",
            sys_inputs={"data": content},
            timestamp=timestamp,
            pdf_standards=["ua-1", "a-2a"],
            ignore_system_fonts=not use_system_fonts,
        )
        return bytes(document)

    for use_system_fonts in (False, True):
        with suppress(typst.TypstError):
            return compiled(data, use_system_fonts=use_system_fonts)
    return compiled(plain_data, use_system_fonts=False)


def _data(statement: Statement) -> dict[str, Any]:
    """What the template prints. Amounts are booked to the cent, and exact ones to as many places as they have."""
    agents = statement.agents[:_MAX_AGENTS]
    return {
        "title": f"Statement {statement.number}",
        "company": statement.company,
        "team": statement.team or "What no team has",
        "month": statement.month,
        "state": statement.state,
        "made_at": [statement.made_at.year, statement.made_at.month, statement.made_at.day],
        "note": _note(statement),
        "totals": [
            {
                "currency": total.currency,
                "rows": [
                    ["Booked this month", _booked(total.booked, total.currency)],
                    *([["of this, adjustments", _booked(total.adjustments, total.currency)]] if total.adjustments else []),
                    ["Exact amount", text(total.exact)],
                    ["Rounding", text(total.rounding)],
                    ["Month before, exact", "unknown" if total.previous is None else text(total.previous)],
                    ["Change", "unknown" if total.change is None else text(total.change)],
                    *([["Estimated, on no bill yet, not booked", text(total.estimated)]] if total.estimated else []),
                ],
            }
            for total in statement.totals
        ],
        "lines": [
            [line.document, line.cause, line.provider, line.invoice_id, line.cost_class, line.currency, _booked(line.booked, line.currency)]
            for line in statement.lines
        ],
        "changes": [[row.effect.replace("_", " "), row.currency, text(row.exact)] for row in statement.changes],
        "pools": [[row.service or row.provider, row.rule, row.currency, text(row.pool), text(row.own)] for row in statement.pools],
        "agents": [[row.agent or "(no agent)", row.currency, text(row.exact), f"{row.calls:,}", text(row.per_call) or "–"] for row in agents],
        "agents_left_out": len(statement.agents) - len(agents),
        "about": [item for item in about(statement) if item[1]],
    }  # fmt: skip


def _booked(amount: Any, currency: str) -> str:
    return f"{amount.quantize(smallest_unit(currency)):,}"


def _note(statement: Statement) -> str:
    if statement.state == "provisional":
        return "Provisional: the month is not closed, and figures may still change."
    until = f" until {statement.dispute_until:%d %B %Y}" if statement.dispute_until else ""
    return f"Questions and objections{until}: {statement.contact}" if statement.contact else f"Objections are taken{until}."
