"""The ledger's folder is closed to other users, whatever the umask; older folders are closed when they are opened, and that is told once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.books import Books
from ledger.private import for_the_user, make_private, was_closed_now
from ledger.problems import Problem, to_frame
from ledger.spool import Body, Spool
from ledger.tables import PROBLEMS


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A user whose files everybody may read and write."""
    umask = os.umask(0)
    yield
    os.umask(umask)


def modes(home: Path) -> set[tuple[bool, int]]:
    """Whether it is a folder, and the permissions, of all that there is."""
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (home, *home.rglob("*"))}


@pytest.mark.usefixtures("open_umask")
def test_what_a_ledger_makes_is_its_owners_alone(home: Path) -> None:
    with Books.open(home) as books:
        books.store.append(PROBLEMS, to_frame([Problem("focus", "bill.csv", "line 2", "cost", "is no number", "mend it")]))
        Spool(home / "spool").append(bodies=[Body("otlp-traces", b"span")])
    assert not was_closed_now(home)
    assert modes(home) == {(True, 0o700), (False, 0o600)}
    report = home.parent / "report.csv"
    report.touch()
    for_the_user(report)  # what a user asks for follows the user's own umask
    assert stat.S_IMODE(report.stat().st_mode) == 0o666


@pytest.mark.usefixtures("open_umask")
def test_a_home_that_others_could_read_is_closed_and_told_once(home: Path) -> None:
    (home / "tables" / "spans").mkdir(parents=True)
    (home / "tables" / "spans" / "part.parquet").touch()
    (home / "script").touch(mode=0o755)
    other_file = home.parent / "other"
    other_file.touch()
    (home / "link").symlink_to(other_file)
    make_private(home)
    assert [was_closed_now(home) for _ in range(2)] == [True, False]
    (home / "link").unlink()
    assert modes(home) == {(True, 0o700), (False, 0o600), (False, 0o700)}
    assert stat.S_IMODE(other_file.stat().st_mode) == 0o666  # what a link leads to is not ours
    make_private(home)
    assert not was_closed_now(home)
