"""Preconditions of changes: which version a client has seen, so that nobody overwrites what he has not seen.

The ETag of something that can be changed is its version in quotes: the number of a revision, or a digest of its terms. A change sends it as
`If-Match`; `If-Match: *` is whatever is there now, and `If-None-Match: *` is nothing yet. Without either a change is refused (428), and with another
version than the current one, too (412).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response

from api.errors import RequestError, described_responses, error_response
from api.etags import tags_of
from ledger.errors import UsageError

RESPONSES: dict[int | str, dict[str, Any]] = described_responses(
    {412: "It has changed meanwhile; `expected` and `current` are the two versions", 428: "`If-Match` is missing"}
)
"""The responses of a change with a precondition."""


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a change expects: one of these versions, anything (`exists`), or nothing yet (not `exists`). By default it expects nothing."""

    versions: frozenset[str] = frozenset()
    exists: bool | None = None

    @property
    def revisions(self) -> frozenset[int]:
        """The versions that are numbers of revisions."""
        return frozenset(int(text) for text in self.versions if re.fullmatch("[0-9]{1,9}", text))

    def holds(self, version: str | int | None) -> bool:
        """Whether the current version, None if there is none, is what is expected.

        >>> precondition = Precondition(frozenset({"3"}), exists=True)
        >>> precondition.holds(3), precondition.holds(4), precondition.holds(None), Precondition(exists=False).holds(None), Precondition().holds(None)
        (True, False, False, True, True)
        """
        if self.exists is not None and self.exists != (version is not None):
            return False
        return not self.versions or str(version) in self.versions


NOTHING_EXPECTED: Final = Precondition()


class RevisionError(UsageError):
    """What is to be changed is not what was expected. `versions` has the two, None where there is none."""

    def __init__(self, name: str, *, expected_version: dict[str, Any] | None, current_version: dict[str, Any] | None) -> None:
        self.versions = {"expected": expected_version, "current": current_version}
        detail = "it has changed meanwhile" if current_version is not None else "it is not in force any more, or never was"
        super().__init__(detail, where=name, remedy="look at `current`, then send the change again with its ETag")

    def problem(self) -> RequestError:
        """The problem document (412)."""
        return RequestError(412, "changed-meanwhile", self.what, where=self.where, remedy=self.remedy, extensions=self.versions)


async def revision_error(request: Request, error: Exception) -> Response:
    """The problem document of a change that came too late (412)."""
    assert isinstance(error, RevisionError)
    return error_response(error.problem(), request.url.path)


def version_tag(version: str | int) -> str:
    """The ETag of a version.

    >>> version_tag(3)
    '"3"'
    """
    return f'"{version}"'


IfMatch = Annotated[str | None, Header(description="ETag of the version that is changed; `*` for whatever is there.")]
_IfNoneMatch = Annotated[str | None, Header(description="`*` if nothing of that name is expected.")]


def _precondition(request: Request, if_match: IfMatch = None, if_none_match: _IfNoneMatch = None) -> Precondition:
    if if_match is not None:
        return _expected(if_match)
    if if_none_match is not None and if_none_match.strip() == "*":
        return Precondition(exists=False)
    raise _needed(f"send the ETag of GET {request.url.path} as If-Match; If-None-Match: * for a new one")


def existing(if_match: IfMatch = None) -> Precondition:
    """What a change of what is there already expects. Raises `RequestError` (428) if it does not say so."""
    if if_match is None:
        raise _needed("send the ETag of the GET that shows it as If-Match; * for whatever is there")
    return _expected(if_match)


def _expected(if_match: str) -> Precondition:
    if if_match.strip() == "*":
        return Precondition(exists=True)
    tags = tags_of(if_match) if "W/" not in if_match else []  # a weak tag is no version
    # Without a tag it matches no version: none is empty.
    return Precondition(frozenset(tag.strip('"') for tag in tags) or frozenset({""}), exists=True)


def _needed(remedy: str) -> RequestError:
    detail = "a change says which version it changes"
    return RequestError(428, "precondition-needed", detail, where="If-Match", remedy=remedy)


Seen = Annotated[Precondition, Depends(_precondition)]
"""Of what is changed or made."""
SeenThere = Annotated[Precondition, Depends(existing)]
"""Of what is there already."""
