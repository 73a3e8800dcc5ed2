"""The verbs of the client about budgets."""

from __future__ import annotations

from datetime import datetime

from api import models
from api.client_connection import Connection, if_match, segment
from api.models import Page


class Budgets(Connection):
    """How budgets stand, their terms and revisions, and raises that need a second person."""

    def budgets(self, *, month: str | None = None, at: datetime | None = None) -> Page[models.Budget]:
        """Budgets in force as they stand in a month or at an instant, by default in the newest period that cost is known of."""
        moment = None if at is None else at.isoformat()
        return self._get(Page[models.Budget], "/v1/budgets", {"month": month, "at": moment})

    def budget(self, name: str) -> models.Budget:
        """A budget in force, by name or id."""
        return self._get(models.Budget, f"/v1/budgets/{segment(name)}")

    def budget_revisions(self, name: str) -> Page[models.BudgetRevisionRow]:
        """Who changed a budget, when and why; newest first."""
        return self._get(Page[models.BudgetRevisionRow], f"/v1/budgets/{segment(name)}/revisions")

    def budget_requests(self) -> Page[models.BudgetRequestRow]:
        """Raises that need a second person, and those that were decided about; newest first."""
        return self._get(Page[models.BudgetRequestRow], "/v1/budget-requests")

    def budget_names(self) -> models.BudgetNames:
        """Names that a budget can be about."""
        return self._get(models.BudgetNames, "/v1/budget-names")

    def add_budget(self, budget: models.NewBudget) -> models.Budget:
        """Creates a budget."""
        return self._put(models.Budget, "POST", "/v1/budgets", budget)

    def change_budget(self, name: str, change: models.BudgetChange, *, revision: int | None = None) -> models.Budget:
        """Changes a budget; what is left out stays. Without `revision` it changes whatever is in force. `pending` of the answer: it needs a second person.

        Raises `StaleProblem` if another revision is in force: `document.expected` and `document.current` are the two versions.
        """
        return self._put(models.Budget, "PUT", f"/v1/budgets/{segment(name)}", change, if_match=if_match(revision))

    def drop_budget(self, name: str, *, revision: int | None = None) -> None:
        """Ends a budget; its revisions are kept. `revision` as for `change_budget`."""
        self._send("DELETE", f"/v1/budgets/{segment(name)}", if_match=if_match(revision))

    def decide_budget_request(self, request_id: str, decision: models.Decision) -> models.Budget:
        """Approves or refuses a raise that somebody else asks for."""
        return self._put(models.Budget, "POST", f"/v1/budget-requests/{segment(request_id)}/decision", decision)
