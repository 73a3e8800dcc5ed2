"""Query parameters that several GET routes have, with their descriptions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query

from api.models import Basis, Calendar, Granularity, View
from api.queries.chains import MAX_PAGE

BudgetName = Annotated[
    str, Path(min_length=1, max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$", description="Name of the budget.")
]
Offset = Annotated[int, Query(ge=0, le=2**31, description="Number of rows to skip.")]
MONTH = r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])"
INSTANT = MONTH + r"(-(0[1-9]|[12][0-9]|3[01])(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?"


def shape(pattern: str) -> dict[str, Any]:
    """The pattern of a parameter, for the description only: what does not match is refused with a sentence, not with the pattern."""
    return {"pattern": f"^{pattern}$"}


Start = Annotated[
    str | None,
    Query(
        description="First instant: 2026-10, 2026-10-05 or 2026-10-05T06:00:00Z; days begin in the reporting timezone.",
        examples=["2026-10"],
        json_schema_extra=shape(f"({INSTANT})?"),
    ),
]
End = Annotated[
    str | None,
    Query(
        description="First instant excluded, in the same format.",
        examples=["2026-11"],
        json_schema_extra=shape(f"({INSTANT})?"),
    ),
]

ByParam = Annotated[
    list[str],
    Query(
        description="Dimensions, joined by commas or repeated. `agent` and `team` follow `view`.",
        examples=[["team,agent,model"]],
    ),
]
ViewParam = Annotated[
    View, Query(description="initiator: cost by the agent that started the chain; executor: by the agent that made the calls.")
]
GranularityParam = Annotated[Granularity, Query(description="Time granularity, in the reporting timezone.")]
BasisParam = Annotated[Basis, Query(description="FOCUS cost column to sum.")]
FilterParam = Annotated[
    list[str],
    Query(
        description="dimension=value, must match exactly; repeat for more; an empty value matches unknown.",
        examples=[["team=Care"]],
    ),
]
CalendarParam = Annotated[
    Calendar | None,
    Query(
        description="invoice: months of invoices, which tie out with the bill; usage: the time of use. "
        "By default whole months are those of invoices, days and hours those of use."
    ),
]
MaxLines = Annotated[
    int, Query(ge=1, le=MAX_PAGE, description="Maximum number of lines of a step; the others are counted and summed.")
]
