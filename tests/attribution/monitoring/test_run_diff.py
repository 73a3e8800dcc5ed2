"""Runs beside each other: why they differ, cause by cause, to the last digit; provisional, final and restated bills; days and months (TI)."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from api.queries import CostQuery, costs, of_operator
from attribution.monitoring.run_diff import differences
from attribution.run import attribute
from ledger import registry
from ledger.books import Books
from ledger.settings import AttributionSettings, ReportSettings, SharedRule
from ledger.tables import BALANCE, COSTS
from tests.attribution.test_rules import OWNERS, call, configure, rows, total
from tests.support.books_by_hand import at, charge, charges, price, spans, write

D = Decimal
KNOWN = {"account_id": "1111", "region": "us-east-1"}
LIST = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
SUPPORT = {"service_name": "AWS Support", "sku_meter": "Support", "consumed_unit": None, "sub_account_id": "9999"}


def moved(books: Books, old: str, new: str) -> dict[str, dict[Any, Decimal]]:
    """Cause → team → what moved; the bill's own rows left out."""
    out: dict[str, dict[Any, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for d in differences(books, "2026-10", old, new):
        if d.cost_class is not None:
            out[d.cause][d.team] += d.moved
    return {cause: dict(teams) for cause, teams in out.items()}


def sums(books: Books, run: str) -> Decimal:
    return Decimal(str(books.store.scan(COSTS, {"run_id": [run]}).collect()["effective_cost"].sum()))


@pytest.fixture
def first(books: Books) -> str:
    """Care used 1 000 and Dev 2 000 of 3 000 tokens at 0.009, and support of 12 is nobody's."""
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN), call(2, 2, None, 2000, agent_name="coder", **KNOWN))
    write(books, spans=facts, charges=charges(charge("0.009", tokens_k="3"), charge("12", **SUPPORT)), owners=OWNERS, prices=LIST)
    return attribute(books).run_id


def share_support(books: Books) -> None:
    configure(books, attribution=AttributionSettings(shared=[SharedRule(name="support", service="AWS Support")]))


def restate(books: Books) -> None:
    """The tokens become 0.012 for 4 000."""
    write(books, charges=charges(charge("0.012", tokens_k="4"), charge("12", **SUPPORT)))


def use_more(books: Books) -> None:
    """Care's thousand more, late."""
    write(books, spans=spans(call(3, 3, None, 1000, agent_name="support-bot", **KNOWN)))


def test_ti2_one_changed_input_is_the_whole_cause(books: Books, first: str) -> None:
    share_support(books)
    told = moved(books, first, attribute(books).run_id)
    assert told == {"rule": {None: D(-12), "Care": D(4), "Dev": D(8)}}


@pytest.mark.slow
def test_ti2_three_causes_at_once_each_have_their_part(books: Books, first: str) -> None:
    """In order: the late call makes 4 000 logged for 3 000 billed (Care 1/2, Dev 1/2 of 0.009, from 1/3 and 2/3); the restated bill of
    0.012 for 4 000 adds 0.0015 to each; the rule shares 12 evenly by then.
    """
    use_more(books)
    restate(books)
    share_support(books)
    second = attribute(books).run_id
    told = moved(books, first, second)
    assert told == {
        "new usage": {"Care": D("0.0015"), "Dev": D("-0.0015")},
        "restated charge": {"Care": D("0.0015"), "Dev": D("0.0015")},
        "rule": {None: D(-12), "Care": D(6), "Dev": D(6)},
    }
    assert sum(sum(teams.values()) for teams in told.values()) == sums(books, second) - sums(books, first) == D("0.003")
    (bill,) = [d for d in differences(books, "2026-10", first, second) if d.cost_class is None]
    assert (bill.cause, bill.moved) == ("restated charge", D("0.003"))
    back = moved(books, second, first)
    assert sum(sum(teams.values()) for teams in back.values()) == D("-0.003")


@pytest.mark.slow
def test_ti2_usage_and_registry_are_one_pass_and_told_together_apart_from_the_bill(books: Books, first: str) -> None:
    use_more(books)
    registry.import_text(books, "agent,team,valid_from\ncoder,Data,2026-10-01\n", uri="r", actor="test")
    restate(books)
    told = moved(books, first, attribute(books).run_id)
    assert told == {
        "new usage + registry": {"Care": D("0.0015"), "Dev": D("-0.006"), "Data": D("0.0045")},
        "restated charge": {"Care": D("0.0015"), "Data": D("0.0015")},
    }


