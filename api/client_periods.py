"""The verbs of the client about months in the books."""

from __future__ import annotations

from api import models
from api.client_connection import Connection, if_match, segment
from api.models import Page


class Periods(Connection):
    """Months, their checklist, what was booked, closing one and opening it again. `revision` as for `change_budget`."""

    def periods(self) -> Page[models.PeriodRow]:
        """Months in the books, newest first."""
        return self._get(Page[models.PeriodRow], "/v1/periods")

    def period(self, month: str) -> models.PeriodRow:
        """A month in the books."""
        return self._get(models.PeriodRow, f"/v1/periods/{segment(month)}")

    def period_checklist(self, month: str) -> Page[models.PeriodCheck]:
        """What is left to do before a month is closed."""
        return self._get(Page[models.PeriodCheck], f"/v1/periods/{segment(month)}/checklist")

    def period_lines(self, month: str) -> Page[models.PeriodLineRow]:
        """What was booked of a month, line by line."""
        return self._get(Page[models.PeriodLineRow], f"/v1/periods/{segment(month)}/lines")

    def statements(self, month: str) -> Page[models.StatementRow]:
        """The statements of a month, by team."""
        return self._get(Page[models.StatementRow], "/v1/statements", {"month": month})

    def statement(self, team: str, month: str) -> models.Statement:
        """What a month books to a team; "" is what no team has."""
        return self._get(models.Statement, "/v1/statement", {"team": team, "month": month})

    def answer_statement(self, terms: models.NewStatementAnswer) -> models.StatementRow:
        """Accepts or disputes a statement."""
        return self._put(models.StatementRow, "POST", "/v1/statements/answers", terms)

    def statement_control(self, month: str) -> Page[models.StatementControl]:
        """Whether the statements of a month come to the bill and the invoices."""
        return self._get(Page[models.StatementControl], "/v1/statements/control", {"month": month})

    def close_period(self, month: str, terms: models.PeriodClose, *, revision: int | None = None) -> models.PeriodRow:
        """Closes a month."""
        path = f"/v1/periods/{segment(month)}/close"
        return self._put(models.PeriodRow, "POST", path, terms, if_match=if_match(revision))

    def reopen_period(self, month: str, terms: models.PeriodReopening, *, revision: int | None = None) -> models.PeriodRow:
        """Asks for a month to be opened again; a second person decides."""
        path = f"/v1/periods/{segment(month)}/reopen"
        return self._put(models.PeriodRow, "POST", path, terms, if_match=if_match(revision))

    def decide_period(self, month: str, decision: models.PeriodDecision, *, revision: int | None = None) -> models.PeriodRow:
        """Opens a month again that somebody else asks for, or leaves it closed."""
        path = f"/v1/periods/{segment(month)}/decision"
        return self._put(models.PeriodRow, "POST", path, decision, if_match=if_match(revision))
