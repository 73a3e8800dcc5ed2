"""The first start and upgrades of the database: all or nothing, also when several processes start at once or one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from alembic import command as _loaded_before_forks  # noqa: F401 - each fork would load it again

from attribution.run import attribute
from ledger import upgrade
from ledger.audit_verify import verify_audit
from ledger.books import Books
from ledger.budgets.revisions import find, newest
from ledger.budgets.status import budgets_in_force
from ledger.db import Audit, Base, Checkpoint, Database
from ledger.errors import LedgerDamagedError, LedgerVersionError
from ledger.tables import COSTS
from tests.support.kills import forked
from tests.support.paths import ROOT

HOMES = sorted((ROOT / "tests/data/homes").glob("*/home.tar.xz"))


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def open_and_close(path: Path) -> None:
    Database(url_of(path)).close()


def die_at_statement(path: Path, number: int) -> None:
    """Opens the database, and is killed just before the statement of that number."""
    count = 0

    def count_down(*_: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "before_cursor_execute", count_down)
    open_and_close(path)


@pytest.fixture
def with_next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A version of the schema to come: one more column and one more table."""
    folder = tmp_path / "package" / "migrations"
    (folder / "versions").mkdir(parents=True)
    source = ROOT / "ledger/migrations"
    for file in (source / "env.py", *source.glob("versions/v*.py")):
        (folder / file.relative_to(source)).write_text(file.read_text())
    newest = upgrade.revisions()[-1]
    (folder / "versions/v9999_more.py").write_text(
        f'import sqlalchemy as sa\nfrom alembic import op\n\nrevision = "9999"\ndown_revision = "{newest}"\n\n\n'
        'def upgrade():\n    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))\n'
        '    op.add_column("budget_revisions", sa.Column("note", sa.String(9)))\n    op.drop_table("leaders")\n'
    )
    monkeypatch.setattr(upgrade, "files", lambda _: tmp_path / "package")
    upgrade.revisions.cache_clear()
    yield
    monkeypatch.undo()
    upgrade.revisions.cache_clear()


def restored(archive: Path, tmp_path: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "home"


@pytest.mark.parametrize("statement", [2, 9, 21, 28])
def test_a_killed_first_start_leaves_a_home_that_the_next_start_opens(tmp_path: Path, statement: int) -> None:
    path = tmp_path / "rootcost.db"
    assert forked(lambda: die_at_statement(path, statement)) == -signal.SIGKILL
    open_and_close(path)
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names >= set(Base.metadata.tables)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(upgrade.revisions()[-1],)]


