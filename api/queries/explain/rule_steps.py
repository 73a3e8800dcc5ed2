"""Steps about the cost class, the run and the balance of a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa

from api.models import Part, Step
from api.queries.explain import text
from api.queries.explain.text import Figure, amount, amounts
from api.queries.gate import WHOLE, published, scan_runs
from ledger import code, registry
from ledger.db import Run
from ledger.plurals import counted
from ledger.rule_store import settings_in_force
from ledger.settings import SharedRule
from ledger.tables import BALANCE, CHARGES, COST_CLASSES, PRICES

_RULES: Mapping[str, str] = {
    "RA-1a": "matched to calls on fewer keys, because the calls lack some",
    "RA-2": "matched to logged usage, and split by the quantity of each call",
    "RA-2b": "set aside: its emitter's quantity is more than 20 times what was billed, so it pays for nothing and scales nobody down",
    "RA-3": "split by the use of the resource in that period",
    "RA-4": "no logged usage matches it: allocated to its owner by principal, resource or tag, else unallocated",
    "RA-5": "allocated like the charges it corrects or taxes, by the same weights",
    "ES-1": "no bill covers it yet: list price times the recent ratio of billed to list cost",
    "ES-2": "unpriced: the price book has no price for it",
}
_CLASSES: Mapping[str, str] = {
    "metered": "priced from what calls used",
    "owner": "owned according to the bill; no logged call matches it",
    "shared": "split by a shared-cost rule",
    "idle": "provisioned capacity that was not used",
    "unallocated": "no owner is known",
}


def class_step(figure: Figure) -> Step:
    """The cost class of each part, and the rule that allocated it. (RA-2 … RA-5, ES-1, ES-2)"""
    groups = text.top_groups(
        figure.rows,
        ["cost_class", "basis", "rule", "reason", "charge_category"],
        figure.most,
        pl.col("method").drop_nulls().unique().sort(),
    )
    rules = list(dict.fromkeys(row["rule"] for row in groups.top if row["rule"]))
    rules_in_force = {rule.label: rule for rule in reversed(settings_in_force(figure.books.whole).attribution.shared)}
    return Step(
        step="class",
        rule=", ".join(rules) or "RA-2",
        sentence="Every part has one cost class, set by one rule.",
        parts=[_class_part(figure, row, rules_in_force.get(row["rule"] or "")) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _class_part(figure: Figure, row: dict[str, Any], shared_rule: SharedRule | None) -> Part:
    name = row["rule"] or ""
    facts = {key: row[key] for key in ("cost_class", "basis", "rule", "reason", "charge_category")}
    description = _RULES.get(name, _CLASSES.get(row["cost_class"], ""))
    by_rule = row["cost_class"] == "shared" or "@" in name
    if by_rule:
        description = f"shared-cost rule {name!r}, {', '.join(row['method']) or 'as configured then'}"
        if shared_rule is not None:
            until = f" to {shared_rule.valid_to}" if shared_rule.valid_to else ""
            since = "" if shared_rule.valid_from.year <= 1970 else f", in force from {shared_rule.valid_from}{until}"
            description += since
            if figure.books.sees_all:  # its weights name other teams
                facts["shared_rule"] = shared_rule.model_dump(mode="json", exclude_defaults=True)
        else:
            description += ", which is no longer in force in this version"
    because = f" ({text.reason(row['reason'])})" if row["reason"] else ""
    sentence = f"{text.dollars(row)} is {row['cost_class']}{because}: {description}"
    return text.part(sentence, row, **facts)


def run_step(figure: Figure) -> Step:
    """The runs that computed the figure, their inputs, and which inputs have changed since. (TI-2)"""
    groups = text.top_groups(figure.rows, ["month", "run_id"], figure.most)
    at = {m.month: m for m in published(figure.books)}
    with figure.books.whole.database.session() as session:
        runs: dict[str, dict[str, Any]] = {
            run.run_id: {"cause": run.cause, "started_at": run.started_at, "inputs": run.inputs, "status": run.status}
            for run in session.scalars(sa.select(Run).where(Run.run_id.in_([row["run_id"] for row in groups.top])))
        }
    parts = []
    for row in groups.top:
        run = runs.get(row["run_id"], {})
        inputs = (run.get("inputs") or {}).get(row["month"], {})
        changes = _changed_inputs(figure, row["month"], inputs)
        sentence = f"{row['month']}: run {row['run_id']}, in force since {at[row['month']].published_at:%Y-%m-%d %H:%M} UTC"
        if changes:
            sentence += f"; {' and '.join(changes)} changed since, so the next run may differ"
        facts = {
            "month": row["month"],
            "run_id": row["run_id"],
            "rollup_ids": list(at[row["month"]].rollup_ids),
            "inputs": inputs,
        }
        facts |= {"cause": run.get("cause"), "published_at": at[row["month"]].published_at, "changed_since": changes or None}
        parts.append(text.part(f"{sentence}: {amount(row['cost'], row['currency'])}", row, **facts))
    return Step(
        step="run",
        rule="TI-2",
        sentence=f"{counted(groups.count, 'run')} computed it. The same inputs give the same figures.",
        parts=parts,
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _changed_inputs(figure: Figure, month: str, inputs: Mapping[str, str]) -> list[str]:
    """The inputs of a run that have changed since."""
    store = figure.books.whole.store
    now: dict[str, Callable[[], str]] = {
        "code": code.digest,
        "charges": lambda: store.fingerprint(CHARGES, {"billing_month": [month]}),
        "registry": lambda: registry.revision(registry.rows(figure.books.whole)),
        "prices": lambda: store.fingerprint(PRICES),
    }
    words = {"code": "the code", "charges": "the bill", "registry": "the registry", "prices": "the price book"}
    return [words[name] for name, fingerprint in now.items() if inputs and inputs.get(name) != fingerprint()]


def balance_step(figure: Figure) -> Step | None:
    """Charges in, costs out, difference 0. (MO-2, MO-3)"""
    if not figure.books.sees_all:  # it is about the whole bill
        return None
    billed_keys = figure.billed_rows.select("month", "run_id", "currency", "provider").unique()
    column = f"{figure.basis}_cost"
    rows = (
        scan_runs(figure.books, BALANCE, published(figure.books), WHOLE, month_column="invoice_month")
        .filter(pl.col("cost_column") == column)
        .join(
            billed_keys.lazy(),
            left_on=["invoice_month", "run_id", "currency", "provider"],
            right_on=["month", "run_id", "currency", "provider"],
            how="semi",
            nulls_equal=True,
        )
        .sort("invoice_month", "currency", "provider")
        .collect()
    )
    if not rows.height:
        return None
    return Step(
        step="balance",
        rule="MO-2, MO-3",
        sentence="Charges equal allocated costs in these months, and the initiator view and the executor view have the same total.",
        parts=[_balance_part(row) for row in rows.head(figure.most).iter_rows(named=True)],
    )


def _balance_part(row: Mapping[str, Any]) -> Part:
    classes = " + ".join(f"{amounts({row['currency']: row[name]})} {name}" for name in COST_CLASSES if row[name])
    sentence = (
        f"{row['provider']}, invoice month {row['invoice_month']}: {amount(row['charges_in'], row['currency'])} of charges = "
        f"{classes or 'nothing'}, difference {amount(row['difference'], row['currency'])}"
    )
    return Part(sentence=sentence, facts=text.json_values(dict(row)))
