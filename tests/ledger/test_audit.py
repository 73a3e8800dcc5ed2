"""The audit log is one chain, whoever writes; every entry that is edited, removed, moved or cut off is named; people can be erased from it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger.audit import Audit, AuditPersonal, Head, append_entries, canonical, erase, record
from ledger.audit_denials import DenialLog
from ledger.audit_heads import keep_head, kept_heads, parse_head
from ledger.audit_verify import read_head, verify_audit
from ledger.base import Base
from ledger.books import Books
from ledger.db import Budget, Database, Owner, UnauditedChangeError
from ledger.errors import StoreUnreachable, UsageError
from ledger.settings import AuditSettings
from tests.support.audit_damage import DAMAGES, append, damage, write_from_two_processes

AT = datetime(2026, 10, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a chain of sixteen entries, by two writers at once."""
    path = tmp_path_factory.mktemp("audit") / "rootcost.db"
    Database(f"sqlite:///{path}").close()
    write_from_two_processes(f"sqlite:///{path}", 8)
    return path


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Database:
    path = tmp_path / "rootcost.db"
    path.write_bytes(template.read_bytes())
    return Database(f"sqlite:///{path}")


def head_of(database: Database) -> Head:
    with database.session() as session:
        return read_head(session)


def test_two_writers_make_one_chain(database: Database) -> None:
    report = verify_audit(database)
    assert (report.entries, report.verified, report.first_bad) == (16, 16, None)
    assert report.head == head_of(database)
    with database.session() as session:
        writers = set(session.scalars(sa.select(Audit.actor)))
    assert writers == {"writer-0", "writer-1"}


@pytest.mark.parametrize("seed", range(8))
def test_every_damage_is_named(database: Database, seed: int) -> None:
    head, draw = head_of(database), random.Random(seed)
    kind = list(DAMAGES)[seed % len(DAMAGES)]
    damage_rows = damage(database, kind, draw)
    report = verify_audit(database, [head])
    entry_names = {n for d in report.damages for n in range(d.first, d.last + 1)}
    assert damage_rows <= entry_names, (kind, damage_rows, report.damages)
    assert report.first_bad == min(entry_names)
    assert len(entry_names) <= len(damage_rows) + 1, (kind, damage_rows, report.damages)
    assert report.verified == report.entries - len(entry_names & present(database))


def present(database: Database) -> set[int]:
    with database.session() as session:
        return set(session.scalars(sa.select(Audit.sequence)))


@pytest.mark.parametrize("rewritten", [False, True], ids=["cut off", "written anew"])
def test_a_tail_that_was_changed_with_its_head_shows_against_a_head_kept_elsewhere(database: Database, rewritten: bool) -> None:
    head = head_of(database)
    with database.session() as session:
        session.execute(sa.delete(Audit).where(Audit.sequence > 13))
        last = session.scalars(sa.select(Audit).where(Audit.sequence == 13)).one()
        session.execute(sa.text("UPDATE audit_head SET sequence = 13, hash = :hash"), {"hash": last.hash})
    if rewritten:
        append(database, "forger", 3)
    assert verify_audit(database).damages == []
    (verification,) = verify_audit(database, [head]).damages
    assert (verification.first, verification.last) == ((16, 16) if rewritten else (14, 16))


