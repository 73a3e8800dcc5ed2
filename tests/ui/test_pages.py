"""Each page, against an API with canned answers: what it says, what it says when there is nothing, and when nobody answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from streamlit.testing.v1 import AppTest

from ledger.books import Books
from tests.support import ui_fake_api as fake
from tests.support.api_examples import CHAIN_1, TOKEN, app_of, write_worked_example
from tests.support.ui_shown import Shown
from ui import charts, labels, widgets
from ui.controls import PAGES

GAP = widgets.GAP


def chosen(at: AppTest, name: str) -> str:
    """A selection in the URL; the test harness hands out text or a list of it."""
    value = at.query_params[name]
    return value if isinstance(value, str) else ",".join(value)


def october(**wanted: str) -> Decimal:
    """Sum of October's canned costs that fit."""
    return fake.total([a for a in fake.ATOMS if a["month"] == "2026-10" and all(a[k] == v for k, v in wanted.items())])


def shown(amount: Decimal) -> str:
    return widgets.money(amount, "USD", to_places=2).replace(GAP, " ")


# --- overview ------------------------------------------------------------------------------------------------------------


def test_the_overview_tells_the_month(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    tiles = {
        m.label: (m.value.replace("\\", "").replace(GAP, " "), m.delta.replace("\\", "").replace(GAP, " "))
        for m in page.at.metric
    }
    grown = october() - fake.total([a for a in fake.ATOMS if a["month"] == "2026-09"])
    assert page.at.title[0].value == "October 2026"
    assert tiles["Spend"] == (shown(october()), f"+{shown(grown)} vs September")
    assert tiles["Billed"][0] == shown(october(basis="billed"))
    assert tiles["Estimated"][0] == shown(october(basis="estimated"))
    # by hand: 96.40 uncaptured + 31.117 without owner - 40.00 credit
    assert tiles["Unallocated"][0] == "US$ 87.52"
    assert "Ties out: difference 0" in page.words


def test_the_overview_lists_who_spent_and_what_nobody_explains(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    assert page.rows("Top teams")[0] == ["Dev", "", shown(october(team="Dev")), page.rows("Top teams")[0][3]]
    assert ["Unallocated", "Billed usage that no log records", "US$ 96.40"] in page.rows("Reasons")
    assert ["Owner", "Billed usage that no log records", "US$ 18.00"] in page.rows("Reasons")
    assert ["Unallocated", "Credit", "−US$ 40.00"] in page.rows("Reasons")
    assert page.grids["Budgets"]["caption"] == "2 of 4 at risk"
    assert [row[1] for row in page.rows("Alerts")] == [a.text for a in fake.ALERTS]
    assert page.links("Top teams")[0] == "explorer?by=agent&month=2026-10&filter=team%3DDev"


def test_every_digit_stands_behind_a_figure(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    cost = page.grids["Top teams"]["rows"][0]["cells"][2]
    assert cost["title"].replace(GAP, " ") == f"US$ {october(team='Dev'):,f}".rstrip("0")
    assert page.at.metric[0].help.replace("\\", "").replace(GAP, " ").startswith(f"US$ {october():,f}".rstrip("0"))


def test_the_url_chooses_month_and_view(visit: Any, full_url: str, full: FastAPI) -> None:
    page = visit(full_url, month="2026-09", view="executor")
    assert page.at.title[0].value == "September 2026"
    assert ("GET", "/v1/overview", "month=2026-09&view=executor&basis=effective&top=10") in full.state.requests


def test_a_choice_lands_in_the_url(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    page.at.selectbox(key="pick-month").select("2026-09").run()
    assert chosen(page.at, "month") == "2026-09"
    assert Shown(page.at).at.title[0].value == "September 2026"


def test_budgets_stand_in_the_month_that_is_shown(visit: Any, full_url: str) -> None:
    def care(page: Shown) -> list[str]:
        return next(
            [c.get("sub", "") for c in r["cells"]] for r in page.grids["Budgets"]["rows"] if "Care" in r["cells"][0]["text"]
        )

    assert [s.replace(GAP, " ") for s in care(visit(full_url))] == ["US$ 1,690.45 of US$ 1,500.00", "112.7 % exceeded"]
    assert [s.replace(GAP, " ") for s in care(visit(full_url, month="2026-09"))] == ["US$ 1,203.25 of US$ 1,500.00", "80.2 % ok"]
    page = visit(full_url, "budgets", month="2026-09")
    assert page.rows("Budgets")[0] == ["care-monthly", "ok", "", "80.2 %", "US$ 1,203.25", "US$ 1,500.00", "US$ 296.75"]


@pytest.mark.slow
def test_cost_without_a_name_is_ranked_last(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    assert page.rows("Top teams")[-1][0] == "(no team)"
    assert page.rows("Top agents")[-1][0] == "(no agent)"
    assert page.grids["Top agents"]["rows"][-1]["cells"][0]["tone"] == "muted"


def test_an_agent_that_goes_by_unknown_keeps_its_name(visit: Any) -> None:
    named = fake._atom("2026-10", 3, "900", team="Dev", agent="unknown")
    with fake.serving(fake.make_app(atoms=[*fake.ATOMS, named])) as url:
        names = [row[0] for row in visit(url).rows("Top agents")]
        assert "unknown" in names[:-1]
        assert names[-1] == "(no agent)"


def test_a_running_month_is_not_held_against_a_whole_one(visit: Any) -> None:
    with fake.serving(fake.make_app(now=fake.NOW.replace(month=10, day=31))) as url:
        page = visit(url)
        assert page.at.metric[0].delta == "so far\\: the month is not over"
        assert [c["label"] for c in page.grids["Top teams"]["columns"]] == ["Team", "", "Cost"]


def test_unusual_days_are_shown(visit: Any, full_url: str) -> None:
    page = visit(full_url)
    assert page.rows("Unusual days") == [["2026-10-21", "coder", "US$ 204.50", "US$ 51.02"]]
    assert "from=2026-10-21&until=2026-10-21" in page.links("Unusual days")[0]
    assert visit(full_url, month="2026-09").rows("Unusual days") == []


def test_older_alerts_of_a_budget_and_month_are_folded_away(visit: Any) -> None:
    def alert(number: int, month: str, severity: str, hours: int) -> Any:
        changed = {"alert_id": f"b{number}", "severity": severity, "payload": {"month": month}, "text": f"{severity} in {month}"}
        return fake.ALERTS[0].model_copy(update={**changed, "created_at": fake.NOW - timedelta(hours=hours)})

    rung = [alert(1, "2026-09", "critical", 1), alert(2, "2026-10", "warning", 5), alert(3, "2026-10", "critical", 5)]
    with fake.serving(fake.make_app(rung=rung)) as url:
        page = visit(url)
        assert [row[1] for row in page.rows("Alerts")] == ["critical in 2026-10", "critical in 2026-09"]
        assert [row[1] for row in page.rows("Earlier alerts")] == ["warning in 2026-10"]


def test_small_money_is_written_out_along_an_axis(visit: Any, full_url: str) -> None:
    specs = [json.loads(c.proto.spec) for c in visit(full_url).at.get("vega_lite_chart")]
    assert specs
    for spec in specs:
        assert spec["encoding"]["y"]["axis"]["labelExpr"] == charts.AXIS
        assert "~s" not in json.dumps(spec)


def test_empty_books_say_where_to_send_traces(visit: Any, empty_url: str) -> None:
    told = visit(empty_url, "sources").words
    assert f"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={empty_url}/v1/traces" in told
    assert 'OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=Bearer%20<token>"' in told


def test_nonsense_in_the_url_is_passed_over(visit: Any, full_url: str) -> None:
    page = visit(full_url, month="1999-13", view="sideways", currency="XXX")
    assert page.at.title[0].value == "October 2026"


# --- explorer ------------------------------------------------------------------------------------------------------------


def test_the_explorer_groups_and_leads_deeper(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", by="team")
    rows = page.rows("Costs")
    assert ["Dev", shown(october(team="Dev"))] in rows
    assert page.grids["Costs"]["footer"][0]["cells"][-1]["text"].replace(GAP, " ") == shown(october())
    dev = page.links("Costs")[[row[0] for row in rows].index("Dev")]
    assert dev == "explorer?by=agent&filter=team%3DDev"
    unknown = page.links("Costs")[[row[0] for row in rows].index("(no team)")]
    assert unknown == "explorer?by=agent&filter=team%3D"


def test_the_figures_address_returns_the_figures(visit: Any, full_url: str) -> None:
    import httpx

    page = visit(full_url, "explorer", by="team,model", filter=["team=Dev", "team=Care"])
    answer = httpx.get(page.grids["Costs"]["address"]).json()
    assert Decimal(answer["totals"]["USD"]) == october(team="Dev") + october(team="Care")
    assert len(answer["rows"]) == len(page.rows("Costs"))


def test_a_filter_can_be_taken_off(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", by="agent", filter=["team=Dev"])
    assert {row[0] for row in page.rows("Costs")} == {"coder", "reviewer"}
    page.at.button(key="drop-0").click().run()
    assert "filter" not in page.at.query_params
    assert len(Shown(page.at).rows("Costs")) > 2


def test_time_is_cut_as_asked(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", by="provider", granularity="month", month="all")
    assert {row[0] for row in page.rows("Costs")} == {"2026-09", "2026-10"}
    assert page.at.get("vega_lite_chart")


def test_a_range_of_days_includes_both(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", by="team", month="range", **{"from": "2026-10-02", "until": "2026-10-03"})
    assert "start=2026-10-02&end=2026-10-04" in page.grids["Costs"]["address"]


def test_files_are_offered(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer")
    links = {b.proto.label: b.proto.url for b in page.at.get("link_button")}
    assert list(links) == ["Download CSV", "Download Parquet", "Download JSON"]
    assert links["Download CSV"] == f"{page.grids['Costs']['address'].split('&format')[0]}&format=csv"


def test_currencies_stand_apart(visit: Any) -> None:
    with fake.serving(fake.make_app(atoms=[*fake.ATOMS, *fake.EURO])) as url:
        page = visit(url, "explorer", by="team")
        assert [m.value.replace("\\", "").replace(GAP, " ") for m in page.at.metric] == [shown(october()), "€ 12.50"]
        assert [row["cells"][0]["text"] for row in page.grids["Costs"]["footer"]] == ["Total USD", "Total EUR"]
        assert {m.label for m in visit(url).at.metric} >= {"Spend"}


def test_nothing_found_says_what_to_do(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", filter=["team=Nobody at all"])
    assert "Take a filter off or choose another period" in page.words


# --- chains --------------------------------------------------------------------------------------------------------------


def test_chains_are_listed_and_paged(visit: Any, full_url: str) -> None:
    page = visit(full_url, "chains")
    assert page.rows("Chains")[0] == ["answer ticket", "support-bot", "2026-10-25 09:30 UTC", "7", "4", "18,640", "US$ 0.1294"]
    assert page.grids["Chains"]["caption"] == "1–50 of 120"
    page.at.button(key="page-on").click().run()
    assert chosen(page.at, "page") == "2"
    assert Shown(page.at).grids["Chains"]["caption"] == "51–100 of 120"


def test_a_chain_is_a_tree_with_dollars(visit: Any, full_url: str) -> None:
    page = visit(full_url, "chains", chain=fake.CHAIN_ID)
    rows = page.rows("Chain")
    assert [cell["cells"][0].get("depth", 0) for cell in page.grids["Chain"]["rows"]] == [0, 1, 1, 2, 2, 2, 1]
    assert rows[0] == ["answer ticket", "support-bot", "", "", "–", "US$ 0.1181"]
    assert rows[1] == ["chat claude-sonnet-4-6", "support-bot", "claude-sonnet-4-6", "3,520", "US$ 0.0210", "US$ 0.0210"]
    assert rows[2][0] == "research link"
    assert rows[5] == [
        "chat house-model No price is known for this model and kind of usage",
        "researcher",
        "house-model",
        "2,100",
        "no price",
        "–",
    ]
    # own costs add up to the chain: 0.0210 + 0.0871 + 0.0100
    assert page.at.metric[0].help.replace("\\", "").replace(GAP, " ") == "US$ 0.1181"
    assert page.grids["Why"]["rows"][2]["cells"][0]["sub"] == "support-bot of Care started it."


def test_an_explanation_is_steps_that_add_up_and_lead_on(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explain", filter="team=Care", month="2026-10")
    assert page.rows("Why") == [
        ["Charges", "US$ 0.018"],
        ["line 2 of october.csv", "US$ 0.018"],
        ["Who started it", ""],
        ["3 more", "US$ 0.018"],
    ]
    assert page.links("Why")[1] == "explain?ref=c7"
    assert page.addresses == [
        f"{full_url}/v1/explain/cell?by=&view=initiator&granularity=total&basis=effective&filter=team%3DCare&most=20"
    ]
    assert "Everything" not in visit(full_url, "explain", ref="c7").words
    with_rules = Shown(page.at.toggle(key="rules").set_value(True).run())
    assert [row[1] for row in with_rules.rows("Why")] == ["RA-1", "", "CH-4", ""], "rule ids are shown on request"


def test_every_cost_of_the_explorer_leads_to_its_explanation(visit: Any, full_url: str) -> None:
    page = visit(full_url, "explorer", by="team", month="2026-10")
    grid = next(g for g in page.grids.values() if g["columns"][-1]["label"] == "Effective cost")
    leads = [row["cells"][-1]["href"] for row in grid["rows"]]
    assert any(
        href.startswith("explain?by=team&view=initiator&basis=effective&start=2026-10&end=2026-11&filter=team%3DCare")
        for href in leads
    )
    assert all("filter=currency%3D" in href for href in leads)


def test_a_chain_that_is_not_there_is_a_sentence(visit: Any, full_url: str) -> None:
    page = visit(full_url, "chains", chain="nowhere")
    assert "Not found: no chain 'nowhere'." in page.words
    assert "What to do: look for it on the page of chains." in page.words


# --- balance, budgets, sources -------------------------------------------------------------------------------------------


def test_the_balance_ties_out(visit: Any, full_url: str) -> None:
    page = visit(full_url, "balance")
    assert "Ties out: difference 0 in all cost columns of 2 providers." in page.words
    aws = next(row for row in page.rows("Balance") if row[1] == "AWS")
    assert aws[3:8] == [
        shown(october(provider="AWS", cost_class="metered", basis="billed")),
        "US$ 18.00",
        "US$ 210.00",
        "US$ 75.50",
        "US$ 87.52",
    ]
    assert aws[8:] == ["0", "US$ 0.0000000000003"]
    assert ["Unallocated", "A product on the bill that RootCost does not know yet", "AWS", "US$ 31.12"] in page.rows("Reasons")


@pytest.mark.slow
def test_a_difference_is_not_hidden(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [r.model_copy(update={"difference": Decimal("-0.000000000001")}) for r in fake.balance(fake.ATOMS)]
    monkeypatch.setattr(fake, "balance", lambda _: rows)
    with fake.serving(fake.make_app()) as url:
        assert "differ by −US$ 0.000000000001" in visit(url, "balance").words
        assert "Does not tie out" in visit(url).words


def test_budgets_show_how_they_stand(visit: Any, full_url: str) -> None:
    page = visit(full_url, "budgets", budget="care-monthly")
    assert page.rows("Budgets")[0] == ["care-monthly", "exceeded", "", "112.7 %", "US$ 1,690.45", "US$ 1,500.00", "−US$ 190.45"]
    assert page.rows("Budgets")[-1] == ["growth", "not evaluated", "", "–", "–", "US$ 50.00", "–"]
    assert page.rows("Months")[0] == ["October 2026", shown(october(team="Care"))]
    assert "Revision 2" in page.words
    chart = json.loads(page.at.get("vega_lite_chart")[0].proto.spec)
    assert chart["layer"][0]["encoding"]["x"]["sort"] == ["September 2026", "October 2026"]


def fill(page: Shown, **fields: str) -> AppTest:
    for key, value in fields.items():
        page.at.text_input(key=f"budget-{key.replace('_', '-')}").input(value)
    return page.at.button(key="save-budget").click().run()


def test_a_budget_is_set_up_with_the_token(visit: Any) -> None:
    with fake.serving(fake.make_app()) as url:
        at = fill(visit(url, "budgets"), name="dev-tools", scope_name="Dev", amount="0.30", token=fake.TOKEN)
        page = Shown(at)
        assert "Saved: dev-tools, US$ 0.30 a month." in page.words
        assert ["dev-tools", "not evaluated", "", "–", "–", "US$ 0.30", "–"] in page.rows("Budgets")
        assert chosen(at, "budget") == "dev-tools"


@pytest.mark.slow
def change(at: AppTest, amount: str) -> AppTest:
    """Types another limit of care-monthly, and saves."""
    at.text_input(key="change-care-monthly-amount").input(amount)
    at.text_input(key="change-care-monthly-token").input(fake.TOKEN)
    return at.button(key="save-change-care-monthly").click().run()


def test_the_second_of_two_people_sees_what_the_first_changed(visit: Any) -> None:
    """Nothing that was typed is lost; saved again it replaces what is shown, and the next edit begins with what is in force."""
    with fake.serving(fake.make_app()) as url:
        first, second = (visit(url, "budgets", budget="care-monthly").at for _ in range(2))
        assert "Saved: care-monthly, US$ 1,600.00 a month." in Shown(change(first, "1600")).words
        late_words = Shown(change(second, "1700")).words
        assert "Not saved: somebody has changed this budget meanwhile: limit 1,500 → 1,600." in late_words
        assert second.text_input(key="change-care-monthly-amount").value == "1700"
        assert "Saved: care-monthly, US$ 1,700.00 a month." in Shown(change(second, "1700")).words
        assert second.text_input(key="change-care-monthly-amount").value == "1700"
        assert "Somebody has changed it since you opened it" in Shown(first.run()).words
        first.button(key="change-care-monthly-reopen").click().run()
        assert first.text_input(key="change-care-monthly-amount").value == "1700"


def test_a_budget_that_was_ended_meanwhile_is_set_up_anew(visit: Any) -> None:
    app = fake.make_app()
    with fake.serving(app) as url:
        at = visit(url, "budgets", budget="care-monthly").at
        httpx.delete(f"{url}/v1/budgets/care-monthly")
        assert "Somebody has ended this budget meanwhile." in Shown(change(at, "1800")).words
        assert at.text_input(key="change-care-monthly-amount").value == "1800"
        assert "Saved: care-monthly, US$ 1,800.00 a month." in Shown(change(at, "1800")).words


def test_without_the_token_it_says_so(visit: Any) -> None:
    with fake.serving(fake.make_app()) as url:
        wrong = Shown(fill(visit(url, "budgets"), name="x", scope_name="Dev", amount="1", token="guess"))
        assert "That is not the token. Paste the content of the file `token` in the ledger's folder" in wrong.words
        assert (
            "Paste the content of the file `token` in the ledger's folder (e.g. `.rootcost/token`)."
            in Shown(fill(visit(url, "budgets"), name="x", scope_name="Dev", amount="1")).words
        )
        assert (
            "'1,50' is no amount" in Shown(fill(visit(url, "budgets"), name="x", scope_name="D", amount="1,50", token="t")).words
        )


@pytest.mark.slow
def test_what_the_money_stands_on_is_one_figure(visit: Any, full_url: str) -> None:
    page = visit(full_url, "sources", month="2026-10")
    report = fake.evidence("2026-10", fake.ATOMS)
    dollars = [part for part in report.parts if part.currency == "USD"]
    rows = [row for row in page.rows("Evidence") if row[1].startswith("US$")]
    assert [(row[0], row[1]) for row in rows] == [
        (label, shown(part.cost)) for label, part in zip(("Evidence", "A table", "Inference", "Nothing"), dollars, strict=True)
    ]
    assert sum(part.cost for part in dollars) == report.totals["USD"]
    assert rows[-1][4] == "364"
    shares = [widgets.percent(part.percent) for part in dollars]
    figure = f"{shares[0]} of {widgets.money(report.totals['USD'], 'USD')} stands on evidence, {shares[1]} on a table, "
    assert f"{figure}{shares[2]} on inference, {shares[3]} on nothing; the money of".replace(GAP, " ") in page.words
    assert f"{full_url}/v1/evidence?month=2026-10&basis=effective" in page.addresses
    charts_drawn = [json.loads(c.proto.spec) for c in page.at.get("vega_lite_chart")]
    assert any(c["encoding"]["color"]["scale"]["domain"] == list(labels.EVIDENCE.values()) for c in charts_drawn)
    assert page.grids["What decides"]["rows"][1]["cells"][0]["sub"] == f"Counts of {fake.HOSTILE} 1.2"
    hostile, bare = page.rows("Emitters")
    assert hostile[0].startswith("<img")
    assert hostile[5:] == ["3 contradict the table 616 by the table", "19 of 20 agree", "+1.50"]
    assert bare[4:] == ["no price", "proven", "none sent", "none sent"]
    assert page.rows("Findings")[0][:2] == ["reported cost differs", "US$ 4.00"]
    assert visit(full_url, "sources", month="all").addresses.count(f"{full_url}/v1/evidence?month=all&basis=effective") == 1


def test_without_a_published_month_the_money_stands_on_nothing_yet(visit: Any, empty_url: str) -> None:
    page = visit(empty_url, "sources")
    assert "No month is published yet" in page.words
    assert "Evidence" not in page.grids


@pytest.mark.slow
def test_sources_show_problems_with_their_remedy(visit: Any, full_url: str) -> None:
    page = visit(full_url, "sources")
    assert ["aws-cur", "Bill", "2026-11-02 03:30 UTC", "30 h ago"] in page.rows("Sources")
    assert [row[:2] for row in page.rows("On schedule")] == [["aws-prod", "ok"], [fake.HOSTILE, "failing"]]
    runs = page.rows("Runs of sources")
    assert [(row[0], row[2], row[3], row[7]) for row in runs] == [
        ("aws-prod", "done", "1,200", ""),
        ("gateway", "failed", "0", "s3://logs: Access Denied"),
    ]
    assert page.grids["Runs of sources"]["rows"][0]["cells"][5]["title"].replace("\xa0", " ") == "US$ 1,234.567890123456"
    assert page.rows("Problems")[0][:4] == [
        "left out",
        "s3://bills/cur/2026-10/part-3.parquet",
        "'12,50' is no decimal number",
        "write it as 12.50",
    ]
    assert page.rows("Runs")[1][4] == "the store did not answer"
    assert page.rows("Unregistered agents")[0][0] == fake.HOSTILE
    kept = visit(full_url, "sources", severity="warning")
    assert [row[0] for row in kept.rows("Problems")] == ["kept"]
    assert kept.grids["Problems"]["columns"][0]["label"] == "Severity"
    assert kept.grids["Problems"]["rows"][0]["cells"][3]["prose"]


# --- all of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", list(PAGES))
def test_every_page_names_the_address_of_its_figures(visit: Any, full_url: str, page: str) -> None:
    addresses = visit(full_url, page).addresses
    assert addresses
    assert all(address.startswith(f"{full_url}/v1/") for address in addresses)


def test_alerts_are_listed_with_receivers_and_dead_letters_and_answered(visit: Any) -> None:
    app = fake.make_app()
    with fake.serving(app) as url:
        page = visit(url, "alerts")
        assert page.rows("Alerts")[0][0].endswith("critical")
        assert page.rows("Receivers") == [["oncall", "Care", "failing", "2", "1", "HTTP 503"]]
        assert page.rows("Dead letters")[0][2] == "dead"
        at = visit(url, "alerts", alert="a1").at
        at.text_input(key="answer-text").set_value("mine")
        at.text_input(key="answer-token").set_value(fake.TOKEN)
        at.button(key="answer-acknowledge").click()
        at.run()
        assert ("POST", "/v1/alerts/a1/responses") in [request[:2] for request in app.state.requests]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("", "rootcost demo"),
        ("explorer", "rootcost attribute"),
        ("chains", "rootcost ingest litellm payloads.jsonl"),
        ("explain", "rootcost ingest litellm payloads.jsonl"),
        ("balance", "rootcost ingest focus bill.csv"),
        ("budgets", "Set a limit"),
        ("alerts", "Receivers"),
        ("sources", "rootcost ingest aws-cur s3://bucket/prefix"),
    ],
)
def test_empty_books_say_what_to_do_next(visit: Any, empty_url: str, page: str, said: str) -> None:
    assert said in visit(empty_url, page).words


@pytest.mark.parametrize("page", list(PAGES))
def test_where_nobody_answers_it_says_how_to_start(visit: Any, page: str) -> None:
    told = visit(f"http://127.0.0.1:{fake.take_port()}", page).words
    assert "RootCost does not answer" in told
    assert "rootcost serve" in told


@pytest.mark.slow
def test_an_error_of_the_api_is_a_sentence(visit: Any) -> None:
    app = FastAPI()

    @app.get("/v1/{rest:path}")
    def broken(rest: str) -> Any:
        return fake.problem(503, "The store does not answer", "the bucket is gone", "check the setting store.uri")

    with fake.serving(app) as url:
        for page in PAGES:
            told = visit(url, page).words
            assert "The store does not answer: the bucket is gone." in told
            assert "check the setting store.uri" in told


# --- the product's own API -----------------------------------------------------------------------------------------------


@pytest.fixture
def worked_example_url(books: Books) -> Iterator[str]:
    """The real API over the specification's worked example."""
    write_worked_example(books)
    with fake.serving(app_of(books)) as url:
        yield url


@pytest.mark.slow
def test_the_worked_example_is_on_the_page(visit: Any, worked_example_url: str) -> None:
    """One hour of Bedrock for $0.03: initiators Care 0.018, Dev 0.009; 0.003 that nobody logged."""
    by_initiator = visit(worked_example_url, "explorer", by="team", month="2026-10")
    assert {row[0]: row[1] for row in by_initiator.rows("Costs")}.items() >= {"Care": "US$ 0.018", "Dev": "US$ 0.009"}.items()
    by_executor = visit(worked_example_url, "explorer", by="team", month="2026-10", view="executor")
    assert {row[0]: row[1] for row in by_executor.rows("Costs")}.items() >= {
        "Care": "US$ 0.006",
        "Data": "US$ 0.012",
        "Dev": "US$ 0.009",
    }.items()
    tree = visit(worked_example_url, "chains", chain=CHAIN_1)
    assert tree.rows("Chain")[0][5] == "US$ 0.018"


@pytest.mark.parametrize("page", list(PAGES))
def test_every_page_reads_the_real_api(visit: Any, worked_example_url: str, page: str) -> None:
    shown = visit(worked_example_url, page)
    assert not shown.at.error, shown.words
    assert shown.addresses


@pytest.mark.parametrize("page", list(PAGES))
def test_every_page_reads_real_empty_books(visit: Any, books: Books, page: str) -> None:
    with fake.serving(app_of(books)) as url:
        shown = visit(url, page)
        assert not shown.at.error, shown.words


@pytest.mark.slow
def test_a_budget_reaches_the_real_books(visit: Any, worked_example_url: str) -> None:
    page = Shown(fill(visit(worked_example_url, "budgets"), name="dev", scope_name="Dev", amount="0.005", token=TOKEN))
    assert "Saved: dev, US$ 0.005 a month." in page.words
    refused = Shown(fill(page, name="dev-2", scope_name="Dev", amount="0.005", token="guess"))
    assert "token" in refused.words.lower()
