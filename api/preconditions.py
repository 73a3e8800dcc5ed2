"""Preconditions of changes: which revision a client has seen, so that nobody overwrites what he has not seen.

The ETag of something that can be changed is its revision in quotes. A change sends it as `If-Match`; `If-Match: *` is whatever is there now, and
`If-None-Match: *` is nothing yet. Without either a change is refused (428), and with another revision than the current one, too (412).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from api.errors import RequestError, described_responses
from api.etags import tags_of
from ledger.errors import UsageError

RESPONSES: dict[int | str, dict[str, Any]] = described_responses(
    {412: "It has changed meanwhile; `expected` and `current` are the two versions", 428: "`If-Match` is missing"}
)
"""The responses of a change with a precondition."""


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a change expects: one of these revisions, anything (`exists`), or nothing yet (not `exists`). By default it expects nothing."""

    revisions: frozenset[int] = frozenset()
    exists: bool | None = None

    def holds(self, revision: int | None) -> bool:
        """Whether the current revision, None if there is none, is what is expected.

        >>> precondition = Precondition(frozenset({3}), exists=True)
        >>> precondition.holds(3), precondition.holds(4), precondition.holds(None), Precondition(exists=False).holds(None), Precondition().holds(None)
        (True, False, False, True, True)
        """
        if self.exists is not None and self.exists != (revision is not None):
            return False
        return not self.revisions or revision in self.revisions


class RevisionError(UsageError):
    """What is to be changed is not what was expected. `versions` has the two, None where there is none."""

    def __init__(self, name: str, *, expected_version: dict[str, Any] | None, current_version: dict[str, Any] | None) -> None:
        self.versions = {"expected": expected_version, "current": current_version}
        detail = "it has changed meanwhile" if current_version is not None else "it is not in force any more, or never was"
        super().__init__(detail, where=name, remedy="look at `current`, then send the change again with its ETag")

    def problem(self) -> RequestError:
        """The problem document (412)."""
        return RequestError(412, "changed-meanwhile", self.what, where=self.where, remedy=self.remedy, extensions=self.versions)


def revision_tag(revision: int) -> str:
    """The ETag of a revision.

    >>> revision_tag(3)
    '"3"'
    """
    return f'"{revision}"'


def _precondition(
    request: Request,
    if_match: Annotated[str | None, Header(description="ETag of the version that is changed; `*` for whatever is there.")] = None,
    if_none_match: Annotated[str | None, Header(description="`*` if nothing of that name is expected.")] = None,
) -> Precondition:
    if if_match is not None:
        if if_match.strip() == "*":
            return Precondition(exists=True)
        revisions = [tag.strip('"') for tag in tags_of(if_match)] if "W/" not in if_match else []  # a weak tag is no revision
        # A tag that is none of ours matches no revision.
        return Precondition(
            frozenset(int(text) if re.fullmatch("[0-9]{1,9}", text) else 0 for text in revisions) or frozenset({0}), exists=True
        )
    if if_none_match is not None and if_none_match.strip() == "*":
        return Precondition(exists=False)
    raise RequestError(
        428,
        "precondition-needed",
        "a change says which version it changes",
        where="If-Match",
        remedy=f"send the ETag of GET {request.url.path} as If-Match; If-None-Match: * for a new one",
    )


Seen = Annotated[Precondition, Depends(_precondition)]
