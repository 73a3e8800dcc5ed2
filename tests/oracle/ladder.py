"""RA-4, RA-5: where the rest of a charge goes, and who pays what follows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ledger.settings import SharedRule
from tests.oracle.identity import Registry, spelled
from tests.oracle.money import UNIT
from tests.oracle.rating import Charge, Idle, Metered


@dataclass(frozen=True)
class Rest:
    """Money that no logged use explains: an owner's, a team's by a shared rule, idle, or nobody's."""

    cost_class: str
    agent: str | None
    team: str | None
    reason: str
    blur: Fraction = Fraction(0)


def owner(charge: Charge, registry: Registry, agent_tags: Sequence[str], team_tags: Sequence[str]) -> tuple[Any, Any] | None:
    """Agent and team by the charge's principal, else its resource, else its tags; as of the charge period's start. (RA-4)"""
    at = charge.row["charge_period_start"]
    for kind in ("principal", "resource"):
        name = charge.keys[kind]
        row = registry.holder(kind, name, at) if name else None
        if row:
            return row["agent"], registry.team(row["agent"], at) or row["team"]
    tags = json.loads(charge.row.get("tags") or "{}")
    named = next((name for tag in agent_tags if (name := spelled(tags.get(tag), registry.agent_names))), None)
    agent = registry.agent(named, at) if named else None
    team = next((name for tag in team_tags if (name := spelled(tags.get(tag), registry.team_names))), None)
    if agent or team:
        return agent, (registry.team(agent, at) if agent else None) or team
    return None


def walk_down(
    charges: Sequence[Charge], bill: Sequence[Charge], registry: Registry, rules: Sequence[SharedRule], tags: Any
) -> None:
    """RA-4 for whatever is left of these charges of a bill: owner, then shared rule, then unallocated."""
    for charge in charges:
        who = owner(charge, registry, *tags)
        agent, team = who or (None, None)
        charge.shares = [
            (Rest("idle", agent, team, "idle_capacity") if isinstance(to, Idle) else to, part) for to, part in charge.shares
        ]
        if charge.left and who:
            charge.give(Rest("owner", agent, team, charge.reason), charge.left)
            charge.left = Fraction(0)
    for charge in charges:
        # Reading: of the rules that fit, the first that knows whom to charge.
        fitting = [(rule, weights(rule, metered_by_team(bill, charge))) for rule in rules if fits(rule, charge) and charge.left]
        rule, by_team = next(((rule, shares) for rule, shares in fitting if shares), (None, {}))
        whole = sum(by_team.values(), Fraction(0))
        for team, weight in by_team.items():
            blur = _blur(len(bill) * len(by_team), whole) if rule and rule.method == "proportional" else Fraction(0)
            charge.give(Rest("shared", None, team, charge.reason, blur), charge.left * weight / whole)
        if not whole:
            charge.give(Rest("unallocated", None, None, charge.reason), charge.left)
        charge.left = Fraction(0)


def fits(rule: SharedRule, charge: Charge) -> bool:
    """Whether a shared rule takes a charge. Names are compared whole; an empty one is any. (RA-4)"""
    row = charge.row
    day = row["charge_period_start"].date()
    return (
        rule.provider in ("", row["provider_name"])
        and rule.service in ("", row.get("service_name"))
        and rule.charge_category in ("", row["charge_category"])
        and rule.valid_from <= day
        and (rule.valid_to is None or day < rule.valid_to)
    )


def metered_by_team(charges: Sequence[Charge], like: Charge) -> dict[str, Fraction]:
    """Metered effective cost of each initiating team in a charge's month and currency."""
    out: dict[str, Fraction] = {}
    for charge in charges:
        if all(charge.row[c] == like.row[c] for c in ("billing_month", "billing_currency")):
            for to, part in charge.shares:
                if isinstance(to, Metered) and to.use.owner.initiator_team:
                    team = to.use.owner.initiator_team
                    out[team] = out.get(team, Fraction(0)) + part * Fraction(charge.row["effective_cost"])
    return out


