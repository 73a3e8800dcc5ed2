"""Findings about names that differ only in case, inner space or look, each with its money. (ID-3)

A name that is registered takes over its other spellings. These are the others: two of which neither is registered, one that could be either
of two registered ones, one that looks like another in full-width letters or blanks that do not show, and keys of tags that would name an owner
in another spelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import polars as pl

from attribution.costs import bill_tags
from ledger.money import known_sum, readable_amounts
from ledger.names import CUT_MARK, MAX_LENGTH, key, look_alike_key
from ledger.plurals import counted
from ledger.problems import Problem
from ledger.settings import AttributionSettings
from ledger.store import Store
from ledger.tables import COSTS, USAGE_HOURLY

_SOURCE = "attribution"
_OWNERS = {"team": ("initiator_team", "executor_team"), "agent": ("initiator_agent", "executor_agent")}
"""Kinds of names in `costs`, and the columns that hold them; the money is that of the first column which has the name."""
_LABELS = {"tenant": ("tenant",), "workflow": ("workflow",)}
"""Kinds of names in `usage_hourly`; the money is its list cost."""
_MAX_PROBLEMS = 50
_MAX_SHOWN = 60


def problems(
    store: Store,
    month: str,
    run_id: str,
    timeline: pl.DataFrame,
    groups: pl.DataFrame,
    settings: AttributionSettings,
    *,
    rollup_ids: Sequence[str],
    currency: str,
    uri: str,
) -> list[Problem]:
    """The findings of a month's costs, hourly usage and charge groups; at most 50 are listed one by one. `currency` is that of list prices."""
    costs = store.scan(COSTS, {"month": [month], "run_id": [run_id]})
    usage = store.scan(USAGE_HOURLY, {"month": [month], "rollup_id": list(rollup_ids)}).with_columns(
        effective_cost="list_cost", currency=pl.lit(currency)
    )
    named_by = [(costs, *item) for item in _OWNERS.items()] + [(usage, *item) for item in _LABELS.items() if rollup_ids]
    agents = timeline.filter(pl.col("kind").is_in(["agent", "alias"]))["name"]
    registered_names = {"team": set(timeline["team"].drop_nulls()), "agent": set(agents)}
    found_names = distinct_names([(rows_of_kind, columns) for rows_of_kind, _, columns in named_by])
    findings = [
        _problem(uri, kind, rows, registered_names.get(kind, set()))
        for names, (rows_of_kind, kind, columns) in zip(found_names, named_by, strict=True)
        for rows in similar_groups(names, rows_of_kind, columns, registered_names.get(kind, set()))
    ]
    findings += [
        _long_problem(uri, kind, rows)
        for names, (rows_of_kind, kind, columns) in zip(found_names, named_by, strict=True)
        for rows in cut_names(names, rows_of_kind, columns)
    ]
    keys = (*settings.owner_tags, *settings.owner_agent_tags)
    findings += [_key_problem(uri, *row) for row in bill_tags.similar_keys(groups, keys).iter_rows()]
    if len(findings) > _MAX_PROBLEMS:
        more_count = len(findings) - _MAX_PROBLEMS
        reason = f"similar_names: and {counted(more_count, 'more group')} of names"
        summary = Problem(_SOURCE, uri, "costs", "names", reason, "mend the first ones", more_count, "warning")
        return [*findings[:_MAX_PROBLEMS], summary]
    return findings


def distinct_names(tables: Sequence[tuple[pl.LazyFrame, Sequence[str]]]) -> list[pl.Series]:
    """The names that stand in these columns of each table, each once; the tables are read together.

    >>> costs = pl.LazyFrame({"initiator_team": ["Care", None], "executor_team": ["Care", "Search"]})
    >>> [names.sort().to_list() for names in distinct_names([(costs, ["initiator_team", "executor_team"])])]
    [['Care', 'Search']]
    """
    distinct = [
        pl.concat([table.select(name=column).drop_nulls().unique() for column in columns]).unique() for table, columns in tables
    ]
    return [frame["name"] for frame in pl.collect_all(distinct)]


def similar_groups(
    distinct: pl.Series, costs: pl.LazyFrame, columns: Sequence[str], registered_names: set[str]
) -> list[pl.DataFrame]:
    """Those of the distinct names that look alike and are not all registered: name, currency, effective_cost and rows, a frame for each look.

    >>> costs = pl.LazyFrame({"tenant": ["Acme", "acme", "Beta"], "currency": ["USD"] * 3, "effective_cost": [1, 2, 3]})
    >>> groups = similar_groups(pl.Series(["Acme", "acme", "Beta"]), costs, ["tenant"], set())
    >>> [group.select("name", "effective_cost").rows() for group in groups]
    [[('Acme', 1), ('acme', 2)]]
    >>> costs = pl.LazyFrame({"team": ["Care", "Ｃａｒｅ"], "currency": ["USD"] * 2, "effective_cost": [1, 2]})
    >>> [group["name"].to_list() for group in similar_groups(pl.Series(["Care", "Ｃａｒｅ"]), costs, ["team"], {"Care"})]
    [['Care', 'Ｃａｒｅ']]
    """
    names = distinct.to_frame("name")
    name_key = pl.col("name").str.to_lowercase().str.replace_all(r"\s", "")
    # Only few are looked at one by one: those that another resembles, and those whose letters are not ASCII's.
    is_ascii = pl.col("name").str.contains(r"^[\x00-\x7f]*$")
    other_letters = {look_alike_key(name) for name in names.filter(~is_ascii)["name"]}
    is_candidate = name_key.is_duplicated() | ~is_ascii | name_key.is_in(sorted(other_letters))
    by_key: dict[str, list[str]] = {}
    for name in names.filter(is_candidate)["name"].sort():
        by_key.setdefault(look_alike_key(name), []).append(name)
    for name in registered_names:
        # A registered name that nobody bears now may be the one that was meant.
        if (registered_key := look_alike_key(name)) in by_key and name not in by_key[registered_key]:
            by_key[registered_key].append(name)
    groups = [similar for similar in by_key.values() if len(similar) > 1 and not registered_names.issuperset(similar)]
    if not groups:
        return []
    totals = _totals(costs, columns, pl.Series([name for similar in groups for name in similar], dtype=pl.String))
    return [totals.filter(pl.col("name").is_in(similar)) for similar in groups]


