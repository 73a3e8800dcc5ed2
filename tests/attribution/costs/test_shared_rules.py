"""Shared-cost rules: what they take, how they split, their versions, their contradictions, and what other rules would change (RA-4)."""

from __future__ import annotations

import json
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from attribution.costs.shared_rules import check, compare_costs, rule_versions
from attribution.run import attribute, preview
from ledger.books import Books
from ledger.errors import SettingsError
from ledger.settings import AttributionSettings, SharedRule, read_rules
from ledger.tables import BALANCE, COSTS, PROBLEMS
from rootcost.cli import app
from tests.attribution.test_rules import OWNERS, call, configure, rows, total
from tests.support.books_by_hand import at, charge, charges, span, spans, write

D = Decimal
KNOWN = {"account_id": "1111", "region": "us-east-1"}
SUPPORT = {"service_name": "AWS Support", "sku_meter": "Support", "consumed_unit": None, "sub_account_id": "9999"}


def share(books: Books, *rules: SharedRule) -> None:
    configure(books, attribution=AttributionSettings(shared=list(rules)))


def shares(books: Books, **where: Any) -> dict[Any, Decimal]:
    return total(books, "initiator_team", cost_class="shared", **where)


def two_teams(books: Books, *more: dict[str, Any]) -> None:
    """Care used 1 000 tokens in one call, Dev 2 000 in three; then the charges told."""
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot", **KNOWN),
        *(call(2 + n, 2, None, 500 * (1 + n % 2), agent_name="coder", **KNOWN) for n in range(3)),
    )
    bill = charges(charge("0.009", tokens_k="3"), *more)
    write(books, spans=facts, charges=bill, owners=OWNERS)


@pytest.mark.parametrize(
    ("rule", "care", "dev"),
    [
        ({"method": "proportional"}, "4", "8"),
        ({"method": "even"}, "6", "6"),
        ({"method": "even", "teams": ["Care", "Data"]}, "6", None),
        ({"method": "fixed", "shares": {"Care": "1", "Dev": "2"}}, "4", "8"),
        ({"method": "usage"}, "4", "8"),
        ({"method": "usage", "usage": "input_tokens"}, "4", "8"),
        ({"method": "usage", "usage": "calls"}, "3", "9"),
        ({"method": "usage", "usage": "calls", "teams": ["Dev"]}, None, "12"),
    ],
)
def test_ra4_twelve_dollars_of_support_by_each_method(
    books: Books, rule: dict[str, Any], care: str | None, dev: str | None
) -> None:
    """Care: 1 000 of 3 000 tokens, 0.003 of 0.009, one of four calls."""
    share(books, SharedRule(name="support", service="AWS Support", **rule))
    two_teams(books, charge("12", **SUPPORT))
    attribute(books)
    told = shares(books)
    assert (told.get("Care"), told.get("Dev")) == (care and D(care), dev and D(dev))
    assert sum(told.values()) == D(12)


def test_ra4_a_gateway_is_shared_by_the_seconds_its_users_held_something(books: Books) -> None:
    """support-bot held the machine for 45 minutes, coder for 15: a NAT gateway of 8 goes 3 : 1."""
    share(books, SharedRule(name="nat", sku="NatGateway-Hours", method="usage", usage="seconds"))
    facts = spans(
        span(1, 1, agent_name="support-bot", resource_id="i-gpu", end_time=at(10, 45)),
        span(2, 2, agent_name="coder", resource_id="i-gpu", start_time=at(10, 45), end_time=at(11)),
    )
    nat = charge("8", sku_meter="NatGateway-Hours", service_name="Amazon EC2", consumed_unit="Hrs")
    write(books, spans=facts, charges=charges(nat), owners=OWNERS)
    attribute(books)
    assert shares(books) == {"Care": D(6), "Dev": D(2)}


@pytest.mark.parametrize(
    ("scope", "taken"),
    [
        ({"account": "1111"}, "1"),
        ({"sku": "Disk"}, "3"),
        ({"tags": {"env": "prod"}}, "4"),
        ({"tags": {"env": "prod", "app": "crm"}}, "0"),
        ({"reason": "fee"}, "8"),
        ({"provider": "Amazon Web Services"}, "15"),
        ({"charge_category": "Purchase"}, "8"),
    ],
)
def test_ra4_a_rule_takes_only_what_it_names(books: Books, scope: dict[str, Any], taken: str) -> None:
    def storage(cost: str, **told: Any) -> dict[str, Any]:
        return charge(
            cost,
            **{"service_name": "Amazon S3", "sku_meter": "Requests", "consumed_unit": "GB-Mo", "sub_account_id": "2", **told},
        )

    share(books, SharedRule(name="r", **scope))
    two_teams(
        books,
        storage("1", sub_account_id="1111"),
        storage("2", sku_meter="Disk"),
        storage("4", tags='{"env":"prod"}'),
        storage("8", charge_category="Purchase"),
        *([storage("1", sku_meter="Disk")] if scope.get("sku") else []),
    )
    attribute(books)
    assert sum(shares(books).values()) == D(taken)


