"""Which budgets a call counts against, and in which period: the budget file, scopes and levels.

A budget applies when each part of its scope equals what the gateway authenticated. A tag is the caller's word: a budget scoped to a tag
limits the calls that carry it, in addition to all others, and no tag takes a call out of a budget.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from rootcost_litellm.amounts import NANOS, to_nanos

AUTHENTICATED = ("organisation", "team", "agent", "workflow", "tenant", "environment", "key", "user")
"""What the gateway knows of a caller by his key: fields of the key, or entries of its metadata that an administrator set."""
CLAIMED = ("customer", "tag")
SCOPES = (*AUTHENTICATED, *CLAIMED, "model")
PERIODS = ("hour", "day", "week", "month", "quarter", "year", "range", "run")
ENFORCEMENTS = ("hard", "advisory", "none")
ACTIONS = ("notify", "clamp", "degrade", "approve", "throttle", "refuse_new_chains", "stop")


class BudgetFileError(ValueError):
    """The budget file says something that cannot be done."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done once a share of the budget is spent or reserved."""

    at: Decimal
    action: str
    models: Mapping[str, str] = field(default_factory=dict)
    """Of `degrade`: the model to use instead, by model asked for."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """A limit of the budget file. `rate` is what one unit of the price book's currency is in the budget's."""

    id: str
    name: str
    scope: Mapping[str, str]
    period: str
    cap: int
    currency: str
    enforcement: str
    fail_open: bool
    owner: str
    raise_at: str
    rate: Decimal
    steps: tuple[Step, ...]
    spent: int | None
    approved_until: datetime | None
    elsewhere: int = 0
    """Of a budget of the ledger: what is spent or held in its window by others than this gateway's store."""
    window: tuple[datetime, datetime] | None = None
    """Of a budget of the ledger: its window, in the ledger's timezone; the next one begins where it ends."""

    @property
    def room(self) -> int:
        """What the gateway's own calls may come to."""
        return max(0, self.cap - self.elsewhere)

    def level(self, now: datetime, chain: str) -> str:
        """The key of this budget in its current period; of a run's budget, in this run."""
        if self.window is not None:
            start, end = self.window
            return f"{self.id}@{(start if now < end else end).isoformat()}"
        return f"{self.id}@{chain or 'no-run' if self.period == 'run' else period_start(self.period, now):}"

    def in_currency(self, nanos: int) -> int:
        """An amount of the price book in the budget's currency, rounded up.

        >>> budget = parse({"id": "a", "amount": 1, "currency": "EUR", "rate": "0.9"})
        >>> budget.in_currency(1000)
        900
        """
        return nanos if self.rate == 1 else to_nanos(Decimal(nanos) * self.rate / NANOS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `names` by kind of scope; of them customer and tag, and the chain, are the caller's own word."""

    names: Mapping[str, frozenset[str]]
    chain: str = ""
    model: str = ""
    models_allowed: frozenset[str] = frozenset()
    """Models that the key is limited to; empty if to none."""

    def matches(self, scope: Mapping[str, str]) -> bool:
        """Whether each part of a scope is this caller's. Names are compared whole, in any case; `*` is any name that there is."""
        for kind, name in scope.items():
            values = frozenset({self.model}) if kind == "model" else self.names.get(kind, frozenset())
            if not (values - {""} if name == "*" else name in values or _is_spelling_of(name, values)):
                return False
        return True


def _is_spelling_of(name: str, values: frozenset[str]) -> bool:
    """Whether one of the values is the name in other letters, as the ledger compares names."""
    return bool(values) and name.strip().casefold() in {value.strip().casefold() for value in values}


def period_start(period: str, now: datetime) -> str:
    """The first moment of a period, in UTC, as it stands in keys.

    >>> period_start("quarter", datetime(2026, 12, 1, 5, tzinfo=UTC)), period_start("week", datetime(2026, 12, 1, 5, tzinfo=UTC))
    ('2026-10-01', '2026-11-30')
    """
    day = now.astimezone(UTC).date()
    match period:
        case "hour":
            return now.astimezone(UTC).strftime("%Y-%m-%dT%H")
        case "day":
            return day.isoformat()
        case "week":
            return (day - timedelta(days=day.weekday())).isoformat()
        case "month":
            return day.replace(day=1).isoformat()
        case "quarter":
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1).isoformat()
        case _:
            return day.replace(month=1, day=1).isoformat()


