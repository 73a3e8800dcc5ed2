"""Forms of the log-in pages: small, and read whole or refused."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import Request

from api.errors import RequestError

_MAX_BYTES = 16_384
_MAX_FIELDS = 10


async def read_form(request: Request) -> dict[str, str]:
    """The fields of an HTML form, each at most once. Raises `RequestError` for what is none, or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RequestError(
            415, "format", "this is no form", where="Content-Type", remedy="send application/x-www-form-urlencoded"
        )
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BYTES:
            raise RequestError(413, "format", f"the form is larger than {_MAX_BYTES} bytes", where="body", remedy="send less")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise RequestError(400, "format", "the form cannot be read", where="body", remedy="send it as browsers do") from error
    repeated_fields = [name for name, values in fields.items() if len(values) > 1]
    if repeated_fields:
        raise RequestError(400, "format", "a field is there twice", where=repeated_fields[0][:64], remedy="send it once")
    return {name: values[0] for name, values in fields.items()}
