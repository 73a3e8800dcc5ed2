"""People for tests: cheap passwords, a browser's headers, users who can log in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from argon2 import PasswordHasher

from ledger.access import links, passwords, users
from ledger.access.principals import Grant
from ledger.books import Books

PASSWORD = "four words nobody says"
BROWSER = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html,*/*;q=0.8"}


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Argon2 with its least parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


def add_person(books: Books, name: str, *grants: str) -> str:
    """A user with `PASSWORD`; returns what the cookie of a session holds."""
    users.add_user(books, name, [Grant.parse(grant) for grant in grants], actor="test")
    token, _ = links.user_link(books, name, actor="test")
    return links.use(books, token, name="", password=PASSWORD)


def log_in(http: Any, name: str, password: str = PASSWORD, **fields: str) -> Any:
    """The answer to the form of the log-in, as a browser sends it."""
    form = {"name": name, "password": password, **fields}
    return http.post("/login", data=form, headers=BROWSER, follow_redirects=False)
