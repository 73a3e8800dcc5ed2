"""Values of a LiteLLM item that stand in one of several places: the first count or text that is present, and amounts as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.logs.json_fields import count, decimal, text
from ledger.money import text as plain


def first_count(*places: Any) -> int | None:
    """The first count that is present of (object, field, object, field, …)."""
    for at in range(0, len(places), 2):
        value = places[at].get(places[at + 1])
        if value is not None and (number := count(value, places[at + 1])) is not None:
            return number
    return None


def first_positive(*places: Any) -> int | None:
    """The first count above 0 of (object, field, object, field, …), else a 0 that is present.

    LiteLLM fills the names it expects with 0 where an answer has other ones:

    >>> usage = {"prompt_tokens": 0, "input_tokens": 23}
    >>> first_positive(usage, "prompt_tokens", usage, "input_tokens"), first_positive(usage, "output_tokens")
    (23, None)
    """
    numbers = [count(whole.get(field), field) for whole, field in zip(places[::2], places[1::2], strict=True)]
    return next((n for n in numbers if n), next((n for n in numbers if n is not None), None))


def first_text(*places: tuple[Mapping[str, Any], str]) -> str | None:
    """The first text that is present of (object, field) pairs."""
    return next((value for whole, field in places if (value := text(whole.get(field)))), None)


def first_attempt(metadata: Mapping[str, Any], headers: Mapping[str, Any]) -> int | None:
    """Which attempt of a call an item is, by the item or by the headers of its answer.

    >>> first_attempt({"attempted_retries": None}, {"x-litellm-attempted-retries": "2"}), first_attempt({}, {})
    (2, None)
    """
    for value in (metadata.get("attempted_retries"), headers.get("x-litellm-attempted-retries")):
        number = decimal(value)
        if number is not None and 0 <= number < 10_000:
            return int(number)
    return None


def plain_amounts(value: object) -> Any:
    """Numbers as plain text, one level of nesting deep."""
    if not isinstance(value, Mapping):
        number = decimal(value)
        return None if number is None else plain(number)
    return {
        str(k): inner for k, v in value.items() if (inner := plain_amounts(v) if not isinstance(v, Mapping) else _flat(v))
    } or None


def _flat(value: Mapping[str, Any]) -> dict[str, str | None]:
    return {str(k): plain(number) for k, v in value.items() if (number := decimal(v)) is not None}