def weights(rule: SharedRule, metered: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """What each team's share weighs; nothing, if it sums to nothing, so that the money goes to the next step. (RA-4)"""
    if rule.method == "fixed":
        return {team: Fraction(weight) for team, weight in rule.shares.items()}
    teams = rule.teams or sorted(metered)
    if rule.method == "even":
        return dict.fromkeys(teams, Fraction(1))
    return {team: metered[team] for team in teams if metered.get(team, Fraction(0)) > 0}


def follow(followers: Sequence[Charge], charges: Sequence[Charge]) -> None:
    """RA-5: credits, refunds and corrections go as the charges they correct, tax as the charges it taxes.

    Reading: a credit corrects the charges that agree with everything it says of account, region, service, SKU, resource,
    principal and period, and a corrected row its own category; several weigh by their effective cost. Where that sums to nothing, or less, there is
    nothing to follow, and the ladder takes it.
    """
    for charge in followers:
        if charge.row["charge_category"] == "Tax":
            same = _taxed(charge, charges)
            reason = "tax"
        else:
            same = [c for c in charges if c not in followers and c.row["charge_category"] != "Tax" and _corrects(charge, c)]
            reason = reason_of(charge)
        whole = sum((Fraction(c.row["effective_cost"]) for c in same), Fraction(0))
        if whole <= 0:
            charge.reason = "tax_without_charge" if reason == "tax" else "credit_without_charge"
            continue
        for other in same:
            for to, part in other.shares:
                blur = _blur(len(same) * len(other.shares), whole)
                charge.give(Followed(to, reason, blur), part * Fraction(other.row["effective_cost"]) / whole)
        charge.left = Fraction(0)


@dataclass(frozen=True)
class Followed:
    """What comes along with a share of another charge: it takes its class and its owner."""

    to: Any
    reason: str
    blur: Fraction = Fraction(0)


def _blur(rows: int, whole: Fraction) -> Fraction:
    """How far a share may be off that goes by amounts which were rounded themselves: a last digit for each of them. (MO-1)"""
    return 2 * (rows + 4) * UNIT / abs(whole)


def reason_of(charge: Charge) -> str:
    """Why a row follows another."""
    if charge.row.get("charge_class") == "Correction":
        return "correction"
    return {"Credit": "credit", "Adjustment": "adjustment"}.get(charge.row["charge_category"], "refund")


def _taxed(tax: Charge, charges: Sequence[Charge]) -> list[Charge]:
    """The charges a tax is on: of its invoice, account and service; invoice and account; invoice; the provider's month. (RA-5)

    What the tax leaves out is any, and what no charge of the invoice (or month) has is passed over.
    """
    bill_keys = ("billing_currency", "billing_month", "provider_name", "billing_account_id")
    month = [
        c
        for c in charges
        if c.row["charge_category"] != "Tax" and all(c.row[k] == tax.row[k] for k in bill_keys if tax.row.get(k))
    ]
    invoice = [c for c in month if c.row.get("invoice_id") == tax.row["invoice_id"]] if tax.row.get("invoice_id") else []
    for scope in (invoice, month):
        own_keys = {c: tax.row.get(c) for c in ("sub_account_id", "service_name")}
        usable = {c: value for c, value in own_keys.items() if value and any(one.row.get(c) == value for one in scope)}
        for keys in (("sub_account_id", "service_name"), ("sub_account_id",), ()):
            taxed_charges = [one for one in scope if all(one.row.get(c) == usable[c] for c in keys if c in usable)]
            if sum((Fraction(one.row["effective_cost"]) for one in taxed_charges), Fraction(0)) > 0:
                return taxed_charges
    return []


_SAYS = ("sub_account_id", "region_id", "service_name", "sku_meter", "resource_id", "principal")


def _corrects(credit: Charge, charge: Charge) -> bool:
    same: tuple[str, ...] = ("billing_currency", "billing_month", "provider_name", "billing_account_id")
    same += ("charge_period_start", "charge_period_end")
    if credit.row["charge_category"] not in ("Credit", "Adjustment"):
        same += ("charge_category",)
    return all(credit.row[c] == charge.row[c] for c in same) and all(
        credit.row.get(c) is None or credit.row.get(c) == charge.row.get(c) for c in _SAYS
    )


def amount(row: Mapping[str, Any], column: str) -> Fraction:
    """One cost column of a charge; nothing said is nothing charged."""
    value: Decimal | None = row.get(column)
    return Fraction(value or 0)