def read_file(path: Path) -> tuple[list[Budget], dict[str, Any]]:
    """Budgets and settings of a budget file (YAML or JSON). Raises `BudgetFileError` naming the file, the budget and the field."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError) as error:
        raise BudgetFileError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, Mapping) or not isinstance(document.get("budgets", []), Sequence):
        raise BudgetFileError(f"{path}: must have a list `budgets`")
    budgets: list[Budget] = []
    for number, entry in enumerate(document.get("budgets", []), 1):
        try:
            budgets.append(parse(entry))
        except (BudgetFileError, ValueError, TypeError, AttributeError) as error:
            raise BudgetFileError(f"{path}: budget {number}: {error}") from error
    if twice := sorted({b.id for b in budgets if sum(c.id == b.id for c in budgets) > 1}):
        raise BudgetFileError(f"{path}: the id {twice[0]!r} is there twice: each budget needs one of its own")
    return budgets, {name: value for name, value in document.items() if name != "budgets"}


def parse(entry: Mapping[str, Any]) -> Budget:
    """One budget of the file. Raises `BudgetFileError` or `ValueError`."""
    scope = {str(kind): str(name) for kind, name in (entry.get("scope") or {}).items()}
    if unknown := sorted(set(scope) - set(SCOPES)):
        raise BudgetFileError(f"scope: {unknown[0]!r} is none of {', '.join(SCOPES)}")
    identifier = str(entry.get("id") or "")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", identifier):
        raise BudgetFileError(f"id: {identifier!r} is not 1 to 128 letters, digits, and . _ : -")
    cap = to_nanos(str(entry.get("amount")))
    if cap < 0:
        raise BudgetFileError(f"amount: {entry['amount']} is negative")
    approved = entry.get("approved_until")
    return Budget(
        id=identifier,
        name=str(entry.get("name") or identifier),
        scope=scope,
        period=_one_of(entry, "period", PERIODS, "month"),
        cap=cap,
        currency=str(entry.get("currency") or "USD"),
        enforcement=_one_of(entry, "enforcement", ENFORCEMENTS, "hard"),
        fail_open=_one_of(entry, "on_outage", ("closed", "open"), "closed") == "open",
        owner=str(entry.get("owner") or ""),
        raise_at=str(entry.get("raise_at") or ""),
        rate=_rate(entry),
        steps=tuple(sorted((_step(step) for step in entry.get("steps") or ()), key=lambda step: step.at)),
        spent=to_nanos(str(entry["spent"])) if entry.get("spent") is not None else None,
        approved_until=datetime.fromisoformat(str(approved)).astimezone(UTC) if approved else None,
        elsewhere=to_nanos(str(entry.get("elsewhere") or 0)),
        window=_window(entry),
    )


def matching(budgets: Sequence[Budget], caller: Caller) -> Iterator[Budget]:
    """Budgets that a call counts against, in the order of the file: outermost first."""
    return (budget for budget in budgets if budget.enforcement != "none" and caller.matches(budget.scope))


def _window(entry: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    start, end = entry.get("window_start"), entry.get("window_end")
    if not start or not end:
        if entry.get("period") == "range":
            raise BudgetFileError("period: a range is a budget of the ledger")
        return None
    return datetime.fromisoformat(str(start)).astimezone(UTC), datetime.fromisoformat(str(end)).astimezone(UTC)


def _rate(entry: Mapping[str, Any]) -> Decimal:
    currency, rate = str(entry.get("currency") or "USD"), entry.get("rate")
    if rate is None and currency != "USD":
        raise BudgetFileError(f"rate: prices are in USD and the budget is in {currency}: say what 1 USD is in {currency}")
    value = Decimal(str(rate if rate is not None else 1))
    if not value.is_finite() or value <= 0:
        raise BudgetFileError(f"rate: {rate} is not a positive number")
    return value


def _step(step: Mapping[str, Any]) -> Step:
    action = _one_of(step, "do", ACTIONS, "")
    at = Decimal(str(step.get("at")))
    if not at.is_finite() or at < 0:
        raise BudgetFileError(f"steps: at: {step.get('at')!r} is not a share such as 0.8")
    models = {str(name): str(other) for name, other in (step.get("models") or {}).items()}
    if action == "degrade" and not models:
        raise BudgetFileError("steps: degrade: `models` must say which model is used instead of which")
    return Step(at, action, models, float(step.get("seconds") or 0))


def _one_of(entry: Mapping[str, Any], name: str, choices: Sequence[str], default: str) -> str:
    value = str(entry.get(name) or default)
    if value not in choices:
        raise BudgetFileError(f"{name}: {value!r} is none of {', '.join(choices)}")
    return value


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
