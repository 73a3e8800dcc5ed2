"""What must not change anybody's money: other names, other pieces, another order. And: nobody pays for what another did not log.

These properties of the engine's results hold whatever the rules say in detail, so they know neither the engine's logic nor the oracle's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import polars as pl

from ledger.settings import Settings
from ledger.tables import COST_COLUMNS, TOKEN_METERS
from tests.oracle.books import World
from tests.oracle.comparison import WHO, EngineResult, engine
from tests.oracle.names import FRAMEWORKS, PROVIDERS, SKUS, UNITS

Row = dict[str, Any]
Key = tuple[Any, ...]

AGENTS = {"support-bot": "zeta-bot", "researcher": "alpha", "coder": "mu", "cx": "kappa", "newcomer": "beta"}
TEAMS = {"Care": "Yonder", "Data": "Arts", "Dev": "Opera", "Growth": "Legal"}
ACCOUNTS = {"1111": "7777", "2222": "3333", "9999": "4444", "proj-a": "project-z"}
PAYERS = {"9999": "5000", "8888": "6000"}
IDS = {"arn:p1": "arn:q9", "arn:p2": "arn:q1", "i-gpu": "i-0f", "arn:runtime": "arn:a", "key-1": "key-z", "key-2": "key-a"}
IDS |= {"chat-1": "conversation 77", "indexer": "zzz-service", "inv-1111": "B-2", "inv-2222": "B-1", "inv-elsewhere": "A-0"}
"""Other names, in another order of the alphabet."""

_RENAMED: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("agent_name", "agent_id", "claimed_agent", "agent"), AGENTS),
    **dict.fromkeys(("credential_team", "claimed_team", "team"), TEAMS),
    **dict.fromkeys(("account_id", "sub_account_id"), ACCOUNTS),
    "billing_account_id": PAYERS,
    **dict.fromkeys(("principal", "resource_id", "credential", "conversation_id", "service_name", "invoice_id"), IDS),
}
_UNIT = Fraction(1, 10**12)


def changed_money(world: World, seed: int, result: EngineResult | None = None) -> str:
    """What somebody pays otherwise in the same world told otherwise, and what somebody pays for others; empty if nothing.

    `result` is what the engine concludes of the world as it is, where that is known.
    """
    random = Random(seed)
    plain = result or engine(world)
    changes: list[Callable[[World, Random], World]] = [renamed, in_pieces, reordered]
    other = world
    for change in changes:
        other = change(other, random)
    return "\n".join(filter(None, (overpaid(world, plain), moved_money(world, plain.costs, engine(other).costs))))


def renamed(world: World, random: Random) -> World:
    """Other names for agents, teams, accounts, payers, models, principals, keys and requests, and providers in other letters."""

    def name(row: Row) -> Row:
        row = {c: respelled(v, _RENAMED.get(c, {})) if isinstance(v, str) else v for c, v in row.items()}
        for column in ("response_model", "sku_meter", "model"):
            if row.get(column):
                row[column] = row[column].replace("4-6", "4-5").replace("4.6", "4.5")
        for column in ("provider_request_id", "request_ids", "gateway_call_id"):
            if row.get(column):
                row[column] = row[column].replace("r1", "resp_9").replace("r2", "resp_1").replace("g", "G-")
        if row.get("provider") in PROVIDERS.keys() | FRAMEWORKS and "usage_scope" in row:
            row["provider"] = random.choice([row["provider"], row["provider"].upper(), f" {row['provider']}"])
        if row.get("tags"):
            tags = {key: respelled(value, AGENTS | TEAMS) for key, value in json.loads(row["tags"]).items()}
            row["tags"] = json.dumps(tags)
        return row

    owners = [name(row) | {"name": _owner_name(row)} for row in world.owners]
    return replace(
        world,
        spans=[name(row) for row in world.spans],
        charges=[name(row) for row in world.charges],
        owners=owners,
        prices=[{**row, "model": row["model"].replace("4-6", "4-5")} for row in world.prices],
        settings=_renamed_settings(world.settings),
    )


def respelled(name: str, names: Mapping[str, str]) -> str:
    """The other name in the case of the name, between the same spaces. (ID-3)

    >>> respelled(" CARE", {"Care": "Yonder"}), respelled("Support-Bot", {"support-bot": "zeta-bot"}), respelled("n/a", TEAMS)
    (' YONDER', 'Zeta-Bot', 'n/a')
    """
    bare = name.strip()
    for old, new in names.items():
        for case in (str, str.upper, str.lower, str.title):
            if case(old) == bare:
                return name.replace(bare, case(new))
    return name


def _owner_name(row: Row) -> str:
    names = AGENTS if row["kind"] in ("agent", "alias") else IDS
    return names.get(str(row["name"]), str(row["name"]))


def _renamed_settings(settings: Settings) -> Settings:
    rules = [
        rule.model_copy(
            update={
                "teams": [TEAMS[team] for team in rule.teams],
                "shares": {TEAMS[team]: share for team, share in rule.shares.items()},
            }
        )
        for rule in settings.attribution.shared
    ]
    return settings.model_copy(update={"attribution": settings.attribution.model_copy(update={"shared": rules})})


def in_pieces(world: World, random: Random) -> World:
    """Some charges as two rows of half the money and half the quantity, and the bill in two files."""
    charges: list[Row] = []
    for row in world.charges:
        parts = _halves(row) if random.random() < 0.5 else [row]
        charges += [{**part, "scope": random.choice(["by-hand", "another file"])} for part in parts]
    return replace(world, charges=charges)


def _halves(row: Row) -> list[Row]:
    amounts = {c: row[c] for c in (*COST_COLUMNS, "consumed_quantity") if row.get(c) is not None}
    first = {c: (amount / 2).quantize(Decimal("1e-12")) for c, amount in amounts.items()}
    return [{**row, **first}, {**row, **{c: amount - first[c] for c, amount in amounts.items()}}]


def reordered(world: World, random: Random) -> World:
    """All facts in another order."""

    def shuffled(rows: Sequence[Row]) -> list[Row]:
        return random.sample(list(rows), len(rows))

    tables: dict[str, Any] = {table: shuffled(getattr(world, table)) for table in ("spans", "charges", "owners", "prices")}
    return replace(world, **tables)


def moved_money(world: World, plain: pl.DataFrame, other: pl.DataFrame) -> str:
    """Whose money differs between the costs of two worlds that are the same but for names, pieces and order."""
    row_slack = _slack_of_following(world)
    plain_sums, slack = _money(plain, {}, {}, row_slack)
    other_sums, other_slack = _money(other, _reversed(AGENTS), _reversed(TEAMS), row_slack)
    wrong = [
        f"{key}\n   plain {float(plain_sums[key]):.12f}, renamed, in pieces and in another order {float(other_sums[key]):.12f}"
        for key in sorted({*plain_sums, *other_sums}, key=str)
        if abs(plain_sums[key] - other_sums[key]) > slack[key] + other_slack[key]
    ]
    return "\n".join(wrong)


def _reversed(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def _slack_of_following(world: World) -> Fraction:
    """How far rounding may move a row of what follows other money: a last digit of its base, as many times as the one is the other.

    A tax of 1.30 on a charge of 0.0000013 follows shares that are a last digit wrong at most, each a millionth of a millionth.
    """
    amounts = [abs(Fraction(row[c])) for row in world.charges for c in COST_COLUMNS if row[c]]
    return 2 * _UNIT * max(amounts) / min(amounts) if amounts else Fraction(0)


def _money(
    costs: pl.DataFrame, agents: Mapping[str, str], teams: Mapping[str, str], row_slack: Fraction
) -> tuple[defaultdict[Key, Fraction], defaultdict[Key, Fraction]]:
    """Money by owner, class and column under the plain names, and how far rounding may move it.

    Each row is rounded to the last digit. What follows other money, or is estimated from it, carries its rounding along.
    """
    sums, slack = defaultdict[Key, Fraction](Fraction), defaultdict[Key, Fraction](lambda: 4 * _UNIT)
    for row in costs.iter_rows(named=True):
        owner = [row[c] and respelled(row[c], agents if c.endswith("agent") else teams) for c in WHO]
        cost_kind = row["month"], row["currency"], row["provider"], row["basis"], row["cost_class"]
        model = (row["model"] or "").replace("4-5", "4-6").replace("4.5", "4.6")
        for column in COST_COLUMNS:
            key = (*cost_kind, *owner, model, row["meter"], column)
            amount = Fraction(row[column] or 0)
            sums[key] += amount
            follows = row["rule"] == "RA-5" or row["basis"] == "estimated" or row["cost_class"] == "shared"
            slack[key] += 2 * _UNIT + (max(abs(amount) / 10**6, row_slack) if follows else 0)
    return sums, slack


_COARSER = {
    "reasoning_tokens": ("reasoning_tokens", "output_tokens"),
    "cache_write_1h_tokens": ("cache_write_1h_tokens", "cache_write_5m_tokens", "input_tokens"),
    "cache_write_5m_tokens": ("cache_write_5m_tokens", "input_tokens"),
    "cache_read_tokens": ("cache_read_tokens", "input_tokens"),
}
"""The meters that a bill may count a meter in."""


def overpaid(world: World, result: EngineResult) -> str:
    """Owners who pay more for a model than what they used themselves, at the dearest price on the bill of its hour; empty if nobody does.

    Who pays more pays for use that was billed and that others did not log.
    """
    tolerance = Fraction(world.settings.attribution.tolerance)
    paid, bound = defaultdict[Key, Fraction](Fraction), defaultdict[Key, Fraction](Fraction)
    rows = defaultdict[Key, int](int)
    for row in result.usage.filter(pl.col("meter").is_in(TOKEN_METERS)).iter_rows(named=True):
        key = (*(row[c] for c in WHO), row["model"])
        bound[key] += Fraction(row["quantity"]) * _dearest(world, row) / (1 - tolerance)
    # A charge without a quantity says nothing of what was not logged. (RA-3)
    is_metered = (pl.col("cost_class") == "metered") & (pl.col("basis") == "billed") & ~pl.col("rule").is_in(["RA-3", "RA-5"])
    for row in result.costs.filter(is_metered & pl.col("meter").is_in(TOKEN_METERS)).iter_rows(named=True):
        key = (*(row[c] for c in WHO), row["model"])
        paid[key] += Fraction(row["effective_cost"])
        rows[key] += 1
    wrong = [key for key in paid if paid[key] > bound[key] + (rows[key] + 1) * _UNIT]
    return "\n".join(
        f"{key}\n   pays {float(paid[key]):.12f}, its own use costs at most {float(bound[key]):.12f}" for key in wrong
    )


def _dearest(world: World, use: Row) -> Fraction:
    """The highest price of a token of this model and meter in this hour, or in the hour of its end. (RA-3)"""
    meters = _COARSER.get(use["meter"], (use["meter"],))
    prices = [Fraction(0)]
    for row in world.charges:
        sale, unit = SKUS.get(row.get("sku_meter") or ""), UNITS.get(row.get("consumed_unit") or "")
        quantity = Fraction(row.get("consumed_quantity") or 0) * (unit or 0)
        is_usage = row["charge_category"] == "Usage" and row.get("charge_class") is None
        hours = [hour for hour in (use["hour"], use["end_hour"]) if hour is not None]
        in_hour = any(row["charge_period_start"] <= hour < row["charge_period_end"] for hour in hours)
        if sale and is_usage and in_hour and quantity > 0 and sale.model == use["model"] and sale.meter in meters:
            prices.append(Fraction(row["effective_cost"]) / quantity)
    return max(prices)