def test_a_head_is_kept_in_a_folder_once_and_never_overwritten(books: Books, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    books.settings = books.settings.model_copy(update={"audit": AuditSettings(heads_uri=str(folder))})
    assert keep_head(books) is None  # nothing was recorded yet
    append(books.database, "ann", 2)
    head = keep_head(books)
    assert head == head_of(books.database)
    assert keep_head(books) is None
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o400
    assert kept_heads(books) == [head] == [parse_head(f"{head.sequence}:{head.hash}")]
    books.settings = books.settings.model_copy(update={"audit": AuditSettings(heads_uri=str(path))})
    append(books.database, "ann", 1)
    with pytest.raises(StoreUnreachable, match=r"audit\.heads_uri, the"):
        keep_head(books)
    with pytest.raises(UsageError, match="SEQUENCE:HASH"):
        parse_head("12")


def test_a_person_is_erased_and_the_chain_still_verifies(database: Database) -> None:
    with database.session() as session:
        record(
            session, "p-17", "user.add", "p-17", after={"role": "viewer"}, personal={"email": "ann@example.com", "name": "Ann"}
        )
    with database.session() as session:
        entry = session.scalars(sa.select(Audit).order_by(Audit.sequence.desc())).first()
        assert entry is not None
        assert "ann" not in str([entry.before, entry.after, entry.personal, entry.subject]).lower()
        assert erase(session, "cli", "ann@example.com") == 1
        assert erase(session, "cli", "nobody") == 0
    assert verify_audit(database).damages == []
    with database.session() as session:
        assert [row.value for row in session.scalars(sa.select(AuditPersonal))] == ["Ann"]
        session.execute(sa.delete(AuditPersonal))
    (verification,) = verify_audit(database).damages
    assert (verification.first, verification.reason) == (17, "has lost its name, and no entry says that it was erased")


def test_a_clear_value_that_was_changed_is_named(database: Database) -> None:
    with database.session() as session:
        record(session, "p-17", "user.add", "p-17", personal={"name": "Ann"})
    with database.session() as session:
        session.execute(sa.update(AuditPersonal).values(value="Bob"))
    (verification,) = verify_audit(database).damages
    assert (verification.first, verification.reason) == (17, "has another name beside it than was written")


def fail_after_an_entry(database: Database) -> None:
    with database.session() as session:
        record(session, "cli", "budget.add", "b")
        session.execute(sa.text(str(1 // 0)))


def test_an_entry_is_made_with_its_change_or_not_at_all(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_an_entry(database)
    assert verify_audit(database).entries == 16
    with database.session() as session:
        record(session, "cli\x00", "x" * 9, "s" * 900, after={"big": 2**70, "odd": "\ud800", "at": AT, "nan": float("nan")})
    assert verify_audit(database).verified == 17
    with database.session() as session, pytest.raises(TypeError, match="cannot hold a bytes"):
        record(session, "cli", "budget.add", "b", after={"raw": b"x"})


def add_budget(session: sa.orm.Session) -> None:
    session.add(Budget(budget_id="bud-1", name="b", created_at=AT))


def drop_owners(session: sa.orm.Session) -> None:
    session.execute(sa.delete(Owner))


@pytest.mark.parametrize("change", [add_budget, drop_owners])
def test_a_change_without_an_entry_is_not_committed(database: Database, change: Callable[[sa.orm.Session], None]) -> None:
    with pytest.raises(UnauditedChangeError, match=r"call ledger\.audit\.record"), database.session() as session:
        change(session)
    with database.session() as session:
        change(session)
        record(session, "test", "change", "b")
    with database.session() as session:
        append_entries(session)  # nothing to append: no lock is taken
    assert verify_audit(database).entries == 17


def test_every_table_says_which_of_its_changes_are_audited() -> None:
    for mapper in Base.registry.mappers:
        audited_tables = mapper.class_.audited
        assert audited_tables <= {"*", *(column.key for column in mapper.columns)}, mapper.class_


def test_denials_are_recorded_and_bounded(database: Database) -> None:
    seconds = 0.0
    denials = DenialLog(database, clock=lambda: seconds)
    for _ in range(500):
        denials.note("POST /v1/budgets", status=401, reason="the token is wrong", address="127.0.0.1")
    for number in range(500):
        denials.note("POST /v1/budgets", status=401, reason="the token is wrong", address=f"10.0.{number // 250}.{number % 250}")
    seconds = 61.0
    denials.note("POST /v1/budgets", status=401, reason="the token is wrong", address="127.0.0.1")
    denials.note("POST /v1/budgets", status=401, reason="the token is wrong", address="10.9.9.9")
    with database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.action == "access.denied").order_by(Audit.sequence)).all()
    assert len(rows) <= 63
    assert sum(row.after["denials"] for row in rows if row.after) >= 501
    assert (rows[0].actor, rows[0].actor_kind, rows[0].subject) == ("anonymous", "anonymous", "POST /v1/budgets")
    assert verify_audit(database).damages == []


RFC_8785 = [  # section 3.2.2 to 3.2.4 of the RFC, and number samples of its appendix B
    (
        {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "string": '€$\x0f\nA\'B"\\\\"/', "literals": [None, True, False]},
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    ),
    (
        {"€": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One", "😀": "Emoji", "\x80": "Control", "ö": "o"},
        '{"\\r":"Carriage Return","1":"One","\x80":"Control","ö":"o","€":"Euro Sign","😀":"Emoji","\ufb33":"Hebrew Letter Dalet With Dagesh"}',
    ),
    ([0.0, -0.0, 5e-324, 1.7976931348623157e308, 9007199254740991, 1e21, 9.999999999999997e-7, 1e-6], '[0,0,5e-324,1.7976931348623157e+308,9007199254740991,1e+21,9.999999999999997e-7,0.000001]'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "canonical_text"), RFC_8785, ids=["example", "sorting", "numbers"])
def test_canonical_json_is_that_of_the_rfc(value: object, canonical_text: str) -> None:
    assert canonical(value).decode() == canonical_text
