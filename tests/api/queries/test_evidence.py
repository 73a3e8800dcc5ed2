"""Evidence: what a month's money stands on, to the last digit, and the same total as that of costs. (CA-5, CA-6)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args

import httpx
import polars as pl
import pytest
from typer.testing import CliRunner

from api import queries
from api.client import Client
from api.models import Basis, Evidence
from api.queries import CostQuery, of_operator
from api.queries.evidence.classes import deciders, weakest
from attribution.run import attribute
from ledger.books import Books
from ledger.errors import UsageError
from ledger.problems import Problem, to_frame
from ledger.tables import PROBLEMS
from rootcost.cli import app
from tests.support.api_examples import CODER, HOUR, RESEARCH, cost, publish, reach
from tests.support.books_by_hand import SONNET, charge, charges, price, span, spans, write
from tests.support.count_cases import rollup_of_spans

D = Decimal
ACME: dict[str, Any] = {
    **SONNET, "account_id": "1111", "region": "us-east-1", "agent_name": "coder", "emitter": "acme", "emitter_version": "1.2",
}  # fmt: skip
LIST = [
    price("anthropic.claude-sonnet-4-6", meter, rate)
    for meter, rate in (("input_tokens", "0.000003"), ("cache_read_tokens", "0.0000003"), ("output_tokens", "0.000015"))
]
CACHE_READ = "USE1-Claude4.6Sonnet-cache-read-input-token-count"


def cached(number: int, **columns: Any) -> dict[str, Any]:
    """A call of 6 000 input tokens, 5 000 of them from the cache; `columns` say how that is known."""
    return span(number, number, **{**ACME, "input_tokens": 6000, "cache_read_tokens": 5000, **columns})


def decided(report: Evidence) -> dict[str, Decimal]:
    """The money by what it stands on, and what decides it."""
    return {
        " ".join(filter(None, (row.evidence, row.column, row.value, row.emitter, row.emitter_version))): row.cost
        for row in report.rows
    }


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """9 000 tokens of input in one hour for $0.09: 1 000 read as the table says, 6 000 proven by a total, 2 000 that can be read in one way.

    10 000 tokens from the cache for $0.01 are what the records say they are. Support costs $0.5, tax on all that $0.019.
    """
    with Books.open(tmp_path_factory.mktemp("evidence")) as books:
        rows = [
            cached(1),
            cached(2, total_tokens=11_000),
            span(3, 3, **{**ACME, "input_tokens": 2000}),
            span(4, 4, **{**ACME, "input_tokens": 700, "response_model": "no-such-model"}),
        ]
        bill = [
            charge("0.09", tokens_k="9"),
            charge("0.01", tokens_k="10", sku_meter=CACHE_READ),
            charge("0.5", sku_meter="Support", consumed_unit="Units"),
            charge("0.019", charge_category="Tax", sku_meter=None),
        ]
        write(books, spans=spans(*rows), charges=charges(*bill), prices=LIST, owners="agent,team\ncoder,Dev\n")
        attribute(books, ["2026-10"])
        yield books


def test_money_is_cut_by_what_proves_how_it_was_counted(month: Books) -> None:
    """Of the $0.09 the table bears 1 000 / 9 000; tax on Support stands where Support stands."""
    report = queries.evidence(of_operator(month))
    assert decided(report) == {
        "evidence method path": D("0.09"),
        "table reading table acme 1.2": D("0.01"),
        "inference reason tax": D("0.003166666667"),
        "nothing cost_class unallocated": D("0.515833333333"),
        "nothing reason not_on_bill": D(0),
    }
    assert [(part.evidence, part.cost) for part in report.parts] == [
        ("evidence", D("0.09")),
        ("table", D("0.01")),
        ("inference", D("0.003166666667")),
        ("nothing", D("0.515833333333")),
    ]
    assert [(row.value, row.calls_without_cost) for row in report.rows if row.calls_without_cost] == [("not_on_bill", 1)]
    assert (report.month, report.months, report.totals) == ("2026-10", ["2026-10"], {"USD": D("0.619")})


@pytest.mark.parametrize("basis", get_args(Basis))
@pytest.mark.parametrize("period", ["2026-10", "all"])
def test_the_parts_are_the_total_of_costs(month: Books, basis: Basis, period: str) -> None:
    report = queries.evidence(of_operator(month), month=period, basis=basis)
    whole = queries.costs(of_operator(month), CostQuery.parse(start="2026-10", end="2026-11", basis=basis))
    assert sum(part.cost for part in report.parts) == whole["cost"].sum() == report.totals["USD"]
    assert sum(row.cost for row in report.rows) == report.totals["USD"]
    assert sum(part.cost_billed + part.cost_estimated for part in report.parts) == report.totals["USD"]


def test_emitters_say_whether_totals_and_costs_agree(month: Books) -> None:
    rows = {row.model: row for row in queries.evidence(of_operator(month)).emitters}
    sonnet = rows["claude-sonnet-4-6"]
    assert (sonnet.emitter, sonnet.emitter_version, sonnet.provider) == ("acme", "1.2", "AWS")
    assert (sonnet.calls, sonnet.tokens, sonnet.table_calls, sonnet.contradicted_calls) == (3, 19_000, 1, 1)
    assert (sonnet.agreeing_total_calls, sonnet.total_calls, sonnet.compared_calls) == (1, 1, 0)
    assert sonnet.list_cost == D("0.03")
    assert (rows["no-such-model"].list_cost, rows["no-such-model"].tokens) == (None, 700)


def test_findings_have_their_money_and_remedy(month: Books) -> None:
    findings = {row.finding: row for row in queries.evidence(of_operator(month)).findings}
    contradiction = findings["count_contradiction"]
    assert (contradiction.cost, contradiction.currency, contradiction.rows) == (D("0.0195"), "USD", 1)
    assert contradiction.remedy
    assert contradiction.description.startswith("1 calls of claude-sonnet-4-6")
    assert (findings["not_on_bill"].cost, findings["not_on_bill"].month) == (D(0), "2026-10")


PROOFS: dict[str, dict[str, Any]] = {
    "own cost": {"reported_cost": D("0.0045")},  # 1 000 x 3 + 5 000 x 0.30 millionths: it proves the table's reading
    "other cost": {"reported_cost": D("0.5")},  # proves nothing
    "provider": {"count_evidence": "provider"},
    "provider's output": {"count_evidence": "provider_output"},  # the provider's usage is that of the other side
    "native": {"emitter": None, "source": "bedrock-logs"},  # the provider's own record
    "impossible": {"input_includes_cache": False, "input_tokens": 1000},  # less than its cached part: it cannot include it
}


def test_what_the_record_proves_stands_on_no_table(books: Books) -> None:
    rows = [cached(number, emitter_version=name, **columns) for number, (name, columns) in enumerate(PROOFS.items(), 1)]
    write(books, spans=spans(*rows), charges=charges(charge("0.06", tokens_k="6")), prices=LIST)
    attribute(books, ["2026-10"])
    report = queries.evidence(of_operator(books))
    by_table = {row.emitter_version: row.cost for row in report.rows if row.evidence == "table"}
    assert by_table == {"other cost": D("0.01"), "provider's output": D("0.01")}
    assert report.totals == {"USD": D("0.06")}


def test_two_chains_share_what_the_table_says_of_their_call() -> None:
    """A call of two chains, 1 001 tokens of input as the table says: its parts are those of its usage rows, whatever the order."""
    ids = json.dumps([[f"{n:032x}", f"{n:016x}"] for n in (1, 2)])
    starts = [span(n, n, agent_name=name) for n, name in ((1, "coder"), (2, "helper"))]
    rows = [*starts, span(3, 3, link=(1, 1), links=ids, agent_name="joint"), cached(3, agent_name=None, input_tokens=6001)]
    rows[-1] |= span(3, 4, 3)
    rollup = rollup_of_spans(spans(*rows))
    keys = ["usage_key", "quantity"]
    usage = rollup.usage.filter(pl.col("meter") == "input_tokens").select(keys).sort(keys)
    assert rollup.readings.select(keys).sort(keys).equals(usage)
    assert (usage.height, usage["quantity"].sum()) == (2, D(1001))
    assert rollup_of_spans(spans(*reversed(rows))).readings.sort("usage_key").equals(rollup.readings.sort("usage_key"))


def test_estimates_stand_on_the_price_list_and_unknown_money_is_counted(books: Books) -> None:
    """Rows of a run: estimated, unpriced, shared by a rule, tagged on the bill, and a reason that nobody has decided."""
    publish(
        books,
        [
            cost("2", basis="estimated", usage_hour=HOUR, **CODER),
            cost("0", basis="estimated", reason="unpriced", usage_hour=HOUR, **RESEARCH)
            | dict.fromkeys(("effective_cost", "billed_cost"), None),
            cost("3", cost_class="shared", method="even", initiator_team="Dev"),
            cost("4", cost_class="owner", method="owner", reason="uncaptured_usage", initiator_team="Dev"),
            cost("5", reason="retry,missing_parent,brand_new", **CODER),
            cost("7", usage_hour=HOUR - timedelta(days=40), **CODER),
            cost("11", currency="EUR", **CODER) | {"method": "conversation"},
        ],
    )
    report = queries.evidence(of_operator(books))
    assert decided(report) == {
        "inference method conversation": D(11),
        "evidence method owner": D(4),
        "table method even": D(3),
        "table basis estimated": D(2),
        "inference reading not_kept": D(7),
        "nothing reason brand_new": D(5),
        "nothing reason unpriced": D(0),
    }
    assert [row.rows_without_cost for row in report.rows if row.value == "unpriced"] == [1]
    assert report.totals == {"EUR": D(11), "USD": D(21)}
    table = {(part.currency, part.evidence): part for part in report.parts}["USD", "table"]
    assert (table.cost_billed, table.cost_estimated) == (D(3), D(2))
    assert table.percent == D("23.809523809524")


def test_a_row_stands_on_its_weakest_part() -> None:
    pairs = [("cost_class", "metered"), ("basis", "estimated"), ("method", "path"), ("reason", "retry,overlogged")]
    assert [weakest(pairs[:n]).value for n in (1, 2, 4)] == ["metered", "estimated", "overlogged"]
    assert [row for row in deciders().values() if not row.meaning] == []


def test_problems_with_a_name_are_findings_whoever_reports_them(books: Books) -> None:
    publish(books, [cost("1", **CODER)])
    problems = [
        Problem(
            "attribution",
            "attribution:2026-10",
            "a b",
            "agent",
            "similar_names: told apart by case",
            "rename",
            cost=D(3),
            currency="USD",
        ),
        Problem("attribution", "attribution:2026-09", "a b", "agent", "similar_names: told apart by case", "rename"),
        Problem("otlp", "/x.json", "item 3", "usage", "unread_usage: a field that is not read", "report it", severity="warning"),
        Problem("focus", "bill.csv", "line 3", "BilledCost", "is no number: 'x'", "mend it"),
    ]
    books.store.append(PROBLEMS, to_frame(problems))
    rows = queries.evidence(of_operator(books)).findings
    assert [(row.finding, row.place, row.cost, row.month) for row in rows] == [
        ("similar_names", "a b", D(3), "2026-10"),
        ("unread_usage", "/x.json item 3", None, None),
    ]


# ── command line and HTTP ───────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["evidence", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_shows_the_same(month: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTCOST_HOME", str(month.home))
    words = run()
    for expected in ("Evidence", "14.5 %", "reading table acme 1.2", "acme 1.2", "count_contradiction", "0.62"):
        assert expected in words
    document = json.loads(run("--format", "json"))
    assert document["totals"] == {"USD": "0.619"}
    assert Evidence.model_validate(document) == queries.evidence(of_operator(month))
    csv = pl.read_csv(run("--format", "csv", "--month", "2026-10").encode(), schema_overrides={"cost": pl.String})
    assert csv.filter(pl.col("evidence") == "table").select("value", "emitter", "cost").rows() == [("table", "acme", "0.01")]
    assert json.loads(run("--format", "json", "--section", "emitters"))[0]["tokens"] == 19_000
    assert "acme" not in run("--section", "findings").split("count_contradiction")[0]
    assert CliRunner().invoke(app, ["evidence", "--month", "2026-13"]).exit_code == 2


def test_the_address_gives_the_same(month: Books) -> None:
    with reach(month) as http:
        client = Client("http://127.0.0.1", http=http)
        assert client.evidence() == queries.evidence(of_operator(month))
        assert (
            client.evidence_file("emitters", month="2026-10")
            .decode()
            .startswith("emitter,emitter_version,source,provider,model,calls,")
        )
        assert http.get("/v1/evidence", params={"month": "October"}).status_code == 400
        for path, bound in (("evidence", {"month": "9999-12"}), ("costs", {"end": "9999-12-31"}), ("gaps", {"start": "0001-01"})):
            assert "too far away" in http.get(f"/v1/{path}", params=bound).json()["detail"]
        answer: httpx.Response = http.get("/v1/evidence", params={"format": "csv"})
        assert answer.headers["content-disposition"] == 'attachment; filename="evidence-figure.csv"'


def test_without_figures_there_is_nothing_to_show(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    report = queries.evidence(of_operator(books))
    assert (report.month, report.parts, report.totals) == (None, [], {})
    assert queries.evidence_table(of_operator(books), "figure").is_empty()
    for month, reason in (("October", "is no date"), ("9999-12", "is too far away"), ("0001-01", "is too far away")):
        with pytest.raises(UsageError, match=reason):
            queries.evidence(of_operator(books), month=month)
    monkeypatch.setenv("ROOTCOST_HOME", str(books.home))
    assert "Nothing is attributed yet" in CliRunner().invoke(app, ["evidence"]).stderr


def test_what_imports_noticed_is_there_before_anything_is_published(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document, its file and the command hold the same findings, also of a month without figures."""
    books.store.append(PROBLEMS, to_frame([Problem("claude-code", "/x.lz4", "file", "", "unread_file: not read", "compress it")]))
    for month in (None, "2030-01", "all"):
        assert [row.finding for row in queries.evidence(of_operator(books), month=month).findings] == ["unread_file"]
        assert queries.evidence_table(of_operator(books), "findings", month=month)["finding"].to_list() == ["unread_file"]
    monkeypatch.setenv("ROOTCOST_HOME", str(books.home))
    result = CliRunner().invoke(app, ["evidence"])
    assert "unread_file" in result.stdout
    assert "Nothing is attributed yet" in result.stderr


@pytest.mark.parametrize("options", [(), ("--format", "csv"), ("--format", "json"), ("--format", "json", "--section", "figure")])
def test_a_month_that_is_not_published_is_named(month: Books, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    monkeypatch.setenv("ROOTCOST_HOME", str(month.home))
    result = CliRunner().invoke(app, ["evidence", "--month", "2030-01", *options])
    assert result.stderr.splitlines()[-1] == "2030-01 is not published. Published: 2026-10"
