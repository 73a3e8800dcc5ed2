"""Why a figure is what it is: the story of a chain, a call or a charge, in sentences and in the rows they are told from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import CallCost, ChainTree, Explanation, MeterCost
from api.queries.chains import chain_ids, find_calls, find_chain
from api.queries.published import published, scan_runs
from ledger import money
from ledger.books import Books
from ledger.errors import ObjectMissingError
from ledger.periods import month_end, month_start
from ledger.tables import CHARGES, COSTS, RATES

_METHODS = {
    "path": "it is the topmost agent on the path from the call to the root",
    "claim": "the path is broken, and a trusted source names it as the root agent",
    "conversation": "it owns the conversation the call belongs to",
    "credential": "the registry gives it the API key that was used",
    "principal": "the registry gives it the cloud identity that was used",
    "service": "the registry gives it the service that called",
    "unknown": "nothing on the path, and no key, identity or service, names an agent",
}
_NOBODY = (None, "", "unknown")
_MOST_ROWS = 200
"""Rows of a kind that an explanation carries; the sentences speak of all."""


def explain(books: Books, ref: str) -> Explanation:
    """Explains a chain (its id), a call (gateway call id, provider request id or span id) or a charge (its id).

    Raises `ObjectMissingError` if the published figures know nothing by that name.
    """
    tree = find_chain(books, ref)
    if tree is not None:
        return _of_chain(ref, tree)
    found = find_calls(books, ref)
    if found:
        return _of_calls(books, ref, found)
    charges = books.store.scan(CHARGES).filter(pl.col("charge_id") == ref).collect()
    if charges.height:
        return _of_charges(books, ref, charges)
    raise ObjectMissingError(
        "no chain, call or charge by that name",
        where=ref,
        remedy="give the id of a chain (rootcost serve, Chains), of a gateway call, or of a charge",
    )


def _of_chain(ref: str, tree: ChainTree) -> Explanation:
    summary = tree.chain
    calls = [call for node in tree.nodes for call in node.calls]
    size = f"has {summary.spans} spans and {summary.calls} calls, and costs {_amounts(tree.cost)} ({tree.basis or 'not priced'})"
    sentences = [
        f"The chain {summary.root_name or ref} started at {summary.start_time:%Y-%m-%d %H:%M:%S} UTC, {size}.",
        _who(summary.initiator_agent, summary.initiator_team, summary.method),
    ]
    if summary.reason:
        sentences.append(f"Its tree is doubtful: {summary.reason}.")
    burned: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for call in calls:
        for currency, cost in call.own_cost.items():
            burned["Nobody known" if call.executor_agent in _NOBODY else str(call.executor_agent), currency] += cost
    for (agent, currency), cost in sorted(burned.items(), key=lambda item: (-item[1], item[0])):
        sentences.append(f"{agent} burned {money.text(cost)} {currency} of it.")
    if tree.unpriced_calls:
        sentences.append(f"{tree.unpriced_calls} calls are not priced in full: no published cost matches them.")
    return Explanation(ref=ref, kind="chain", sentences=sentences, facts={"tree": tree.model_dump(mode="json")})


def _of_calls(books: Books, ref: str, found: list[CallCost]) -> Explanation:
    sentences: list[str] = []
    for call in found:
        whom = f"{call.provider or 'an unknown provider'}, {call.model or 'an unknown model'}"
        sentences.append(
            f"The call at {call.start_time:%Y-%m-%d %H:%M:%S} UTC to {whom}, "
            f"was told of by {call.channels.replace('+', ' and ')} and costs {_amounts(call.own_cost)}."
        )
        sentences += [f"{money.text(meter.quantity)} {meter.meter}: {_price(meter)}." for meter in call.meters]
        sentences.append(_who(call.initiator_agent, call.initiator_team, call.method))
        sentences.append(f"{'Nobody known' if call.executor_agent in _NOBODY else call.executor_agent} made it.")
    chains = sorted({c for call in found for c in chain_ids(books, call)})
    rates = _rates(books, found)
    sentences += [
        f"The rate of {row['meter']} comes from pool {row['pool_id']}, compared at level {row['level']}"
        + (f" and flagged {row['flag']}." if row["flag"] else ".")
        for row in rates
    ]
    facts = {"calls": [call.model_dump(mode="json") for call in found], "chains": chains, "rates": plain(rates)}
    return Explanation(ref=ref, kind="call", sentences=sentences, facts=facts)


def _price(meter: MeterCost) -> str:
    if meter.own_cost is None:
        return f"no price: {meter.reason}"
    if meter.currency is None:
        return f"free: {meter.reason}"
    return f"{money.text(meter.own_cost)} {meter.currency}, {meter.basis}"


def _rates(books: Books, found: Iterable[CallCost]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for call in found:
        frame = scan_runs(books, RATES, published(books))
        frame = frame.filter(
            (pl.col("period_start") <= call.start_time)
            & (pl.col("period_end") > call.start_time)
            & pl.col("provider").eq_missing(pl.lit(call.provider, dtype=pl.String))
            & pl.col("model").eq_missing(pl.lit(call.model, dtype=pl.String))
            & pl.col("meter").is_in([meter.meter for meter in call.meters])
        )
        rows += frame.sort("meter", "pool_id").collect().to_dicts()
    return rows[:_MOST_ROWS]


def _of_charges(books: Books, ref: str, charges: pl.DataFrame) -> Explanation:
    sentences: list[str] = []
    found: list[pl.DataFrame] = []
    for row in charges.iter_rows(named=True):
        sentences.append(_line(row))
        pool = _pool(books, row)
        found.append(pool)
        sentences += _shares(pool, row["billing_currency"])
    pools = pl.concat(found)
    facts = {
        "charges": plain(charges.to_dicts()),
        "pools": pools["pool_id"].drop_nulls().unique().sort().to_list(),
        "costs": plain(pools.head(_MOST_ROWS).to_dicts()),
    }
    return Explanation(ref=ref, kind="charge", sentences=sentences, facts=facts)


def _line(row: Mapping[str, Any]) -> str:
    place = f"Line {'?' if row['line'] is None else row['line']} of {row['scope']}, invoice month {row['billing_month']}"
    seller = ", ".join(name for name in (row["provider_name"], row["service_name"]) if name)
    sold = row["charge_description"] or row["sku_meter"] or "no description"
    amounts = [f"{kind} {money.text(row[f'{kind}_cost']) or 'unknown'}" for kind in ("effective", "billed")]
    return f"{place}: {row['charge_category']} of {seller}, {sold}, {', '.join(amounts)} {row['billing_currency']}."


def _pool(books: Books, charge: Mapping[str, Any]) -> pl.DataFrame:
    """Costs of the pools a charge may be in: same month, period, currency and, where both know them, account, service …"""
    months = published(books, month_start(charge["billing_month"]), month_end(charge["billing_month"]))
    frame = scan_runs(books, COSTS, months).filter(
        (pl.col("period_start") == charge["charge_period_start"])
        & (pl.col("period_end") == charge["charge_period_end"])
        & (pl.col("currency") == charge["billing_currency"])
        & (pl.col("basis") == "billed")
    )
    for column, value in (
        ("billing_account", charge["billing_account_id"]),
        ("account", charge["sub_account_id"]),
        ("service", charge["service_name"]),
        ("region", charge["region_id"]),
        ("resource", charge["resource_id"]),
        ("charge_category", charge["charge_category"]),
        ("invoice_id", charge["invoice_id"]),
    ):
        if value is not None:
            frame = frame.filter(pl.col(column).is_null() | (pl.col(column) == value))
    return frame.sort("effective_cost", "pool_id", "initiator_agent", descending=[True, False, False], nulls_last=True).collect()


def _shares(pool: pl.DataFrame, currency: str) -> list[str]:
    if not pool.height:
        return ["No published cost stems from its period yet: its month is not attributed, or it was restated since."]
    sums = pool.group_by("cost_class", "reason", "initiator_team", "initiator_agent").agg(
        pl.col("effective_cost").sum().alias("cost")
    )
    told = []
    for row in (
        sums.sort("cost", "cost_class", "initiator_agent", descending=[True, False, False], nulls_last=True)
        .head(20)
        .iter_rows(named=True)
    ):
        why = f" ({row['reason']})" if row["reason"] else ""
        who = row["initiator_agent"] or row["initiator_team"] or "nobody"
        told.append(f"{money.text(row['cost'])} {currency} of them is {row['cost_class']}{why}, on {who}.")
    return [
        f"Its period, account and service are those of {pool['pool_id'].n_unique()} pools, which hold {pool.height} costs.",
        *told,
    ]


def _who(agent: str | None, team: str | None, method: str | None) -> str:
    why = _METHODS.get(method or "unknown", f"found by {method}")
    if agent in _NOBODY and team in _NOBODY:
        return f"Nobody is known to have started it: {_METHODS['unknown']}."
    return f"{agent or 'An agent without a name'} of team {team or 'unknown'} started it: {why}."


def _amounts(costs: Mapping[str, Decimal]) -> str:
    return " and ".join(f"{money.text(cost)} {currency}" for currency, cost in sorted(costs.items())) or "nothing known"


def plain(value: Any) -> Any:
    """Rows as JSON carries them: money as decimal strings, times as ISO 8601."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return money.text(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value