def test_many_processes_may_start_at_once_on_a_new_home(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "home" / "rootcost.db"
    processes = [context.Process(target=open_and_close, args=(path,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6


@pytest.mark.parametrize("archive", HOMES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("statement", [5, 9, 11])
def test_a_killed_upgrade_changes_nothing(archive: Path, statement: int, tmp_path: Path, with_next_revision: None) -> None:
    path = restored(archive, tmp_path) / "rootcost.db"
    forked(lambda: die_at_statement(path, statement))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HOME_SCHEMA[archive.parent.name],)]
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('notes', 'leaders')").fetchone() == (1,)
    open_and_close(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
        assert connection.execute("SELECT amount, note FROM budget_revisions").fetchall() == [("1.5", None)]


HOME_SCHEMA = {"0.1.0": "0001"}
"""Version of RootCost to the schema of its homes."""


def test_a_copy_is_kept_before_each_upgrade(tmp_path: Path, with_next_revision: None) -> None:
    path, newest_released = restored(HOMES[0], tmp_path) / "rootcost.db", upgrade.revisions()[-2]
    for _ in range(upgrade.BACKUPS_KEPT + 2):
        open_and_close(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [newest_released])
            connection.execute("DROP TABLE notes")
            connection.execute("ALTER TABLE budget_revisions DROP COLUMN note")
            connection.execute("CREATE TABLE leaders (id INTEGER)")
    copies = sorted((path.parent / "backups").iterdir())
    assert len(copies) == upgrade.BACKUPS_KEPT
    assert {copy.stat().st_mode & 0o777 for copy in copies} == {0o600}
    with closing(sqlite3.connect(copies[-1])) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest_released,)]
        assert connection.execute("SELECT count(*) FROM owners").fetchone() == (3,)


def test_a_first_start_keeps_no_copy(home: Path) -> None:
    Books.open(home).close()
    assert not (home / "backups").exists()


def half_made(path: Path) -> sqlite3.Connection:
    """What a killed first start of 0.1.0 left: tables, and no revision."""
    open_and_close(path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM alembic_version")
    for name in ("audit", "audit_head", "audit_personal"):
        connection.execute(f"DROP TABLE {name}")
    connection.commit()
    return connection


def test_a_home_broken_by_a_killed_first_start_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "rootcost.db"
    half_made(path).close()
    database = Database(url_of(path))
    assert sa.inspect(database.engine).has_table("audit")
    database.close()


def test_a_broken_home_with_rows_is_left_alone_and_told(tmp_path: Path) -> None:
    path = tmp_path / "rootcost.db"
    with closing(half_made(path)) as connection, connection:
        connection.execute("INSERT INTO marks VALUES ('litellm', 's3://logs/', '2026-10-31', '2026-11-01')")
    with pytest.raises(LedgerDamagedError, match=r"rootcost\.db: the table marks has rows, .* restore a copy"):
        Database(url_of(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM marks").fetchone() == (1,)


def test_a_home_of_a_newer_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rootcost.db"
    open_and_close(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerVersionError, match=r"rootcost\.db: has schema 9999, and this version of RootCost knows up to"):
        Database(url_of(path))


@pytest.mark.parametrize("archive", HOMES, ids=lambda path: path.parent.name)
def test_a_home_of_an_earlier_version_gives_the_same_figures(archive: Path, tmp_path: Path) -> None:
    with Books.open(restored(archive, tmp_path)) as books:
        assert attribute(books).published

        def costs() -> list[tuple[object, ...]]:
            by_owner = (
                books.store.scan(COSTS).group_by("run_id", "cost_class", "initiator_team").agg(pl.col("effective_cost").sum())
            )
            return sorted(by_owner.drop("run_id").unique().collect().rows(), key=str)

        expected_costs = [
            ("metered", "Care", Decimal("0.018")),
            ("metered", "Dev", Decimal("0.009")),
            ("unallocated", None, Decimal("0.003")),
        ]
        assert costs() == expected_costs  # of the run of that version, and of a run of this one
        with books.database.session() as session:
            assert session.scalars(sa.select(Checkpoint.value)).all() == ["2026-10-31"]
        (candidate,) = budgets_in_force(books)
        revision = candidate.newest
        assert (revision.name, revision.amount, revision.scopes, revision.valid_from) == (
            "care",
            Decimal("1.5"),
            {"team": "Care"},
            None,
        )


@pytest.mark.parametrize("archive", HOMES, ids=lambda path: path.parent.name)
def test_the_audit_rows_of_an_earlier_version_are_chained_and_told(archive: Path, tmp_path: Path) -> None:
    path = restored(archive, tmp_path) / "rootcost.db"
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT actor, action, subject FROM audit ORDER BY id").fetchall()
    database = Database(url_of(path))
    report = verify_audit(database)
    with database.session() as session:
        entries = session.scalars(sa.select(Audit).order_by(Audit.sequence)).all()
    database.close()
    assert rows
    assert [(e.actor, e.action, e.subject) for e in entries] == [*rows, ("upgrade", "audit.chain", "audit")]
    assert (entries[-1].after or {})["entries"] == len(rows)
    assert (report.entries, report.verified, report.damages) == (len(rows) + 1, len(rows) + 1, [])


def test_revisions_of_an_earlier_version_keep_their_terms_and_an_ended_budget_stays_ended(tmp_path: Path) -> None:
    home = restored(HOMES[0], tmp_path)
    with closing(sqlite3.connect(home / "rootcost.db")) as connection, connection:
        row = "INSERT INTO budgets VALUES (?, ?, ?, ?, 'month', ?, 'USD', 'initiator', ?, ?, ?)"
        at = "2026-11-02 00:00:00.000000"
        connection.executemany(
            row,
            [
                (2, "care", "team", "Care", "2.25", 2, at, 0),
                (3, "old", "agent", "bot", "9", 1, at, 0),
                (4, "old", "agent", "bot", "9", 2, at, 1),
            ],
        )
    with Books.open(home) as books:
        (care,) = budgets_in_force(books)
        assert [(r.amount, r.valid_from is None) for r in care.revisions] == [(Decimal("1.5"), True), (Decimal("2.25"), False)]
        with books.database.session() as session:
            ended = find(session, "old")
            assert ended is not None
            assert (ended.revision, ended.ended_at is None, newest(session, ended).ended) == (2, False, True)
