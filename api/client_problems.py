"""Problems as the client raises them: what the API answered, or that it did not answer."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from api.models import FieldError, ProblemDocument
from api.problem_types import PROBLEM_TYPES, type_uri
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


class InvalidProblem(ApiProblem):
    """The request cannot mean anything, or is not valid (400, 415, 422): `errors` name its fields."""


class UnknownCallerProblem(ApiProblem):
    """The key is missing or wrong (401)."""


class DeniedProblem(ApiProblem):
    """The roles of the key do not allow it (403)."""


class MissingProblem(ApiProblem):
    """There is no such thing (404)."""


class ConflictProblem(ApiProblem):
    """It is there already, or is being worked on (409)."""


class ReplacedProblem(ApiProblem):
    """The cursor belongs to figures that were published anew (410): start again from the first page."""


class StaleProblem(ApiProblem):
    """Somebody else changed it meanwhile (412, 428): read it again, then change it."""


class UnavailableProblem(ApiProblem):
    """Something that the API needs does not answer or is full (429, 503, 507): try again later."""


class UnreachableProblem(ApiProblem):
    """There was no answer, or none that ended."""


_CLASSES: Mapping[int, type[ApiProblem]] = {
    0: UnreachableProblem,
    **dict.fromkeys((400, 415, 422), InvalidProblem),
    401: UnknownCallerProblem,
    403: DeniedProblem,
    404: MissingProblem,
    409: ConflictProblem,
    410: ReplacedProblem,
    **dict.fromkeys((412, 428), StaleProblem),
    **dict.fromkeys((429, 503, 507), UnavailableProblem),
}


def raised(document: ProblemDocument) -> ApiProblem:
    """The typed error of a problem document.

    >>> type(raised(ProblemDocument(title="Gone", status=410))).__name__
    'ReplacedProblem'
    """
    return _CLASSES.get(document.status, ApiProblem)(document)


def unreachable(base_url: str, path: str, error: httpx.HTTPError) -> ProblemDocument:
    """The problem of a request without an answer."""
    return ProblemDocument(
        type=type_uri("unreachable"),
        title=PROBLEM_TYPES["unreachable"].title,
        status=0,
        detail=str(error) or type(error).__name__,
        instance=path,
        where=base_url,
        remedy="is `rootcost serve` running?",
    )


def problem_of(answer: httpx.Response) -> ProblemDocument:
    """The problem document of an answer, also where something else answered."""
    try:
        return ProblemDocument.model_validate_json(answer.content)
    except ValidationError:
        # A proxy between client and API answered: its text is the only detail.
        return ProblemDocument(
            title=answer.reason_phrase or "error", status=answer.status_code, detail=answer.text[:500], instance=answer.url.path
        )
