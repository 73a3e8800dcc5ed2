"""Statements: in cents that come to the invoices, the same bytes each time, and nobody else's money in them."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from api import queries
from api.models import Statement
from api.queries import ScopedBooks, of_operator
from api.statements import MEDIA_TYPES, render
from ledger.access.keys import create_key
from ledger.access.principals import OPERATOR, Grant, Principal
from ledger.access.roles import Permission
from ledger.books import Books
from ledger.closing import documents, states
from ledger.closing.lines import difference_of_lines, lines_of
from ledger.errors import ObjectMissingError
from ledger.tables import BALANCE, COST_COLUMNS, COSTS
from rootcost.cli import app
from tests.support.api_examples import CODER, HOUR, RESEARCH, SUPPORT, cost, frame, publish, reach

D = Decimal
EARLIER = HOUR - timedelta(days=20)
SHARED = {
    "cost_class": "shared",
    "rule": "support@1",
    "service": "AWS Support",
    "model": None,
    "meter": None,
    "invoice_id": "I-2",
}


def bill(extra: str = "0") -> list[dict[str, Any]]:
    """October: two invoices whose teams have fractions of a cent, a pool that two share, and what no team has."""
    usage = {"usage_hour": HOUR, "invoice_id": "I-1"}
    return [
        cost(str(D("10.014") + D(extra)), quantity=D(1000), **usage, **SUPPORT),
        cost("0.004", quantity=D(10), **usage, **RESEARCH),
        cost("3.335", quantity=D(300), **usage, **CODER),
        cost("6.668", **SHARED, **{**SUPPORT, "initiator_agent": None}),
        cost("3.332", **SHARED, **{**CODER, "initiator_agent": None}),
        cost("0.5", cost_class="unallocated", reason="uncaptured_usage", invoice_id="I-2", initiator_team=None),
        cost("7", basis="estimated", **{**SUPPORT, "usage_key": None}, **dict.fromkeys(("billed_cost", "list_cost", "contracted_cost"))),
    ]  # fmt: skip


def write(books: Books, rows: list[dict[str, Any]], run: str) -> None:
    publish(books, rows, run=run)
    total = sum((row["billed_cost"] for row in rows if row["basis"] == "billed"), D(0))
    sums = dict.fromkeys(("metered", "owner", "shared", "idle", "unallocated", "difference"), D(0)) | {"charges_in": total}
    keys = {"run_id": run, "currency": "USD", "invoice_month": "2026-10", "provider": "AWS", "rounding": "0"}
    balance = frame(BALANCE, [{**keys, "cost_column": column, **sums} for column in COST_COLUMNS])
    books.store.replace(BALANCE, balance, {"invoice_month": "2026-10", "run_id": run})


def lines(books: Books, run: str) -> pl.DataFrame:
    return lines_of(books.store.scan(COSTS, {"month": ["2026-10"], "run_id": [run]}))


@pytest.fixture
def closed_books(books: Books) -> Books:
    earlier = {"period_start": EARLIER, "period_end": EARLIER + timedelta(hours=1), "month": "2026-09"}
    publish(books, [cost("4", quantity=D(400), usage_hour=EARLIER, **SUPPORT, **earlier)], month="2026-09", run="run-9")
    write(books, bill(), "run-1")
    with books.database.session() as session:
        states.close(session, "2026-10", "run-1", lines(books, "run-1"), OPERATOR, reason="", waived_items=[])
    (books.home / "accounts.toml").write_text(
        'expense = "6400"\npayable = "2000"\naccrued = "2100"\nsuspense = "9999"\ncompany = "Example Ltd"\ncontact = "finance@example.test"\n'
        '[cost_centers]\nCare = "CC-1"\n',
        encoding="utf-8",
    )
    return books


def of_team(books: Books, team: str = "Care") -> Statement:
    return queries.statement(of_operator(books), team, "2026-10")


def test_statements_come_to_the_invoices_and_explain_themselves(closed_books: Books) -> None:
    care, dev, nobody = (of_team(closed_books, team) for team in ("Care", "Dev", ""))
    assert [one.totals[0].booked for one in (care, dev, nobody)] == [D("16.69"), D("6.66"), D("0.50")]  # 13.353 and 10.5
    assert care.totals[0].exact == D("16.686")
    assert (care.totals[0].estimated, care.totals[0].previous, care.totals[0].change) == (D(7), D(4), D("12.686"))
    assert sum(change.exact for change in care.changes) == D("12.686")
    assert [(pool.rule, pool.pool, pool.own) for pool in care.pools] == [("support@1", D(10), D("6.668"))]
    assert sum(agent.exact for agent in care.agents) == D("16.686")
    assert (care.kind, care.cost_center, care.company, dev.kind) == ("chargeback", "CC-1", "Example Ltd", "showback")
    assert (care.number, care.terms.runs) == ("2026-10-1/Care", {"2026-09": "run-9", "2026-10": "run-1"})
    rows = queries.statements(of_operator(closed_books), "2026-10")
    assert [(row.team, row.booked) for row in rows] == [("Care", D("16.69")), ("Dev", D("6.66")), ("", D("0.50"))]
    (control,) = queries.statement_control(of_operator(closed_books), "2026-10")
    assert (control.difference, control.booked, control.invoices) == (D(0), D("23.85"), D("23.85"))


def test_a_closed_month_gives_the_same_bytes_whatever_is_published_since(closed_books: Books) -> None:
    earlier = {name: render(of_team(closed_books), name) for name in MEDIA_TYPES}
    write(closed_books, bill("5"), "run-2")
    assert {name: render(of_team(closed_books), name) for name in MEDIA_TYPES} == earlier


def test_an_adjustment_is_a_line_that_names_what_it_adjusts(closed_books: Books) -> None:
    write(closed_books, bill("-5.5"), "run-2")
    with closed_books.database.session() as session:
        changes = difference_of_lines(lines(closed_books, "run-2"), documents.booked_lines(session, "2026-10"))
        documents.add_document(session, "2026-10", "run-2", changes.with_columns(cause=pl.lit("restated charge")), "attribution")
    care = of_team(closed_books)
    assert (care.number, care.revision, care.totals[0].adjustments) == ("2026-10-2/Care", 2, D("-5.50"))
    assert [(line.document, line.adjusts, line.cause) for line in care.lines if line.kind == "adjustment"] == [
        ("2026-10-2", "2026-10-1", "restated charge")
    ]
    (control,) = queries.statement_control(of_operator(closed_books), "2026-10")
    assert (control.difference, control.booked - control.invoices) == (D(0), D(0))


def test_every_format_has_all_tables_and_runs_nothing(books: Books) -> None:
    team = "=HYPERLINK(1) #evil[x] 日本"
    write(books, [cost("1.005", quantity=D(10), usage_hour=HOUR, **{**SUPPORT, "initiator_team": team})], "run-1")
    document = of_team(books, team)
    assert (document.state, document.dispute_until) == ("provisional", None)
    assert json.loads(render(document, "json"))["sha256"] == document.sha256
    rows = list(csv.reader(io.StringIO(render(document, "csv").decode())))
    assert [row[0] for row in rows if row[0] == "Totals"] == ["Totals"]
    assert ["About", "team", f"'{team}"] in rows
    with zipfile.ZipFile(io.BytesIO(render(document, "xlsx"))) as book:
        sheets = "".join(book.read(name).decode() for name in book.namelist() if name.startswith("xl/"))
    assert "<f>" not in sheets
    assert "<v>1</v>" in sheets or "<v>1.0</v>" in sheets  # 1.005 is 1.00, half to even
    assert "1.005" in sheets
    assert render(document, "pdf").startswith(b"%PDF-")


def test_a_team_sees_its_own_statement_and_no_other(closed_books: Books) -> None:
    care = Principal("key:x", "key", "x", grants=(Grant("viewer", "Care"),))
    own_books = ScopedBooks(closed_books, care, Permission.COSTS_READ)
    own, whole = queries.statement(own_books, "Care", "2026-10"), of_team(closed_books)
    assert own == whole
    assert [row.team for row in queries.statements(own_books, "2026-10")] == ["Care"]
    for team in ("Dev", "", "Nobody"):
        with pytest.raises(ObjectMissingError):
            queries.statement(own_books, team, "2026-10")


def test_the_same_by_command_and_over_the_api(closed_books: Books, capfd: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    with pytest.raises(SystemExit):
        app(["--home", str(closed_books.home), "statement", "Care", "--month", "2026-10"])
    by_command = capfd.readouterr().out
    assert by_command.encode() == render(of_team(closed_books), "json")
    with pytest.raises(SystemExit):
        app(
            [
                "--home",
                str(closed_books.home),
                "statement",
                "--all",
                "--month",
                "2026-10",
                "--format",
                "pdf",
                "--out",
                str(tmp_path / "all"),
            ]
        )
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "control.json", "statement-2026-10-Care-1.pdf", "statement-2026-10-Dev-1.pdf", "statement-2026-10-no-team-1.pdf",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit_code:
        app(["--home", str(closed_books.home), "statement", "Nobody", "--month", "2026-10"])
    assert exit_code.value.code == 1
    assert "has no statement of Nobody" in capfd.readouterr().err
    with reach(closed_books) as http:
        assert http.get("/v1/statement?team=Care&month=2026-10").content == by_command.encode()
        answer = http.get("/v1/statement?team=Care&month=2026-10&format=xlsx")
        assert answer.headers["content-disposition"] == 'attachment; filename="statement-2026-10-Care-1.xlsx"'
        assert http.get("/v1/statements/control?month=2026-10").json()["rows"][0]["difference"] == "0"
        _, key = create_key(closed_books, "care", [Grant("viewer", "Care")], actor="test")
        answer = http.get("/v1/statements/control?month=2026-10", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 403


def test_teams_accept_or_dispute_what_is_booked(closed_books: Books, capfd: pytest.CaptureFixture[str]) -> None:
    def answer_of(team: str) -> tuple[str, str]:
        row = next(row for row in queries.statements(of_operator(closed_books), "2026-10") if row.team == team)
        return row.answer, row.note

    with pytest.raises(SystemExit):
        app(["--home", str(closed_books.home), "statement", "Dev", "--month", "2026-10", "--accept"])
    assert "2026-10-1/Dev: accepted, 6.66 USD" in capfd.readouterr().err
    with reach(closed_books) as http:
        _, key = create_key(closed_books, "care", [Grant("finance", "Care")], actor="test")
        own_key = {"Authorization": f"Bearer {key}"}
        sha256 = http.get("/v1/statement?team=Care&month=2026-10").json()["sha256"]
        body = {"team": "Care", "month": "2026-10", "answer": "disputed", "sha256": sha256}
        assert "needs a reason" in http.post("/v1/statements/answers", json=body, headers=own_key).text
        assert http.post("/v1/statements/answers", json=body | {"note": "not ours"}, headers=own_key).status_code == 201
        assert "has changed" in http.post("/v1/statements/answers", json=body | {"sha256": "0" * 64}, headers=own_key).text
        assert http.post("/v1/statements/answers", json=body | {"team": "Dev", "sha256": ""}, headers=own_key).status_code == 404
    assert (answer_of("Care"), answer_of("Dev")) == (("disputed", "not ours"), ("accepted", ""))
    write(closed_books, bill("-5.5"), "run-2")
    with closed_books.database.session() as session:
        changes = difference_of_lines(lines(closed_books, "run-2"), documents.booked_lines(session, "2026-10"))
        documents.add_document(session, "2026-10", "run-2", changes.with_columns(cause=pl.lit("restated charge")), "attribution")
    assert answer_of("Care") == ("", "")  # another revision, which waits for an answer of its own
