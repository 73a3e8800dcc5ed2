"""Months over the API: closed by finance from the version it has seen, opened again by two people; a team reads its own lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.client import Client, DeniedProblem, InvalidProblem, StaleProblem
from api.models import PeriodClose, PeriodDecision, PeriodReopening
from attribution.run import attribute
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from tests.attribution.monitoring.test_run_diff import KNOWN, LIST, SUPPORT, restate
from tests.attribution.test_rules import OWNERS, call
from tests.support.api_examples import reach
from tests.support.books_by_hand import charge, charges, spans, write

MONTH = "2026-10"
CLOSE = PeriodClose(reason="kept central", waive=["unallocated"])


@pytest.fixture
def http(books: Books) -> Iterator[Any]:
    """A month of which all but support has a team."""
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN), call(2, 2, None, 2000, agent_name="coder", **KNOWN))
    write(books, spans=facts, charges=charges(charge("0.009", tokens_k="3"), charge("12", **SUPPORT)), owners=OWNERS, prices=LIST)
    attribute(books)
    with reach(books) as client:
        yield client


def client_as(books: Books, http: Any, grant: str) -> Client:
    _, key = create_key(books, grant, [Grant.parse(grant)], actor="test")
    return Client("http://127.0.0.1", key, http=http)


def test_finance_closes_what_it_has_seen_and_a_second_person_opens_it_again(books: Books, http: Any) -> None:
    finance, controller = client_as(books, http, "finance"), client_as(books, http, "finance")
    month = finance.period(MONTH)
    assert (month.state, month.revision, month.blocking) == ("provisional", 0, ["unallocated"])
    assert [check.item for check in finance.period_checklist(MONTH).rows if check.blocks and not check.passed] == ["unallocated"]
    with pytest.raises(InvalidProblem, match="unallocated: 12 USD"):
        finance.close_period(MONTH, PeriodClose(), revision=0)
    closed_month = finance.close_period(MONTH, CLOSE, revision=0)
    assert (closed_month.state, closed_month.revision) == ("closed", 1)
    with pytest.raises(StaleProblem):
        controller.reopen_period(MONTH, PeriodReopening(reason="late"), revision=0)
    restate(books)
    attribute(books)
    assert [document.kind for document in finance.periods().rows[0].documents] == ["actual", "adjustment"]

    assert finance.reopen_period(MONTH, PeriodReopening(reason="late"), revision=1).asked_reason == "late"
    with pytest.raises(DeniedProblem, match="has asked for it"):
        finance.decide_period(MONTH, PeriodDecision(approve=True))
    assert controller.decide_period(MONTH, PeriodDecision(approve=True), revision=2).state == "provisional"


def test_a_team_reads_its_own_lines_and_closes_nothing(books: Books, http: Any) -> None:
    client_as(books, http, "finance").close_period(MONTH, CLOSE)
    care = client_as(books, http, "finance:Care")
    assert [
        (line.team, str(line.effective_cost.normalize())) for line in care.period_lines(MONTH).rows if line.effective_cost
    ] == [("Care", "0.003")]
    for change in (
        lambda: care.reopen_period(MONTH, PeriodReopening(reason="late")),
        care.periods,
        lambda: client_as(books, http, "platform").close_period(MONTH, CLOSE),
    ):
        with pytest.raises(DeniedProblem):
            change()
    assert http.post(f"/v1/periods/{MONTH}/close", json={}, headers={"Authorization": "Bearer x"}).status_code == 401
