"""Application state in a real PostgreSQL: migrated once, exact, and used by the same code as SQLite."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from attribution.run import attribute
from ledger import registry
from ledger.audit_verify import read_head, verify_audit
from ledger.base import Base
from ledger.books import Books
from ledger.budgets import revisions
from ledger.budgets.revisions import Change
from ledger.budgets.terms import Terms
from ledger.db import BudgetRevision, Database, Published
from ledger.published import published_months
from ledger.settings import StoreSettings
from tests.support.audit_damage import DAMAGES, damage, write_from_two_processes
from tests.support.books_by_hand import charge, charges, write
from tests.support.postgres_server import copied_database, fresh_database, postgres_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.slow
def test_migrations_build_what_the_code_declares_on_both_databases(postgres: str, tmp_path: Path) -> None:
    for url in (postgres, f"sqlite:///{tmp_path / 'state.db'}"):
        database = Database(url)
        inspector = sa.inspect(database.engine)
        for name, table in Base.metadata.tables.items():
            assert {c["name"] for c in inspector.get_columns(name)} == set(table.columns.keys()), (url, name)
        database.close()


def test_several_processes_may_open_a_fresh_database_at_once(postgres: str) -> None:
    url = fresh_database(postgres, "fresh")
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(Database, [url] * 4))
    assert all(sa.inspect(d.engine).has_table("owners") for d in opened)
    for database in opened:
        database.close()


def test_books_on_postgresql(postgres: str, books: Books) -> None:
    settings = books.settings.model_copy(update={"store": StoreSettings(database_url=postgres)})
    with Books(settings) as served:
        registry.import_text(
            served, "agent,team,valid_from\nbot,Care,2026-10-01\nbot,Data,2026-11-01\n", uri="file", actor="test"
        )
        assert registry.timeline(registry.rows(served))["team"].to_list() == ["Care", "Data"]
        amount = Decimal("1234567890.123456789012")
        with served.database.session() as session:
            terms = Terms(name="b", scopes={"team": "Care"}, amount=amount)
            revisions.add(session, terms, Change("test"))
        with served.database.session() as session:
            assert session.scalars(sa.select(BudgetRevision)).one().amount == amount
        write(served, charges=charges(charge("1", service_name="S3", sku_meter=None)))
        report = attribute(served)
        with served.database.session() as session:
            assert session.get_one(Published, "2026-10").run_id == report.run_id


def test_what_was_read_is_read_again_after_a_commit_of_anybody(postgres: str) -> None:
    url = fresh_database(postgres, "revisions")
    reading, writing = Database(url), Database(url)

    def months() -> list[str]:
        return [month.month for month in published_months(reading)]

    def publish(month: str) -> None:
        with writing.session() as session:
            session.add(Published(month=month, run_id="run", rollup_ids=[], published_at=datetime(2026, 11, 1, tzinfo=UTC)))
            session.flush()
            assert month not in months(), "it is not committed yet"

    assert months() == months() == []
    values = [reading.unless_changed("test", lambda _: object()) for _ in range(2)]
    assert values[0] is values[1]
    publish("2026-10")
    assert reading.unless_changed("test", lambda _: object()) is not values[0]
    assert months() == ["2026-10"]
    publish("2026-11")
    assert months() == ["2026-10", "2026-11"]
    reading.close()
    writing.close()


def test_the_audit_log_is_one_chain_on_postgresql_and_every_damage_is_named(postgres: str) -> None:
    """Two processes write at once; `make audit POSTGRES=1` does it with thousands of entries."""
    url = fresh_database(postgres, "audit")
    Database(url).close()
    write_from_two_processes(url, 12)
    database = Database(url)
    report = verify_audit(database)
    assert (report.entries, report.verified, report.damages) == (24, 24, [])
    with database.session() as session:
        head = read_head(session)
    database.close()
    for seed, kind in enumerate(DAMAGES):
        damaged_database = Database(copied_database(url, "damaged"))
        sequences = damage(damaged_database, kind, random.Random(seed))
        report = verify_audit(damaged_database, [head])
        damaged_database.close()
        named_entries = {n for d in report.damages for n in range(d.first, d.last + 1)}
        assert sequences <= named_entries, (kind, sequences, report.damages)
        assert len(named_entries) <= len(sequences) + 1, (kind, sequences, report.damages)
