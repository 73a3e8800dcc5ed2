"""One answer, one publication: what is published while an answer is computed changes no part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import ParamSpec, TypeVar

from ledger.db import Database
from ledger.errors import RootCostError, StoreUnreachable
from ledger.published import PublishedMonth, published_months

_MONTHS: ContextVar[dict[Database, list[PublishedMonth]] | None] = ContextVar("published months of one answer", default=None)
_MAX_ATTEMPTS = 5

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def one_publication(query: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """A query all of whose answer is of the runs that are in force when it begins. Every query that reads what is published is one.

    The rows of a superseded run may be deleted before an answer has read them all. So an answer during which something was published is
    computed again; raises `StoreUnreachable` if that happens every time.
    """

    @wraps(query)
    def answer(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
        if _MONTHS.get() is not None:
            return query(*arguments, **options)
        for _ in range(_MAX_ATTEMPTS):
            months = dict[Database, list[PublishedMonth]]()
            token = _MONTHS.set(months)
            try:
                complete_answer = query(*arguments, **options)
            except RootCostError:
                if _are_in_force(months):
                    raise
                continue
            finally:
                _MONTHS.reset(token)
            if _are_in_force(months):
                return complete_answer
        raise StoreUnreachable("months are published faster than they can be read", remedy="ask again, or for less at once")

    return answer


@contextmanager
def pinned_runs(database: Database, runs: Mapping[str, str]) -> Iterator[None]:
    """Within an answer: these months are read from these runs, which closed months keep, whatever has been published since."""
    months = [replace(month, run_id=runs.get(month.month, month.run_id)) for month in months_of_answer(database)]
    token = _MONTHS.set({**(_MONTHS.get() or {}), database: months})
    try:
        yield
    finally:
        _MONTHS.reset(token)


def months_of_answer(database: Database) -> list[PublishedMonth]:
    """Published months, oldest first: within an answer those that were in force when it first asked."""
    months = _MONTHS.get()
    if months is None:
        return published_months(database)
    if database not in months:
        months[database] = published_months(database)
    return months[database]


def _are_in_force(months: Mapping[Database, Sequence[PublishedMonth]]) -> bool:
    return all(published_months(database) == in_force for database, in_force in months.items())
