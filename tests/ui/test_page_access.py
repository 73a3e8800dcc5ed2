"""Pages × role × scope: the menu offers exactly the pages whose readings the API answers. A new page needs a row here."""

from __future__ import annotations

from pathlib import Path

from ledger.access.principals import Grant, Principal
from ledger.access.roles import ROLES
from ledger.books import Books
from tests.api.access.test_matrix import gates_of
from tests.support.api_examples import app_of
from tests.support.ui_fake_people import me
from ui.controls import PAGES
from ui.people import may_open

READINGS = {
    "": ["/v1/overview", "/v1/costs"],
    "explorer": ["/v1/overview", "/v1/costs"],
    "chains": ["/v1/overview", "/v1/chains", "/v1/chains/{chain_id}"],
    "explain": ["/v1/explain/cell", "/v1/explain/{ref}"],
    "compare": ["/v1/overview", "/v1/compare"],
    "anomalies": ["/v1/overview", "/v1/anomalies"],
    "balance": ["/v1/balance", "/v1/evidence"],
    "periods": ["/v1/periods", "/v1/periods/{month}/checklist"],
    "budgets": ["/v1/overview", "/v1/budgets"],
    "alerts": ["/v1/alerts", "/v1/alerts/{alert_id}"],
    "sources": ["/v1/sources", "/v1/source-runs", "/v1/problems"],
}
"""What a page cannot be drawn without; other parts of it say that they are missing."""


def test_who_may_open_a_page_may_read_what_it_is_made_of(tmp_path: Path) -> None:
    with Books.open(tmp_path) as books:
        gates = gates_of(app_of(books))
    assert list(READINGS) == list(PAGES)
    for role in ROLES:
        for team in ("", "Care"):
            principal = Principal("user:ada", "user", "ada", (Grant(role, team),))
            for path, readings in READINGS.items():
                page_gates = [gate for gate in (gates["GET", reading] for reading in readings) if gate is not None]
                is_answered = all(gate.permission in ROLES[role] and not (gate.whole and team) for gate in page_gates)
                assert may_open(me(principal), path) == is_answered, (role, team, path)
