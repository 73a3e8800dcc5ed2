"""Budgets for agents without a gateway: reserve before a call, say what it cost after it. Needs the standard library alone.

    budget = Budget("http://127.0.0.1:8080", key="rc-…")
    with budget.reserve("0.15", agent="support-bot") as held:
        answer = call_the_model()
        held.commit(cost_of(answer))

What leaves the block without a commit or a release is not given back: the call may have cost something. It is uncertain after its deadline.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote


class BudgetExceededError(Exception):
    """A hard budget has less left than is asked for; the message says which, how much, and who can raise it."""


class BudgetUnavailableError(Exception):
    """RootCost did not decide: it does not answer, or does not take the request."""


@dataclass
class Held:
    """A reservation, as a context."""

    budget: Budget
    reservation_id: str
    state: str = "open"

    def commit(self, cost: Decimal | str) -> None:
        """Books what the call cost."""
        self.state = self.budget.send(f"/v1/reservations/{quote(self.reservation_id)}/commit", {"cost": str(cost)})["state"]

    def release(self) -> None:
        """Gives it back: the call was not made, or cost nothing."""
        self.state = self.budget.send(f"/v1/reservations/{quote(self.reservation_id)}/release", None)["state"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is given back here: only who calls knows whether the call was sent."""


@dataclass(frozen=True)
class Budget:
    """The API of RootCost, for reservations."""

    address: str
    key: str = field(default="", repr=False)
    timeout_seconds: float = 10.0

    def reserve(self, amount: Decimal | str, *, currency: str = "USD", seconds: int = 600, **scopes: str) -> Held:
        """Holds the most that a call can cost. `scopes`: team, agent, workflow, tenant, environment, provider, model, chain_id.

        Raises `BudgetExceededError`, or `BudgetUnavailableError`; what to do then is the agent's to decide.
        """
        name = f"res-{uuid.uuid4().hex}"
        body = {"reservation_id": name, "amount": str(amount), "currency": currency, "seconds": seconds, **scopes}
        return Held(self, name, self.send("/v1/reservations", body)["state"])

    def send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One request. It may be sent again: ids make that change nothing."""
        request = urllib.request.Request(
            self.address.rstrip("/") + path,
            data=b"" if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                document: dict[str, Any] = json.loads(answer.read())
                return document
        except urllib.error.HTTPError as error:
            message = _message(error)
            raise (BudgetExceededError if error.code == 402 else BudgetUnavailableError)(message) from error
        except OSError as error:
            raise BudgetUnavailableError(f"{self.address} does not answer: {error}") from error


def _message(error: urllib.error.HTTPError) -> str:
    try:
        document = json.loads(error.read())
        return f"{document.get('detail') or document.get('title')}; {document.get('remedy', '')}".rstrip("; ")
    except ValueError:
        return f"HTTP {error.code}"
