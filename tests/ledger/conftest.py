"""A ledger with one published month, made once for all tests of what happens to its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one published month; tests change copies of it."""
    from attribution.run import attribute
    from ledger.books import Books
    from tests.attribution.test_worked_example import OWNERS, chains
    from tests.support.books_by_hand import charge, charges, write

    home = tmp_path_factory.mktemp("published") / "home"
    with Books.open(home) as books:
        write(books, spans=chains(), charges=charges(charge("0.030000000000", tokens_k="10.0")), owners=OWNERS)
        attribute(books)
    return home


@pytest.fixture
def copied_home(published_home: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(published_home, tmp_path / "copy"))
