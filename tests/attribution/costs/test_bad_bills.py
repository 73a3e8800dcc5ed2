"""Bills and registries that are wrong: a named problem each, bounded time and memory, and the balance still holds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.costs import corrections
from attribution.run import attribute
from ledger import registry
from ledger.books import Books
from ledger.registry import SCHEMA, timeline
from ledger.tables import BALANCE, COSTS, PROBLEMS
from tests.attribution.test_rules import call, total
from tests.support.books_by_hand import at, charge, charges, spans, write

D = Decimal
KNOWN = {"account_id": "1111", "region": "us-east-1"}


def balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


def test_negative_and_absurd_quantities_are_named_and_their_money_is_attributed(books: Books) -> None:
    bill = charges(
        charge("0.03", tokens_k="10"),
        charge("1", tokens_k="-5", sub_account_id="2"),
        charge("2", tokens_k="9e20", sub_account_id="3"),
        charge("4", sku_meter="Disk", service_name="Amazon S3", consumed_quantity=D(-7), consumed_unit="GB-Mo"),
    )
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder", **KNOWN)), charges=bill)
    attribute(books)
    assert sum(total(books, "cost_class").values()) == D("7.03")
    told = books.store.scan(PROBLEMS).filter(pl.col("field") == "consumed_quantity").collect()
    assert sorted((r.split(":")[0], p) for r, p in told.select("reason", "place").iter_rows()) == [
        ("absurd_quantity", "AWS USE1-Claude4.6Sonnet-input-tokens"),
        ("negative_quantity", "AWS Disk"),
        ("negative_quantity", "AWS USE1-Claude4.6Sonnet-input-tokens"),
    ]
    assert balanced(books)


def test_charges_as_large_as_money_can_be_are_split_exactly(books: Books) -> None:
    """10^20 dollars less a picodollar over three calls."""
    huge = "99999999999999999999.999999999999"
    facts = spans(*(call(n, n, None, 1_000, agent_name=f"a{n}", **KNOWN) for n in (1, 2, 3)))
    write(books, spans=facts, charges=charges(charge(huge, tokens_k="3"), charge("-" + huge, charge_category="Credit")))
    attribute(books)
    costs = books.store.scan(COSTS).filter(pl.col("reason").is_null()).collect()
    assert costs.height == 3
    assert costs["effective_cost"].sum() == D(huge)
    assert balanced(books)


def test_overlapping_intervals_of_a_registry_are_named_and_the_later_one_holds(books: Books) -> None:
    file = (
        "agent,team,valid_from,valid_to\n"
        "coder,Dev,2026-01-01,2026-12-01\n"
        "coder,Data,2026-10-01,\n"
        "bot,Care,2026-01-01,\n"
        "bot,Growth,2026-10-01,\n"
        "mailer,Care,2026-01-01,2026-10-01\n"
        "mailer,Dev,2026-10-01,2027-01-01\n"
    )
    result = registry.import_text(books, file, uri="agents.csv", actor="test")
    assert [(p.place, p.reason.split(":")[0], p.severity) for p in result.problems] == [
        ("agent coder", "overlapping_intervals", "warning")
    ]
    facts = spans(call(1, 1, None, 1000, agent_name="coder", **KNOWN), call(2, 2, None, 1000, agent_name="bot", **KNOWN))
    write(books, spans=facts, charges=charges(charge("0.006", tokens_k="2")))
    attribute(books)
    assert total(books, "initiator_team") == {"Data": D("0.003"), "Growth": D("0.003")}


def slow_timeline(rows: list[dict[str, Any]]) -> list[tuple[datetime, str | None]]:
    """Who holds at each edge, by asking every row."""
    edges = sorted({r["valid_from"] for r in rows} | {r["valid_to"] for r in rows if r["valid_to"] is not None})
    out = []
    for edge in edges:
        holding = [r for r in rows if r["valid_from"] <= edge and (r["valid_to"] is None or r["valid_to"] > edge)]
        best = max(holding, key=lambda r: (r["recorded_at"], r["valid_from"]), default=None)
        out.append((edge, best["team"] if best else None))
    return out


def test_ten_thousand_overlapping_rows_of_one_name_take_a_moment_and_the_newest_record_holds() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {
            "kind": "agent",
            "name": "bot",
            "agent": "bot",
            "team": f"t{n % 7}",
            "account": None,
            "region": None,
            "valid_from": start + timedelta(hours=(n * 37) % 5000),
            "valid_to": None if n % 11 == 0 else start + timedelta(hours=(n * 37) % 5000 + 1 + n % 900),
            "recorded_at": start + timedelta(seconds=(n * 7919) % 10_007),
        }
        for n in range(10_000)
    ]
    began = time.monotonic()
    drawn = timeline(pl.DataFrame(rows, schema=SCHEMA))
    assert time.monotonic() - began < 10
    assert (drawn["valid_to"].drop_nulls() == drawn["valid_from"][1:]).all(), "disjoint and without gaps here"
    few = rows[:200]
    drawn = timeline(pl.DataFrame(few, schema=SCHEMA))
    for edge, team in slow_timeline(few):
        held = drawn.filter(pl.col("valid_from") <= edge, pl.col("valid_to").is_null() | (pl.col("valid_to") > edge))
        assert held["team"].to_list() == ([] if team is None else [team]), edge


def test_thousands_of_credits_without_a_period_of_their_own_stay_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 000 credits of an hour nobody was charged in, over 300 calls: each could fall on each, 600 000 pairs; a tenth of that is allowed."""
    monkeypatch.setattr(corrections, "_MAX_PAIRS", 60_000)
    facts = spans(*(call(n, n, None, 100, agent_name=f"a{n % 3}", start_time=at(n % 20), **KNOWN) for n in range(1, 301)))
    bill = charges(
        *(charge("1", tokens_k="1.5", charge_period_start=at(h), charge_period_end=at(h + 1)) for h in range(20)),
        *(
            charge(
                "-0.001",
                charge_category="Credit",
                consumed_unit=None,
                charge_period_start=at(22, day=6) + timedelta(seconds=n),
                charge_period_end=at(22, day=6) + timedelta(seconds=n + 1),
            )
            for n in range(2000)
        ),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    credited = total(books, "initiator_agent", reason="credit")
    assert sum(credited.values()) == D(-2)
    assert set(credited) == {"a0", "a1", "a2"}
    assert balanced(books)


def test_tags_in_any_shape_and_empty_words_do_not_stop_the_books(books: Books) -> None:
    bill = charges(
        charge("1", sku_meter="", service_name="", consumed_unit=None, tags="{}"),
        charge("2", sku_meter=None, service_name=None, consumed_unit=None, tags='{"team":""}'),
        charge("4", sku_meter=None, service_name=None, consumed_unit=None, tags='{"team":"' + "x" * 5000 + '"}'),
    )
    write(books, charges=bill)
    attribute(books)
    assert sum(total(books, "cost_class").values()) == D(7)
    assert balanced(books)