def test_ra4_a_platform_team_shares_on_what_it_owns_and_takes_no_part_itself(books: Books) -> None:
    """Growth owns 9 of storage by tag and itself used half of all tokens; Care and Dev, 1 : 2, pay for the storage."""
    share(books, SharedRule(name="platform", source_team="Growth", teams=["Care", "Dev", "Growth"]))
    storage = {"service_name": "Amazon S3", "sku_meter": "Disk", "consumed_unit": "GB-Mo"}
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot", **KNOWN),
        call(2, 2, None, 2000, agent_name="coder", **KNOWN),
        call(3, 3, None, 3000, agent_name="mailer", **KNOWN),
    )
    bill = charges(
        charge("0.018", tokens_k="6"),
        charge("9", **storage, tags='{"team":"Growth"}'),
        charge("5", **storage, tags='{"team":"Data"}'),
        charge("7", **storage),
    )
    write(books, spans=facts, charges=bill, owners=OWNERS + "mailer,Growth\n")
    attribute(books)
    assert shares(books) == {"Care": D(3), "Dev": D(6)}
    assert total(books, "initiator_team", cost_class="owner") == {"Data": D(5)}
    assert total(books, "cost_class")["unallocated"] == D(7), "a rule with a source takes nothing that nobody owns"


@pytest.mark.slow
def test_ra4_where_the_source_is_the_only_target_its_cost_stays_with_it(books: Books) -> None:
    share(books, SharedRule(name="alone", source_team="Growth", method="fixed", shares={"Growth": D(1)}))
    storage = charge("9", service_name="Amazon S3", sku_meter="Disk", consumed_unit="GB-Mo", tags='{"team":"Growth"}')
    two_teams(books, storage)
    attribute(books)
    assert total(books, "initiator_team", cost_class="owner") == {"Growth": D(9)}
    told = books.store.scan(PROBLEMS).filter(pl.col("place") == "rule alone").collect()["reason"].to_list()
    assert [t.split(":")[0] for t in told] == ["target_is_source"]


def test_ra4_an_owner_found_by_its_principal_pays_for_the_team_it_belongs_to_at_the_time(books: Books) -> None:
    """The principal was registered with Dev's coder; coder went over to Data on the 3rd."""
    owners = "agent,team,valid_from,principals\ncoder,Dev,2026-01-01,arn:p\ncoder,Data,2026-10-03,\n"
    period = {"charge_period_start": at(10, day=1), "charge_period_end": at(11, day=1)}
    disk = {"service_name": "Amazon S3", "sku_meter": "Disk", "consumed_unit": None, "principal": "arn:p"}
    write(books, charges=charges(charge("1", **disk, **period), charge("2", **disk)), owners=owners)
    attribute(books)
    assert total(books, "initiator_team", cost_class="owner") == {"Dev": D(1), "Data": D(2)}


@pytest.mark.slow
def test_ra4_zero_weights_fall_to_the_next_rule_and_other_currencies_to_none(books: Books) -> None:
    """Nobody spent euros, so the euros of support find no weights by cost; by tokens they do."""
    euros = charge("6", **SUPPORT, billing_currency="EUR")
    share(books, SharedRule(name="by cost", service="AWS Support"))
    two_teams(books, euros)
    attribute(books)
    assert total(books, "cost_class", currency="EUR") == {"unallocated": D(6)}
    share(
        books,
        SharedRule(name="by seconds", service="AWS Support", method="usage", usage="seconds"),
        SharedRule(name="by tokens", service="AWS Support", method="usage"),
    )
    attribute(books)
    assert shares(books, currency="EUR") == {"Care": D(2), "Dev": D(4)}


def test_ra4_a_bill_without_effective_cost_is_shared_by_what_it_bills(books: Books) -> None:
    share(books, SharedRule(name="support", service="AWS Support"))
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN), call(2, 2, None, 2000, agent_name="coder", **KNOWN))
    bill = charges(charge("0.009", tokens_k="3", effective_cost=D(0)), charge("12", **SUPPORT, effective_cost=D(0)))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert total_billed(books) == {"Care": D(4), "Dev": D(8)}


def total_billed(books: Books) -> dict[str, Decimal]:
    return dict(rows(books, "initiator_team", "billed_cost", cost_class="shared"))