def cut_names(distinct: pl.Series, costs: pl.LazyFrame, columns: Sequence[str]) -> list[pl.DataFrame]:
    """Those of the distinct names that were too long and are cut: name, currency, effective_cost and rows, a frame for each name."""
    names = distinct.filter(distinct.str.contains(CUT_MARK + "[0-9a-f]{12}$"))
    if not len(names):
        return []
    totals = _totals(costs, columns, names)
    return [totals.filter(pl.col("name") == name) for name in totals["name"].unique(maintain_order=True)]


def _totals(costs: pl.LazyFrame, columns: Sequence[str], names: pl.Series) -> pl.DataFrame:
    """Cost and rows of these names by currency, each by the first column that has it."""
    sums = [
        costs.filter(pl.col(column).is_in(names.implode()))
        .group_by(pl.col(column).alias("name"), "currency")
        .agg(known_sum("effective_cost"), pl.len().alias("rows"))
        .collect()
        for column in columns
    ]
    return pl.concat(sums).unique(["name", "currency"], keep="first", maintain_order=True).sort("name", "currency")


def _problem(uri: str, kind: str, rows: pl.DataFrame, registered_names: set[str]) -> Problem:
    names = rows["name"].unique(maintain_order=True).to_list()
    looks = {look_alike_key(name) for name in names}
    candidates = sorted(name for name in registered_names if look_alike_key(name) in looks)
    has_other_letters = len({key(name) for name in [*names, *candidates]}) > 1
    amounts = ", ".join(f"{_short(name)} {_money(cost, currency)}" for name, currency, cost, _ in rows.iter_rows())
    remedy = "send one spelling"
    if candidates and has_other_letters:
        reason = f"looks like the registered {', '.join(map(_short, candidates))} in other characters; it was not taken for it"
        remedy = "send the registered spelling, or register this one as an alias of its owner"
    elif candidates:
        reason = f"could be any of the registered {', '.join(map(_short, candidates))}; none was chosen"
        remedy = "send a registered spelling, or end all but one of them"
    elif has_other_letters:
        reason = f"the {kind}s look alike and are written in other characters; each has its own cost"
    elif kind in ("team", "agent"):
        reason = f"the {kind}s differ only in case or space and none is registered; each has its own cost"
        remedy = "register one spelling (`rootcost agents import`): the others are then the same"
    else:
        reason = f"the {kind}s differ only in case or space; each has its own cost, here at list prices"
    place = f"{kind} {', '.join(map(_short, names))}"
    return Problem(
        _SOURCE, uri, place, kind, f"similar_names: {amounts}: {reason}", remedy, int(rows["rows"].sum()), "warning", *_sum(rows)
    )


def _long_problem(uri: str, kind: str, rows: pl.DataFrame) -> Problem:
    amounts = ", ".join(_money(cost, currency) for _, currency, cost, _ in rows.iter_rows())
    reason = f"long_name: {amounts}: the {kind} has more than {MAX_LENGTH} characters; it is cut and ends in a hash of the whole"
    remedy = "send a shorter name; a name is no place for a prompt or a document"
    return Problem(
        _SOURCE, uri, f"{kind} {_short(rows['name'][0])}", kind, reason, remedy, int(rows["rows"].sum()), "warning", *_sum(rows)
    )


def _sum(rows: pl.DataFrame) -> tuple[Decimal | None, str | None]:
    """The cost of names and its currency; None where there are several currencies: the text has them all."""
    if rows["currency"].n_unique() != 1:
        return None, None
    return rows.select(known_sum("effective_cost")).item(), rows["currency"][0]


def _key_problem(uri: str, tag: str, written_tag: str, currency: str, charges: int, cost: Decimal | None) -> Problem:
    return Problem(
        _SOURCE,
        uri,
        f"tag {_short(written_tag)}",
        "tags",
        f"similar_names: {_money(cost, currency)} bear the tag {_short(written_tag)}, and {tag} names owners; this provider's tag keys are "
        "case-sensitive",
        f"tag with {tag}, or add {_short(written_tag)} to attribution.owner_tags or owner_agent_tags",
        charges,
        "warning",
        cost,
        currency,
    )


def _short(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN else name[: _MAX_SHOWN - 1] + "…"


def _money(cost: Decimal | None, currency: str) -> str:
    return f"{readable_amounts(cost)[0]} {currency}" if cost is not None else f"unpriced ({currency})"