@pytest.mark.slow
def test_ti2_a_new_price_moves_estimates_only(books: Books, first: str) -> None:
    late = call(4, 4, None, 1000, agent_name="coder", start_time=at(20), **KNOWN)
    write(books, spans=spans(late))
    second = attribute(books).run_id
    assert moved(books, first, second) == {"new usage": {"Dev": D("0.003")}}
    write(books, prices=[price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000006", valid_from=at(0))])
    restate(books)
    third = attribute(books).run_id
    told = moved(books, second, third)
    assert set(told) <= {"price", "restated charge"}
    assert sum(sum(teams.values()) for teams in told.values()) == sums(books, third) - sums(books, second)


def test_ti2_what_is_no_longer_kept_is_told_as_one_and_still_sums(books: Books, first: str) -> None:
    """The settings of the first run are gone from the audit trail."""
    import sqlalchemy as sa

    from ledger.db import Audit

    with books.database.session() as session:
        session.execute(sa.delete(Audit))
    restate(books)
    share_support(books)
    second = attribute(books).run_id
    told = moved(books, first, second)
    assert list(told) == ["restated charge + rule"]
    assert sum(told["restated charge + rule"].values()) == sums(books, second) - sums(books, first)


@pytest.mark.slow
def test_ti2_the_same_month_twice_says_nothing(books: Books, first: str) -> None:
    assert differences(books, "2026-10", first, attribute(books, force=True).run_id) == []


@pytest.mark.slow
def test_a_provisional_bill_grows_into_the_final_one_and_every_run_balances(books: Books) -> None:
    """Two of four hours are billed at first, then all, then restated as final; estimates give way hour by hour."""
    facts = spans(*(call(h, h, None, 1000, agent_name="coder", start_time=at(h), **KNOWN) for h in (1, 2, 3, 4)))
    write(books, spans=facts, prices=LIST)

    def hour(h: int, cost: str, *, final: bool) -> dict[str, Any]:
        return charge(cost, tokens_k="1", charge_period_start=at(h), charge_period_end=at(h + 1), final=final)

    seen = []
    for bill in (
        [hour(h, "0.0027", final=False) for h in (1, 2)],
        [hour(h, "0.0027", final=False) for h in (1, 2, 3, 4)],
        [hour(h, "0.0030", final=True) for h in (1, 2, 3, 4)],
    ):
        write(books, charges=charges(*bill))
        report = attribute(books)
        assert report.balance["difference"].abs().sum() == 0
        seen.append(total(books, "basis"))
    assert seen == [
        {"billed": D("0.0054"), "estimated": D("0.0054")},
        {"billed": D("0.0108")},
        {"billed": D("0.0120")},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "Europe/Berlin", "Pacific/Kiritimati"])
def test_ti1_the_days_of_a_zone_sum_to_its_month_and_the_months_to_all(books: Books, zone: str) -> None:
    """Hourly charges over both ends of October, also over the end of summer time: 2^n dollars an hour, so no hour can hide."""
    configure(books, report=ReportSettings(timezone=zone))
    hours = [at(0) + timedelta(days=d, hours=h) for d in (-5, -4, 19, 20, 25, 26, 27) for h in (0, 5, 11, 18, 19, 23)]
    bill = [
        charge(
            str(2**n),
            service_name="Amazon S3",
            sku_meter="Disk",
            consumed_unit=None,
            charge_period_start=start,
            charge_period_end=start + timedelta(hours=1),
            billing_month=f"{start:%Y-%m}",
        )
        for n, start in enumerate(hours)
    ]
    write(books, charges=charges(*bill))
    attribute(books)

    def figure(start: str | None, end: str | None, granularity: str) -> pl.DataFrame:
        period = {"start": start, "end": end, "granularity": granularity, "timezone": zone}
        return costs(of_operator(books), CostQuery.parse(by="provider", calendar="usage", **period))  # type: ignore[arg-type]

    month = figure("2026-10", "2026-11", "total")["cost"].sum()
    days = figure("2026-10", "2026-11", "day")
    assert days["cost"].sum() == month
    assert figure("2026-10", "2026-11", "hour")["cost"].sum() == month
    assert {d[:7] for d in days["period_start"]} == {"2026-10"}
    whole = D(2 ** len(hours) - 1)
    assert figure(None, None, "month")["cost"].sum() == figure(None, None, "total")["cost"].sum() == whole
    one_by_one = [
        figure(f"2026-10-{d:02d}", f"2026-10-{d + 1:02d}" if d < 31 else "2026-11-01", "total")["cost"].sum()
        for d in range(1, 32)
    ]
    assert sum(one_by_one, D(0)) == month


def test_mo2_each_currency_and_provider_balances_on_its_own(books: Books) -> None:
    bill = charges(
        charge("1.5", **SUPPORT),
        charge("2.25", **SUPPORT, billing_currency="EUR"),
        charge("-0.25", **SUPPORT, billing_currency="EUR", charge_category="Credit"),
        charge("7", service_name="gpt", sku_meter="x", provider_name="OpenAI"),
    )
    write(books, charges=bill)
    attribute(books)
    told = books.store.scan(BALANCE).filter(pl.col("cost_column") == "effective_cost").collect()
    assert told.select("currency", "provider", "charges_in", "difference").sort("charges_in").rows() == [
        ("USD", "AWS", D("1.5"), D(0)),
        ("EUR", "AWS", D(2), D(0)),
        ("USD", "OpenAI", D(7), D(0)),
    ]
    assert rows(books, "currency", "effective_cost", reason="credit") == [("EUR", D("-0.25"))]
