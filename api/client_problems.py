"""Problems as the client raises them: what the API answered, or that it did not answer."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from api.models import FieldError, ProblemDocument
from ledger.errors import RootCostError


class ApiProblem(RootCostError):
    """The API answered with a problem document (RFC 9457), or did not answer: then `status` is 0."""

    def __init__(self, document: ProblemDocument) -> None:
        self.document = document
        super().__init__(document.detail or document.title, where=document.where or document.instance, remedy=document.remedy)

    @property
    def type(self) -> str:
        """Identifier of the problem type."""
        return self.document.type

    @property
    def title(self) -> str:
        """Problem type in words."""
        return self.document.title

    @property
    def status(self) -> int:
        """HTTP status; 0 if there was no answer."""
        return self.document.status

    @property
    def detail(self) -> str:
        """What went wrong in this request."""
        return self.document.detail

    @property
    def errors(self) -> list[FieldError]:
        """Every invalid field of an invalid request."""
        return self.document.errors


def problem_of(answer: httpx.Response) -> ProblemDocument:
    """The problem document of an answer, also where something else answered."""
    try:
        return ProblemDocument.model_validate_json(answer.content)
    except ValidationError:
        # A proxy between client and API answered: its text is the only detail.
        return ProblemDocument(
            title=answer.reason_phrase or "error", status=answer.status_code, detail=answer.text[:500], instance=answer.url.path
        )