def test_ra4_idle_capacity_is_shared_only_by_name_and_stays_idle(books: Books) -> None:
    gpu = {
        "sku_meter": "USE1-BoxUsage:g5.xlarge",
        "consumed_unit": "Hrs",
        "consumed_quantity": D(1),
        "service_name": "Amazon EC2",
    }
    bill = charge("3.60", **gpu, resource_id="i-gpu")
    half = span(9, 9, agent_name="coder", resource_id="i-gpu", end_time=at(10, 30))
    two_teams(books, bill)
    write(books, spans=spans(half))
    share(books, SharedRule(name="anything", method="fixed", shares={"Care": D(1)}))
    attribute(books)
    assert total(books, "initiator_team", cost_class="idle") == {None: D("1.80")}
    share(books, SharedRule(name="idle", reason="idle_capacity", method="fixed", shares={"Care": D(1), "Dev": D(2)}))
    attribute(books)
    assert total(books, "initiator_team", cost_class="idle") == {"Care": D("0.60"), "Dev": D("1.20")}


def test_rules_are_dated_and_asked_by_priority_then_as_written(books: Books) -> None:
    early = SharedRule(name="support", method="fixed", shares={"Care": D(1)}, valid_to=date(2026, 10, 5))
    late = SharedRule(name="support", method="fixed", shares={"Dev": D(1)}, valid_from=date(2026, 10, 5))
    first = SharedRule(name="fees", charge_category="Purchase", method="fixed", shares={"Data": D(1)}, priority=1)
    share(books, early, late, first)
    before = {"charge_period_start": at(10, day=4), "charge_period_end": at(11, day=4)}
    two_teams(books, charge("1", **SUPPORT, **before), charge("2", **SUPPORT), charge("4", **SUPPORT, charge_category="Purchase"))
    attribute(books)
    assert rows(books, "initiator_team", "rule", "effective_cost", cost_class="shared") == [
        ("Care", early.label, D(1)),
        ("Data", first.label, D(4)),
        ("Dev", late.label, D(2)),
    ]
    assert early.label != late.label


@pytest.mark.slow
def test_every_version_that_was_put_to_use_is_kept_word_for_word(books: Books) -> None:
    two_teams(books, charge("12", **SUPPORT))
    old, new = (SharedRule(name="support", service="AWS Support", method=m) for m in ("even", "proportional"))
    for rule in (old, old, new, old):
        share(books, rule)
        attribute(books)
    kept = rule_versions(books)
    assert [(r.name, r.version) for r in kept] == [("support", old.version), ("support", new.version)]
    assert kept[0].definition == {"name": "support", "service": "AWS Support", "method": "even"}
    assert {r for (r,) in rows(books, "rule", cost_class="shared")} == {old.label}


def test_a_changed_rule_rereads_no_span(books: Books) -> None:
    two_teams(books, charge("12", **SUPPORT))
    attribute(books)
    share(books, SharedRule(name="support", service="AWS Support"))
    report = attribute(books)
    assert report.months == ["2026-10"]
    assert report.spans_read == 0


# ── what would change ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_preview_says_what_each_team_would_pay_and_publishes_nothing(books: Books) -> None:
    """Support of 12: by cost 4 and 8, evenly 6 and 6. Without a rule it is nobody's."""
    by_cost = SharedRule(name="support", service="AWS Support")
    share(books, by_cost)
    two_teams(books, charge("12", **SUPPORT))
    report = attribute(books)
    mine = books.settings.attribution
    now = preview(books, "2026-10", mine)
    evenly = mine.model_copy(update={"shared": [by_cost.model_copy(update={"method": "even"})]})
    told = compare_costs(now, preview(books, "2026-10", evenly))
    assert told.select("team", "cost_class", "now", "then", "change").rows() == [
        ("Care", "shared", D(4), D(6), D(2)),
        ("Dev", "shared", D(8), D(6), D(-2)),
    ]
    none = compare_costs(now, preview(books, "2026-10", mine.model_copy(update={"shared": []})))
    assert none.select("team", "change").rows() == [(None, D(12)), ("Dev", D(-8)), ("Care", D(-4))]
    assert none["change"].sum() == 0
    assert set(books.store.scan(COSTS).collect()["run_id"]) == {report.run_id}
    assert attribute(books).unchanged == ["2026-10"]


