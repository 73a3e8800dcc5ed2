"""ID-3: which names are one."""

from __future__ import annotations

from ledger import registry
from ledger.books import Books


def test_id3_an_alias_that_is_also_an_agents_name_is_refused(books: Books) -> None:
    """bot would be two agents. The rest of the row stays, and so do aliases that are nobody's name; also of an agent imported before."""
    registry.import_text(books, "agent,team\nbot,Care\n", uri="first.csv", actor="test")
    result = registry.import_text(
        books, "agent,team,aliases\ncoder,Dev,cx;bot;helper\nhelper,Data,\n", uri="second.csv", actor="test"
    )
    assert [(p.place, p.severity) for p in result.problems] == [("alias bot", "error"), ("alias helper", "error")]
    names = registry.rows(books).select("kind", "name").rows()
    assert names == [("agent", "bot"), ("agent", "coder"), ("alias", "cx"), ("agent", "helper")]


def test_id3_an_agent_that_was_renamed_keeps_its_old_name_as_an_alias(books: Books) -> None:
    """The old name ends as an agent's where it begins as an alias; an agent may also repeat its own name."""
    rows = "agent,team,valid_from,valid_to,aliases\nold,Care,2026-01-01,2026-10-15,old\nnew,Care,2026-10-15,,old\n"
    assert registry.import_text(books, rows, uri="renamed.csv", actor="test").problems == []
