"""What routes that change something share."""

from __future__ import annotations

from fastapi import Request

from api.errors import described_responses
from api.routes.read import ERROR_RESPONSES
from api.routes.receive import JSON, media_type

WRITE_ERROR_RESPONSES = {
    **ERROR_RESPONSES,
    **described_responses({415: "The body is of another type"}),
}


def is_json(request: Request) -> None:
    """Refuses (415) a body that does not say it is JSON: the error is the media type, not the content."""
    media_type(request, (JSON,))
