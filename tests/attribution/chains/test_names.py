"""ID-3: which names are one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import polars as pl

from attribution.costs import bill_tags
from attribution.monitoring import budgets
from attribution.run import attribute
from ledger import registry
from ledger.audit import record
from ledger.books import Books
from ledger.budgets import revisions
from ledger.budgets.revisions import Change
from ledger.budgets.status import standings
from ledger.budgets.terms import Terms
from ledger.db import Owner
from ledger.settings import SharedRule
from ledger.tables import CALLS, COSTS, PROBLEMS
from tests.support.books_by_hand import BEGIN, SONNET, charge, charges, span, spans, write
from tests.support.cases import book_case

D = Decimal
NFD = "Mu\u0308ller"
LONG = "G" * 1_000_000


def costs_by(books: Books, column: str) -> dict[str | None, Decimal]:
    """Effective cost of every value of a column, of the newest run."""
    newest = books.store.scan(COSTS).filter(pl.col("run_id") == pl.col("run_id").max())
    return dict(newest.group_by(column).agg(pl.col("effective_cost").sum()).sort(column).collect().iter_rows())


def findings(books: Books, word: str) -> list[str]:
    """Places and reasons of the findings that begin with a word."""
    rows = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with(word)).sort("place").collect()
    return [f"{place}: {reason}" for place, reason in rows.select("place", "reason").iter_rows()]


def tagged(n: int, tags: dict[str, Any], **columns: Any) -> dict[str, Any]:
    """A charge of n dollars for storage, with tags."""
    storage = {"service_name": "Amazon S3", "sku_meter": "TimedStorage", "consumed_unit": "GB-Mo"}
    return charge(str(n), tags=json.dumps(tags, ensure_ascii=False), **(storage | columns))


def test_id3_names_of_tags_are_those_of_the_registry(books: Books) -> None:
    """Case `names`. Growth: team, user:team, resourceTags/user:team, growth, "Growth "; AWS tells Team and TEAM from team; null and N/A name nobody."""
    book_case(books, "names", ("focus", "bill.csv"))
    costs = costs_by(books, "initiator_team")
    long_name = next(name for name in costs if name and name.startswith("GGG"))
    assert costs == {None: D(8), "Growth": D(5), "Müller": D(2), long_name: D(1)}
    assert [line.split(" bear")[0] for line in findings(books, "similar_names")] == [
        "tag TEAM: similar_names: 1.00 USD",
        "tag Team: similar_names: 1.00 USD",
    ]
    assert len(long_name) == 512
    assert len(findings(books, "long_name: 1.00 USD")) == 1


def test_id3_azures_tag_keys_are_case_insensitive(books: Books) -> None:
    """Five dollars each: Team on Azure is Growth's, on AWS nobody's; of two spellings of one key the lower-case one counts."""
    azure = {"provider_name": "Microsoft", "service_name": "Storage", "invoice_id": "az"}
    rows = [
        tagged(5, {"Team": "growth"}, **azure),
        tagged(3, {"TEAM": "Care", "team": "Growth"}, **azure),
        tagged(5, {"Team": "growth"}),
    ]
    write(books, charges=charges(*rows), owners="agent,team\nb1,Growth\n")
    attribute(books)
    assert costs_by(books, "initiator_team") == {"Growth": D(8), None: D(5)}


def test_id3_names_of_logs_are_those_of_the_registry(books: Books) -> None:
    """Case, inner space, invisible characters and the two forms of ü; a null-like name is none, and the registered key counts."""
    spellings = ["Support Bot", "support  bot", "SUPPORT\u200bBOT ", "\ufeffSupport Bot", "cx", NFD, "müller", "N/A", "none"]
    rows = [
        span(n, n, agent_name=name, tenant=" Acme" if n % 2 else "-", credential="key", input_tokens=1000, **SONNET)
        for n, name in enumerate(spellings, 1)
    ]
    owners = "agent,team,aliases,credentials\nSupport Bot,Care,CX,\nMüller,Data,,\nbacking,Dev,,key\n"
    write(books, spans=spans(*rows), charges=charges(charge("9", tokens_k="9")), owners=owners)
    attribute(books)
    assert costs_by(books, "initiator_agent") == {"Müller": D(2), "Support Bot": D(5), "backing": D(2)}
    assert costs_by(books, "initiator_team") == {"Care": D(5), "Data": D(2), "Dev": D(2)}
    tenants = books.store.scan(CALLS).group_by("tenant").len().sort("tenant").collect()
    assert tenants.rows() == [(None, 4), ("Acme", 5)]
    assert findings(books, "similar_names") == []


def test_id3_a_name_that_only_looks_like_a_registered_one_is_told(books: Books) -> None:
    """Full-width letters and a filler that shows nothing are other characters: each name has its own cost, and all are told."""
    rows = [span(n, n, agent_name=name, input_tokens=1000, **SONNET) for n, name in enumerate(["Ｃａｒｅ", "Ca\u3164re"], 1)]
    write(books, spans=spans(*rows), charges=charges(charge("2", tokens_k="2")), owners="agent,team\nCare,Support\n")
    attribute(books)
    assert costs_by(books, "initiator_agent") == {"Ca\u3164re": D(1), "Ｃａｒｅ": D(1)}
    (line,) = findings(books, "similar_names")
    assert "Ｃａｒｅ 1.00 USD" in line
    assert "looks like the registered Care in other characters; it was not taken for it" in line


def test_id3_similar_names_that_nobody_registered_stay_apart_and_are_reported(books: Books) -> None:
    """Two agents, two teams by tag and two tenants; what only resembles two registered agents is neither of them."""
    rows = [
        span(n, n, agent_name=name, tenant=tenant, input_tokens=1000, **SONNET)
        for n, (name, tenant) in enumerate([("Bot", "ACME"), ("bot", "Acme"), ("CODER", None), ("coder", None)], 1)
    ]
    bill = [charge("4", tokens_k="4"), tagged(2, {"team": "Ops"}), tagged(1, {"team": "ops"})]
    result = registry.import_text(books, "agent,team\nCoder,Dev\ncoder,Data\n", uri="r.csv", actor="test")
    assert [(p.place, p.severity) for p in result.problems] == [("agent Coder, coder", "warning")]
    write(books, spans=spans(*rows), charges=charges(*bill))
    attribute(books)
    assert costs_by(books, "initiator_agent") == {None: D(3), "Bot": D(1), "CODER": D(1), "bot": D(1), "coder": D(1)}
    assert costs_by(books, "initiator_team") == {None: D(3), "Data": D(1), "Ops": D(2), "ops": D(1)}
    lines = [line.split(":")[0] + ":" + line.split(":")[2] for line in findings(books, "similar_names")]
    assert lines == [
        "agent Bot, bot: Bot 1.00 USD, bot 1.00 USD",
        "agent CODER, coder: CODER 1.00 USD, coder 1.00 USD",
        "team Ops, ops: Ops 2.00 USD, ops 1.00 USD",
        "tenant ACME, Acme: ACME unpriced (USD), Acme unpriced (USD)",
    ]
    assert any("registered Coder, coder" in line for line in findings(books, "similar_names"))


def test_id3_names_of_an_older_registry_rules_and_budgets_compare_the_same(books: Books) -> None:
    """An owner recorded as " Bot " of "Care " before names were cleaned; a rule and a budget that spell the team in their own way."""
    write(
        books,
        spans=spans(span(1, 1, agent_name="bot", input_tokens=1000, **SONNET)),
        charges=charges(charge("1", tokens_k="1"), tagged(6, {})),
    )
    rules = [SharedRule(name="storage", service="Amazon S3", method="fixed", shares={"care": D(1), "Ops": D(1)})]
    books.settings = books.settings.model_copy(
        update={"attribution": books.settings.attribution.model_copy(update={"shared": rules})}
    )
    with books.database.session() as session:
        record(session, "test", "registry.import", "by hand")
        session.add(Owner(kind="agent", name=" Bot ", agent=" Bot ", team="Care ", valid_from=BEGIN, recorded_at=BEGIN))
        revisions.add(session, Terms(name="b", scopes={"team": "CARE"}, amount=D(2)), Change("test"))
    attribute(books)
    budgets.evaluate(books)
    assert costs_by(books, "initiator_team") == {"Care": D(4), "Ops": D(3)}
    assert costs_by(books, "initiator_agent") == {None: D(6), "Bot": D(1)}
    (standing,) = standings(books)
    assert (standing.billed, standing.state) == (D(4), "exceeded")
    assert len(findings(books, "unknown_team: Ops")) == 1


def test_id3_names_of_a_megabyte_and_of_a_hundred_thousand_accents_are_bounded(books: Books) -> None:
    """Two long names with the same beginning stay two; the money of both is reported, and the registry refuses such a name by its line."""
    accents = "o" + "\u0301\u0323" * 100_000
    bill = [tagged(1, {"team": LONG}), tagged(2, {"team": LONG + "x"}), tagged(3, {"team": accents})]
    write(books, charges=charges(*bill))
    attribute(books)
    costs = costs_by(books, "initiator_team")
    assert sorted(costs.values()) == [D(1), D(2), D(3)]
    assert max(len(name or "") for name in costs) <= 512
    assert len(findings(books, "long_name")) == 3
    result = registry.import_text(books, f"agent,team\nbot,{'T' * 2_000}\ncoder,Dev\n", uri="r.csv", actor="test")
    assert [(p.place, p.field, p.reason) for p in result.problems] == [
        ("line 2", "team", "has a name of more than 256 characters")
    ]
    result = registry.import_text(books, f"agent,team\nbot,{LONG}\ncoder,Dev\n", uri="r.csv", actor="test")
    assert [(p.place, p.field) for p in result.problems] == [("line 2", "team")]


def test_id3_a_tag_of_many_spellings_names_the_same_owner_whatever_comes_first() -> None:
    frame = pl.DataFrame({"provider_name": ["Microsoft"] * 2, "tags": ['{"TEAM":"a","Team":"b"}', '{"Team":"b","TEAM":"a"}']})
    assert bill_tags.values(frame, ["team"]).n_unique() == 1


def test_id3_an_alias_that_is_also_an_agents_name_is_refused(books: Books) -> None:
    """bot would be two agents. The rest of the row stays, and so do aliases that are nobody's name; also of an agent imported before."""
    registry.import_text(books, "agent,team\nbot,Care\n", uri="first.csv", actor="test")
    result = registry.import_text(
        books, "agent,team,aliases\ncoder,Dev,cx;bot;helper;BOT\nhelper,Data,\n", uri="second.csv", actor="test"
    )
    assert [(p.place, p.severity) for p in result.problems] == [(f"alias {name}", "error") for name in ("BOT", "bot", "helper")]
    names = registry.rows(books).select("kind", "name").rows()
    assert names == [("agent", "bot"), ("agent", "coder"), ("alias", "cx"), ("agent", "helper")]


def test_id3_an_agent_that_was_renamed_keeps_its_old_name_as_an_alias(books: Books) -> None:
    """The old name ends as an agent's where it begins as an alias; an agent may also repeat its own name."""
    rows = "agent,team,valid_from,valid_to,aliases\nold,Care,2026-01-01,2026-10-15,old\nnew,Care,2026-10-15,,old\n"
    assert registry.import_text(books, rows, uri="renamed.csv", actor="test").problems == []
