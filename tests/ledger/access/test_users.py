"""Users: somebody who may let others in is always left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ledger.access import users
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.errors import UsageError
from tests.support.people import add_person, cheap_passwords

ADMIN, VIEWER = Grant("admin"), Grant("viewer")


@pytest.mark.parametrize(
    "change",
    [
        lambda books, name: users.set_disabled(books, name, is_disabled=True, actor="test"),
        lambda books, name: users.remove_grants(books, name, [ADMIN], actor="test"),
        lambda books, name: users.set_grants(books, name, [VIEWER], actor="test"),
    ],
)
def test_the_last_administrator_stays(books: Books, change: Callable[[Books, str], object]) -> None:
    """One who was invited, or is of a team, does not count: nobody could log in and let others in."""
    with cheap_passwords():
        add_person(books, "root", "admin")
        users.add_user(books, "invited", [ADMIN], actor="test")
        add_person(books, "care", "admin:Care")
        with pytest.raises(UsageError, match="nobody would be administrator"):
            change(books, "root")
        assert users.find_user(books, "root").grants == (ADMIN,)
        assert users.find_user(books, "root").state == "active"
        add_person(books, "second", "admin")
        change(books, "root")
    assert users.find_user(books, "root").state == "disabled" or ADMIN not in users.find_user(books, "root").grants