@pytest.mark.slow
def test_the_command_lists_and_previews(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "rootcost.toml").write_text('[[attribution.shared]]\nname = "support"\nservice = "AWS Support"\n')
    proposed = tmp_path / "proposed.toml"
    proposed.write_text('[[shared]]\nname = "support"\nservice = "AWS Support"\nmethod = "even"\nteams = ["Care", "Nobody"]\n')
    with Books.open(home) as books:
        two_teams(books, charge("12", **SUPPORT))
        attribute(books)
    run = CliRunner()
    listed = run.invoke(app, ["--home", str(home), "rules", "list", "--format", "json"])
    assert listed.exit_code == 0
    assert [r["rule"] for r in json.loads(listed.stdout)] == [SharedRule(name="support", service="AWS Support").label]
    assert run.invoke(app, ["--home", str(home), "rules", "list", "--history"]).exit_code == 0
    asked = ["--home", str(home), "rules", "preview", "--month", "2026-10", "--rules", str(proposed)]
    told = run.invoke(app, [*asked, "--format", "json"])
    assert {(r["team"], r["change"]) for r in json.loads(told.stdout)} == {("Dev", "-8"), ("Care", "2"), ("Nobody", "6")}
    shown = run.invoke(app, asked)
    assert "unknown_team: Nobody" in shown.stderr
    unchanged = run.invoke(app, asked[:-2])
    assert "Nothing would change." in unchanged.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rules"),
        ("[[shared]]\nname = ", "cannot be read"),
        ('[[shared]]\nname = "x"\nmethod = "by guess"\n', "rule 1.method"),
        ('[[shared]]\nname = "x"\nmethod = "usage"\nusage = "token"\n', "did you mean tokens"),
        ('[[shared]]\nname = "x"\nvalid_from = 2026-10-05\nvalid_to = 2026-10-05\n', "valid_to must be later"),
    ],
)
def test_a_file_of_rules_that_cannot_be_meant_names_the_fault(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_rules(file)


# ── rules that contradict each other ────────────────────────────────────────────────────────────────────────────────


def named(*rules: SharedRule) -> list[tuple[str, str]]:
    return [(p.place.removeprefix("rule "), p.reason.split(":")[0]) for p in check(rules, {"Care", "Dev"}, uri="here")]


def test_rules_that_are_in_each_others_way_are_each_a_named_problem() -> None:
    catch_all = SharedRule(name="all")
    support = SharedRule(name="support", service="AWS Support", method="even")
    assert named(support, catch_all) == [], "the narrow rule first is how rules are meant to be written"
    assert named(catch_all, support) == [("support", "unreachable_rule")]
    assert named(catch_all, support.model_copy(update={"priority": 1})) == []
    by_account = SharedRule(name="account", account="1", method="even")
    by_category = SharedRule(name="fees", charge_category="Purchase")
    assert named(by_account, by_category) == [("fees", "rules_contradict")]
    assert named(by_account, by_category.model_copy(update={"account": "2"})) == []
    assert (
        named(
            by_account.model_copy(update={"valid_to": date(2026, 5, 1)}),
            by_category.model_copy(update={"valid_from": date(2026, 5, 1)}),
        )
        == []
    )
    halves = [
        catch_all.model_copy(update={"valid_to": date(2026, 5, 1)}),
        catch_all.model_copy(update={"name": "all later", "valid_from": date(2026, 5, 1)}),
    ]
    assert named(*halves, support) == [("support", "unreachable_rule")]
    assert named(halves[0], support.model_copy(update={"valid_from": date(2026, 4, 1)})) == [("support", "rules_contradict")]
    same = [support, support.model_copy(update={"method": "proportional", "service": "Other"})]
    assert named(*same) == [("support", "same_name")]
    assert named(SharedRule(name="s", teams=["Cara"])) == [("s", "unknown_team")]
    assert named(SharedRule(name="s", method="fixed", shares={"Dev": D(1)}, teams=["Care"])) == [("s", "ignored_setting")]
    assert named(SharedRule(name="s", source_team="Dev", method="fixed", shares={"Dev": D(1)})) == [("s", "target_is_source")]
    assert (
        named(SharedRule(name="i", reason="idle_capacity"), catch_all)
        == named(catch_all, SharedRule(name="i", reason="idle_capacity"))
        == []
    )


def test_contradicting_rules_are_told_by_the_run_and_the_books_balance(books: Books) -> None:
    share(
        books,
        SharedRule(name="all"),
        SharedRule(name="support", service="AWS Support", method="fixed", shares={"Cara": D(1)}),
        SharedRule(name="long over", valid_to=date(2020, 1, 1), teams=["Nobody"]),
    )
    two_teams(books, charge("12", **SUPPORT))
    report = attribute(books)
    told = books.store.scan(PROBLEMS).filter(pl.col("field").str.starts_with("attribution.shared")).collect()
    assert {r.split(":")[0] for r in told["reason"]} == {"unreachable_rule", "unknown_team"}
    assert set(told["place"]) == {"rule support"}, "a rule that holds on no day of the month is not this month's problem"
    assert report.problems >= 2
    assert books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item()
    assert shares(books) == {"Care": D(4), "Dev": D(8)}


@pytest.mark.slow
def test_a_thousand_rules_against_each_other_are_told_in_bounded_time_and_number() -> None:
    many = [SharedRule(name=f"r{n}", method="fixed", shares={"Nobody": D(n + 1)}) for n in range(1000)]
    started = time.monotonic()
    told = check(many, {"Care"}, uri="here")
    assert len(told) == 51
    assert told[-1].reason.endswith("more problems of rules")
    assert time.monotonic() - started < 20
