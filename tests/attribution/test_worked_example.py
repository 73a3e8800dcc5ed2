"""The worked example of the specification: one hour, one pool, two views, and a remainder that is not smeared."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import polars as pl

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE, COSTS
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write

OWNERS = "agent,team\nsupport-bot,Care\nresearcher,Data\ncoder,Dev\n"


def chains() -> pl.DataFrame:
    """Chain 1: support-bot uses 2 000 tokens itself and 4 000 through researcher; chain 2: coder uses 3 000."""
    return spans(
        span(1, 1, agent_name="support-bot"),
        span(1, 2, 1, input_tokens=2000, **SONNET),
        span(1, 3, 1, agent_name="researcher"),
        span(1, 4, 3, input_tokens=4000, **SONNET),
        span(2, 5, agent_name="coder"),
        span(2, 6, 5, input_tokens=3000, **SONNET),
    )


def by(books: Books, column: str) -> dict[tuple[str, str | None], Decimal]:
    costs = books.store.scan(COSTS).collect()
    out: dict[tuple[str, str | None], Decimal] = defaultdict(Decimal)
    for row in costs.iter_rows(named=True):
        out[row["cost_class"], row[column]] += row["effective_cost"]
    return dict(out)


def test_both_views_of_the_worked_example(books: Books) -> None:
    write(books, spans=chains(), charges=charges(charge("0.030000000000", tokens_k="10.0")), owners=OWNERS)
    report = attribute(books)
    assert by(books, "initiator_team") == {
        ("metered", "Care"): Decimal("0.018"),
        ("metered", "Dev"): Decimal("0.009"),
        ("unallocated", None): Decimal("0.003"),
    }
    assert by(books, "executor_team") == {
        ("metered", "Care"): Decimal("0.006"),
        ("metered", "Data"): Decimal("0.012"),
        ("metered", "Dev"): Decimal("0.009"),
        ("unallocated", None): Decimal("0.003"),
    }
    reasons = books.store.scan(COSTS).filter(pl.col("cost_class") == "unallocated").collect()["reason"].to_list()
    assert reasons == ["uncaptured_usage"]
    assert report.published
    assert report.balance.filter(pl.col("cost_column") == "effective_cost").select(
        "charges_in", "metered", "unallocated", "difference"
    ).row(0) == (
        Decimal("0.03"),
        Decimal("0.027"),
        Decimal("0.003"),
        Decimal(0),
    )


def test_a_tag_on_the_principal_makes_the_remainder_an_owner_row(books: Books) -> None:
    tagged = charge("0.03", tokens_k="10.0", principal="arn:aws:iam::1111:role/x", tags='{"iamPrincipal/team":"Growth"}')
    write(books, spans=chains(), charges=charges(tagged), owners=OWNERS)
    attribute(books)
    assert by(books, "initiator_team")["owner", "Growth"] == Decimal("0.003")
    assert books.store.scan(BALANCE).select(pl.col("difference").sum()).collect().item() == 0
