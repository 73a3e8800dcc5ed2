"""Models of erasures: of a person, or of the facts of a period."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.models.base import RequestModel, ResponseModel

_Identifier = Annotated[str, StringConstraints(min_length=3, max_length=512)]
_Instant = Annotated[str, StringConstraints(min_length=4, max_length=40)]
_Source = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ErasedPeriod(RequestModel):
    """Facts of some time: spans with their calls and chains by their start, bills by whole invoice months."""

    start: _Instant = Field(description="First day or month.")
    end: _Instant = Field(description="First day or month that stays.")
    sources: list[_Source] = Field(default_factory=list, max_length=100, description="Only facts of these sources; none: of all.")


class ErasureRequest(RequestModel):
    """Who or what is to be erased: a person by its identifiers, or a period."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"period": {"start": "2025-08", "end": "2025-09"}, "reason": "end of a contract"}]}
    )

    person: list[_Identifier] | None = Field(
        default=None, min_length=1, max_length=100, description="E-mail addresses, user ids, or other names, as they are stored."
    )
    period: ErasedPeriod | None = Field(default=None, description="Instead: the facts of a period.")
    reason: Annotated[str, StringConstraints(max_length=500)] = Field(
        default="", description="The reason, for the audit log. It names no person."
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.person is None) == (self.period is None):
            raise ValueError("name either a person or a period")
        return self


class ConfirmedErasure(ErasureRequest):
    """An erasure whose preview was seen."""

    plan: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = Field(
        description="`plan` of the preview of the same erasure."
    )


class Erasure(ResponseModel):
    """What was erased, or would be. The money stays where it is booked."""

    rows: dict[str, int] = Field(description="Rows by table: removed, or of a person changed.")
    settled_months: list[str] = Field(
        default_factory=list, description="Months whose costs stay as they are published, and are not computed again."
    )
    kept: dict[str, str] = Field(
        default_factory=dict,
        description="Days and invoice months whose facts stay, with the month that is still computed from them.",
    )
    spans_with_content: int = Field(default=0, description="Spans of the person's traces whose attributes go.")
    audit_entries: int = Field(default=0, description="Entries of the audit log that name the person.")
    files: list[str] = Field(default_factory=list, description="Files of the home: removed, or blotted.")
    remaining: list[str] = Field(default_factory=list, description="What still names the person, and is yours to change.")
    backups: dict[str, list[str]] = Field(default_factory=dict, description="Backups that may hold it, by address.")
    purged: bool = Field(default=False, description="Whether earlier versions are gone from the disk already.")
    plan: str = Field(default="", description="Of a preview: what the erasure is to be confirmed with.")
