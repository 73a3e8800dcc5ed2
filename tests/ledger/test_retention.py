"""What no figure needs goes after its retention: content, problems, copies of bills, personal fields of the audit log."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import sqlalchemy as sa

from ledger import audit, retention
from ledger.audit_verify import verify_audit
from ledger.books import Books
from ledger.errors import SettingsError
from ledger.periods import now
from ledger.problems import Problem, to_frame
from ledger.settings import load
from ledger.tables import PROBLEMS, SPANS
from rootcost.operations.retention import remove_outdated
from tests.support.books_by_hand import span, spans

DAYS = {"content_days": 30, "problems_days": 30, "raw_days": 30, "personal_days": 30}


def with_retention(books: Books, **days: int) -> Books:
    maintenance = books.settings.maintenance.model_copy(update=days)
    books.settings = books.settings.model_copy(update={"maintenance": maintenance})
    return books


@pytest.mark.clock
def test_each_kind_goes_after_its_own_time(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    old, recent = (datetime.now(UTC) - timedelta(days=days) for days in (40, 5))
    facts = spans(
        span(1, 1, agent_name="bot", attributes='{"gen_ai.prompt": "secret"}', start_time=old),
        span(2, 2, agent_name="bot", attributes='{"gen_ai.prompt": "recent"}', start_time=recent),
    )
    books.store.merge(SPANS, facts, prefer="rank")
    fingerprint = books.store.fingerprint(SPANS, {"date": [str(old.date())]})
    problems = to_frame([Problem("otlp", "file", f"line {n}", "field", "reason", "remedy") for n in range(2)])
    books.store.append(PROBLEMS, problems.with_columns(seen_at=pl.Series([old, recent])))
    folder = books.home / "raw" / "focus"
    folder.mkdir(parents=True)
    for name, at in (("old.csv", old), ("recent.csv", recent)):
        (folder / name).write_text("bill")
        os.utime(folder / name, (at.timestamp(), at.timestamp()))
    with books.database.session() as session:
        audit.record(session, "cli", "user.add", "x", personal={"email": "ann@example.com"})
    assert remove_outdated(books).counts == {}, "for good, unless a setting says otherwise"
    with_retention(books, **DAYS)
    dry_report = remove_outdated(books, dry_run=True).counts
    assert remove_outdated(books).counts == dry_report == {"spans_with_content": 1, "problems": 1, "raw_files": 1}
    assert remove_outdated(books).counts == {}
    assert books.store.scan(SPANS).collect().sort("span_key")["attributes"].to_list() == [None, '{"gen_ai.prompt": "recent"}']
    assert books.store.fingerprint(SPANS, {"date": [str(old.date())]}) == fingerprint, "no month is due by it"
    assert books.store.scan(PROBLEMS).collect()["place"].to_list() == ["line 1"]
    assert [path.name for path in folder.iterdir()] == ["recent.csv"]
    monkeypatch.setattr(retention, "now", lambda: now() + timedelta(days=31))
    with_retention(books, content_days=0, problems_days=0, raw_days=0)
    assert remove_outdated(books).counts == {"audit_entries": 1}
    with books.database.session() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(audit.AuditPersonal)) == 0
    assert verify_audit(books.database).damages == []


def test_spans_stay_until_the_bills_of_their_month_have_come(books: Books) -> None:
    (books.home / "rootcost.toml").write_text("[maintenance]\nspans_days = 30\n")
    with pytest.raises(SettingsError, match="at least 62"):
        load(books.home)
