"""Erasures over the API: after a preview of the same, for administrators only, audited, made once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.client import Client, InvalidProblem
from api.models import ConfirmedErasure, ErasedPeriod, ErasureRequest
from attribution import removal
from attribution.run import attribute
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.audit import Audit
from ledger.books import Books
from ledger.tables import SPANS
from tests.support.api_examples import reach
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write

ANN = "ann.lee@example.com"
PERIOD = {"period": {"start": "2026-10", "end": "2026-11", "sources": ["otlp"]}}


@pytest.fixture
def books(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    monkeypatch.setattr(removal, "now", lambda: datetime(2027, 1, 15, tzinfo=UTC))
    facts = spans(span(1, 1, agent_name="bot", end_user=ANN), span(1, 2, 1, input_tokens=7000, **SONNET))
    with Books.open(home) as home_books:
        write(home_books, spans=facts, charges=charges(charge("0.03", tokens_k="10.0")))
        attribute(home_books)
        yield home_books


@pytest.fixture
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


def key_of(books: Books, role: str) -> str:
    return create_key(books, role, [Grant(role)], actor="test")[1]


def post(http: httpx.Client, key: str, path: str, content: dict[str, Any], **headers: str) -> httpx.Response:
    return http.post(path, json=content, headers={"Authorization": f"Bearer {key}", **headers})


def test_a_period_is_erased_once_after_its_preview(books: Books, http: httpx.Client) -> None:
    admin = key_of(books, "admin")
    plan = post(http, admin, "/v1/erasures/preview", PERIOD)
    assert plan.json()["rows"] == {"calls": 1, "chains": 1, "spans": 2}
    assert plan.json()["settled_months"] == ["2026-10"]
    assert books.store.scan(SPANS).collect().height == 2
    other = {"period": {"start": "2026-09", "end": "2026-11", "sources": ["otlp"]}, "plan": plan.json()["plan"]}
    assert post(http, admin, "/v1/erasures", other).json()["where"] == "plan"
    confirmation = PERIOD | {"plan": plan.json()["plan"]}
    answer = post(http, admin, "/v1/erasures", confirmation, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["rows"]) == (201, plan.json()["rows"])
    assert post(http, admin, "/v1/erasures", confirmation, **{"Idempotency-Key": "k"}).json()["type"].endswith("answer-not-kept")
    assert books.store.scan(SPANS).collect().is_empty()
    fresh = http.get("/v1/freshness", headers={"Authorization": f"Bearer {admin}"}).json()
    assert fresh["settled_months"] == {"2026-10": "facts removed on 2027-01-15 by erasure"}
    cell = http.get("/v1/explain/cell", headers={"Authorization": f"Bearer {admin}"}).json()
    assert "facts removed on 2027-01-15 by erasure" in next(s["sentence"] for s in cell["steps"] if s["step"] == "removal")
    missing = http.get(f"/v1/explain/{1:032x}:{2:016x}", headers={"Authorization": f"Bearer {admin}"}).json()
    assert "calls of 2026-10: facts removed on 2027-01-15 by erasure" in missing["detail"]
    chain = http.get(f"/v1/chains/{1:032x}:{1:016x}", headers={"Authorization": f"Bearer {admin}"}).json()
    assert "chains of 2026-10: facts removed on 2027-01-15 by erasure" in chain["detail"]
    gaps = http.get("/v1/gaps", headers={"Authorization": f"Bearer {admin}"}).json()
    assert gaps["facts_removed"] == {"2026-10": "facts removed on 2027-01-15 by erasure"}


def test_a_person_is_erased_by_the_client_and_the_audit_says_who_did_it(books: Books, http: httpx.Client) -> None:
    client = Client("http://127.0.0.1", key_of(books, "admin"), http=http)
    request = ErasureRequest(person=[ANN], reason="requested")
    plan = client.preview_erasure(request)
    assert plan.rows["spans"] == 1
    with pytest.raises(InvalidProblem, match="names the person"):
        client.preview_erasure(ErasureRequest(person=[ANN], reason=f"asked for by {ANN}"))
    client.erase(ConfirmedErasure(**request.model_dump(), plan=plan.plan))
    assert client.preview_erasure(request).rows == {}
    with books.database.session() as session:
        entry = session.scalars(sa.select(Audit).where(Audit.action == "person.erase")).one()
        assert entry.actor.startswith("key:")
    with pytest.raises(InvalidProblem, match="no source 'oltp'"):
        client.preview_erasure(ErasureRequest(period=ErasedPeriod(start="2026-10", end="2026-11", sources=["oltp"])))


def test_only_administrators_may(books: Books, http: httpx.Client) -> None:
    for role in ("finance", "platform", "auditor"):
        assert post(http, key_of(books, role), "/v1/erasures/preview", PERIOD).status_code == 403
    assert post(http, key_of(books, "admin"), "/v1/erasures/preview", PERIOD | {"person": [ANN]}).status_code == 422
