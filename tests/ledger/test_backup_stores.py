"""Backups of ledgers in PostgreSQL and on S3, to S3, and of earlier versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pytest
import sqlalchemy as sa

from attribution.run import attribute
from ledger import registry
from ledger.audit_verify import verify_audit
from ledger.backup import list_backups, make_backup, verify_backups
from ledger.books import Books
from ledger.db import Base
from ledger.errors import LedgerDamagedError, LedgerVersionError, StoreUnreachable, UsageError
from ledger.restore import restore
from ledger.settings import StoreSettings
from tests.attribution.test_worked_example import OWNERS, chains
from tests.ledger.test_backup import figures
from tests.ledger.test_store_s3 import bucket as bucket
from tests.ledger.test_upgrade import with_next_revision as with_next_revision
from tests.support.books_by_hand import charge, charges, write
from tests.support.cli_books import Command
from tests.support.postgres_server import fresh_database, postgres_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def fill(books: Books) -> None:
    """The worked example, attributed, with a budget."""
    write(books, spans=chains(), charges=charges(charge("0.03", tokens_k="10.0")), owners=OWNERS)
    attribute(books)


def rows_of(books: Books) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the database but for the audit trail, which a backup and a restore add to."""
    with books.database.engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=str)
            for table in Base.metadata.sorted_tables
            if not table.name.startswith("audit")
        }


@pytest.mark.slow
def test_a_ledger_in_postgresql_is_restored_into_sqlite_and_into_postgresql(
    postgres: str, books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_database(postgres, "served")
    target = str(tmp_path / "backups")
    with Books(books.settings.model_copy(update={"store": StoreSettings(database_url=url)})) as old_books:
        fill(old_books)
        expected_rows = rows_of(old_books)
        make_backup(old_books, target, actor="test")
    restore(target, tmp_path / "in-sqlite", actor="test")
    with Books.open(tmp_path / "in-sqlite") as new_books:
        assert new_books.database.engine.dialect.name == "sqlite"
        assert rows_of(new_books) == expected_rows
    in_sqlite = figures(tmp_path / "in-sqlite")

    monkeypatch.setenv("ROOTCOST_STORE__DATABASE_URL", url)
    with pytest.raises(UsageError, match=r"holds a ledger: its table .* has rows"):
        restore(target, tmp_path / "over-the-served", actor="test")
    monkeypatch.setenv("ROOTCOST_STORE__DATABASE_URL", fresh_database(postgres, "restored"))
    restore(target, tmp_path / "in-postgres", actor="test")
    with Books.open(tmp_path / "in-postgres") as new_books:
        assert new_books.database.engine.dialect.name == "postgresql"
        assert rows_of(new_books) == expected_rows
        assert verify_audit(new_books.database).damages == []
    assert figures(tmp_path / "in-postgres") == in_sqlite
    with Books.open(tmp_path / "in-postgres") as new_books:  # new rows get numbers of their own
        registry.import_text(new_books, OWNERS.replace("Care", "Support"), uri="owners.csv", actor="cli")
    assert not (tmp_path / "in-postgres/rootcost.db").exists()


@pytest.mark.slow
def test_tables_on_s3_are_backed_up_to_s3_and_restored_into_a_folder(
    books: Books, bucket: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket["aws_endpoint_url"])
    address = "s3://ledger/backups/rootcost"
    settings = books.settings.model_copy(update={"store": StoreSettings(uri="s3://ledger/tables", options=bucket)})
    with Books(settings) as remote:
        fill(remote)
        first = make_backup(remote, address, actor="test")
        second = make_backup(remote, address, actor="test", keep=1)
        with pytest.raises(UsageError, match="holds the tables"):
            make_backup(remote, "s3://ledger/tables", actor="test")
    assert (first.new_files > 10, second.new_files, second.removed_backups) == (True, 1, [first.backup_id])
    manifests, errors = list_backups(address)
    assert ([m.backup_id for m in manifests], errors) == ([second.backup_id], [])
    assert verify_backups(address, manifests) == []
    restore(address, tmp_path / "restored", actor="test")
    with Books.open(tmp_path / "restored") as new_books:
        assert "://" not in new_books.store.root
        assert not attribute(new_books).months  # nothing is due: facts, prices and registry are those of the published run

    content = next(iter(manifests[0].files.values())).digest
    boto3.client("s3").delete_object(Bucket="ledger", Key=f"backups/rootcost/files/{content[:2]}/{content}")
    assert verify_backups(address, manifests)[0].reason == "is missing"
    with pytest.raises(LedgerDamagedError, match=content):
        restore(address, tmp_path / "again", actor="test")


def test_a_bucket_that_does_not_answer_is_one_clear_error(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    options = {"endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"}
    with pytest.raises(StoreUnreachable, match="AWS_ENDPOINT_URL"):
        list_backups("s3://ledger/backups", options)


@pytest.mark.slow
@pytest.mark.clock
def test_a_backup_of_an_earlier_version_is_upgraded_and_one_of_a_later_version_refused(
    copied_home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target = str(tmp_path / "backups")
    assert Command(copied_home)("budgets", "set", "b", "--team", "Care", "--amount", "1").code == 0
    with Books.open(copied_home) as books:
        make_backup(books, target, actor="test")
    expected_figures = figures(copied_home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.restore.revisions", lambda: ("0000",))
        with pytest.raises(LedgerVersionError, match=r"made by RootCost .* this version knows up to 0000"):
            restore(target, tmp_path / "refused", actor="test")
    assert not (tmp_path / "refused").exists()
    request.getfixturevalue("with_next_revision")
    restore(target, tmp_path / "restored", actor="test")
    with closing(sqlite3.connect(tmp_path / "restored/rootcost.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
        assert connection.execute("SELECT name, note FROM budget_revisions").fetchall() == [("b", None)]
    assert figures(tmp_path / "restored") == expected_figures
