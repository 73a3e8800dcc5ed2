"""Names that budgets can be about: those that are registered or have spent. Others are accepted, and flagged."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import polars as pl

from ledger import names
from ledger.books import Books
from ledger.budgets.spend import Spelling, column_of, in_force_costs
from ledger.budgets.terms import DIMENSIONS, Terms


def read(books: Books) -> dict[str, set[str]]:
    """Dimension to names. The organisation has none: it is whatever the ledger holds."""
    names_by_dimension: dict[str, set[str]] = {dimension: set() for dimension in DIMENSIONS if dimension != "organisation"}
    for dimension, registered_names in Spelling(books).registered_names.items():
        names_by_dimension[dimension] |= registered_names
    costs = in_force_costs(books)
    if costs is None:
        return names_by_dimension
    columns = {column_of(dimension, view): dimension for dimension in names_by_dimension for view in ("initiator", "executor")}
    spent = costs.select(pl.col(column).drop_nulls().unique().implode() for column in columns).collect()
    for column, dimension in columns.items():
        names_by_dimension[dimension].update(spent[column][0])
    return names_by_dimension


def notes(books: Books, terms: Mapping[str, Terms]) -> dict[str, list[str]]:
    """What somebody should know of budgets: names that nobody has heard of, and budgets that count the same cost twice. By budget id."""
    if not terms:
        return {}
    names_by_dimension = {
        dimension: {names.key(name) for name in dimension_names} for dimension, dimension_names in read(books).items()
    }
    result = {budget_id: _unknown(one, names_by_dimension) for budget_id, one in terms.items()}
    for (first_id, first), (second_id, second) in combinations(terms.items(), 2):
        if _measure(first) == _measure(second) and _meet(first, second):
            result[first_id].append(f"overlaps {second.name}: the same cost counts against both")
            result[second_id].append(f"overlaps {first.name}: the same cost counts against both")
    return result


def _unknown(terms: Terms, names_by_dimension: Mapping[str, set[str]]) -> list[str]:
    return [
        f"no {dimension} {name!r} is registered or has spent so far"
        for dimension, name in terms.scopes.items()
        if dimension in names_by_dimension and names.key(name) not in names_by_dimension[dimension]
    ]


def _measure(terms: Terms) -> tuple[object, ...]:
    """What two budgets have in common that count the same cost."""
    scopes = tuple(
        sorted((dimension, names.key(name)) for dimension, name in terms.scopes.items() if dimension != "organisation")
    )
    return scopes, terms.view, terms.period, terms.basis, terms.infrastructure, terms.shared


def _meet(first: Terms, second: Terms) -> bool:
    """Whether their windows have an instant in common."""
    if first.range_start is None or first.range_end is None or second.range_start is None or second.range_end is None:
        return True
    return first.range_start < second.range_end and second.range_start < first.range_end
