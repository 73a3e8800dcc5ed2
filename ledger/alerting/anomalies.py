"""Alerts of anomalies: each cause once, with the figure, why, since when, whose it is, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from ledger.db import Alert
from ledger.money import readable_amounts, text
from ledger.periods import now

KIND: Final = "anomaly"
_MOST_DRIVERS: Final = 3
_DIMENSIONS: Final = {"agent": "initiator_agent", "team": "initiator_team", "tool": "meter"}
_WORDS: Final = {"spike": "far more than usual", "level_shift": "a new level", "new": "new", "silent": "has fallen silent"}


def last_day(row: Mapping[str, Any]) -> date:
    """The last day of an anomaly, in the reporting timezone."""
    first: date = row["day"]
    length = (row["end_time"] or row["start_time"]) - row["start_time"] if row["start_time"] else timedelta()
    return first + timedelta(days=max(0, round(length / timedelta(days=1)) - 1))  # a day of 23 or 25 hours is a day


def subject_of(row: Mapping[str, Any]) -> str:
    """What an anomaly is about, as alerts and mutes name it."""
    return f"{row['scope']} {row['scope_name']}"


def alert_of(row: Mapping[str, Any]) -> Alert:
    """The alert of an anomaly. A level that fell, or a silence, is information; money that is spent is a warning."""
    currency, impact = row["currency"], row["excess"]
    actual_text, expected_text, impact_text = readable_amounts(row["actual"], row["expected"], abs(impact))
    chains = json.loads(row["chains"] or "[]")
    subject_text = f"{row['scope'].capitalize()} {row['scope_name']}" + (
        f" (team {row['team']})" if row["team"] and row["scope"] != "team" else ""
    )
    end = last_day(row)
    days = f"on {row['day']}" if row["day"] == end else f"from {row['day']} to {end}"
    sentences = [
        (
            f"{subject_text}: {_WORDS.get(row['kind'], row['kind'])}. It cost {currency} {actual_text} {days}, and {expected_text} was expected: "
            f"{currency} {impact_text} {'more' if impact > 0 else 'less'}."
        ),
        *_reasons(row),
    ]
    drill = f"{_DIMENSIONS.get(row['scope'], row['scope'])}={row['scope_name']}"
    return Alert(
        alert_id=row["anomaly_id"],
        kind=KIND,
        severity="warning" if impact > 0 else "info",
        subject=subject_of(row),
        text=" ".join(sentences),
        address=f"/v1/costs?by=model,initiator_agent&filter={quote(drill)}&start={row['day']}&end={end + timedelta(days=1)}"
        "&granularity=day&calendar=usage",
        payload={
            "scope": row["scope"],
            "scope_name": row["scope_name"],
            "anomaly": row["kind"],
            "start": str(row["day"]),
            "currency": currency,
            "actual": text(row["actual"]),
            "expected": text(row["expected"]),
            "impact": text(impact),
            "drivers": json.loads(row["drivers"] or "{}"),
            "chains": chains,
        },
        team=row["team"],
        month=row["month"],
        run_id=row["run_id"],
        figure=f"{currency} {actual_text}",
        limit_text=f"{currency} {expected_text} expected",
        next_step=("Look at the dearest chain" if chains else "Open the figures by model and day")
        + f"; if this is planned, or no anomaly, say so: rootcost anomalies answer {row['anomaly_id'][:6]} planned|false --reason …",
        chain_id=chains[0] if chains else None,
        created_at=now(),
        attempts=0,
    )


def _reasons(row: Mapping[str, Any]) -> list[str]:
    drivers = {name: Decimal(amount) for name, amount in json.loads(row["drivers"] or "{}").items()}
    if not drivers:
        return []
    largest = sorted(drivers.items(), key=lambda item: -abs(item[1]))[:_MOST_DRIVERS]
    parts = [f"{name} {'+' if amount > 0 else '−'}{readable_amounts(abs(amount))[0]}" for name, amount in largest]
    note = [f"{row['chain_note']}."] if row["chain_note"] else []
    return [f"Because of {', '.join(parts)}.", *note]
