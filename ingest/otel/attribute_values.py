"""Parsers of attribute values: counts, names, money, tiers. Absent is None; an invalid value raises `AttributeValueError`.

Each parser is a pure function of one value, so the same attribute gives the same column on every delivery.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ingest.logs.json_fields import FieldError, structure
from ingest.logs.request_ids import MAX_IDS, header_ids, id_list
from ingest.problem_counter import described
from ledger.money import exact_decimal
from ledger.money import text as decimal_text

ABSENT_VALUES = frozenset({"", "None", "none", "null", "NULL", "undefined", "NaN", "nan"})
"""Texts that emitters write for an absent value."""
MAX_COUNT = 10**12
"""No request counts a trillion tokens."""
MAX_TEXT_LENGTH = 512
"""Names and ids are shorter; longer text may be a prompt or an answer."""
MAX_LABELS_LENGTH = 16_384
"""Longer JSON labels may be content, too, and are ignored."""
STANDARD_TIERS = frozenset({"default", "standard", "auto", "on_demand", "on-demand", "normal"})
GEOGRAPHIES = frozenset({"us", "eu", "au", "jp", "apac"})
"""Geographies that providers price apart."""
_CACHED_LENGTH = 2_048
_API_NAMES = frozenset({"chat", "responses", "completion", "embedding", "image", "messages", "speech", "transcription", "rerank"})


class AttributeValueError(ValueError):
    """A value that is invalid for its attribute. The span is kept without it."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(reason)


Reader = Callable[[Any], Any]


def clean(name: str) -> str:
    """Valid UTF-8 text, cut to `MAX_TEXT_LENGTH`."""
    if not name.isascii():
        name = name.encode("utf-8", "replace").decode("utf-8")
    return name if len(name) <= MAX_TEXT_LENGTH else name[:MAX_TEXT_LENGTH]


def text(value: Any) -> str | None:
    """A name or id.

    >>> text("gpt-4o"), text(""), text("None"), text(7), text(["a"])
    ('gpt-4o', None, None, '7', None)
    """
    if type(value) is str:
        return None if value in ABSENT_VALUES else clean(value)
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    return None


def model(value: Any) -> str | None:
    """A model's name; ``unknown``, which frameworks write, is absent."""
    name = text(value)
    return None if name == "unknown" else name


def count(value: Any) -> int | None:
    """A number of tokens: whole, from 0 up. JavaScript sends them as doubles, others as text.

    >>> count(1200), count("1200"), count(1200.0), count("None")
    (1200, 1200, 1200, None)
    >>> count(-1)
    Traceback (most recent call last):
        ...
    ingest.otel.attribute_values.AttributeValueError: -1 is no number of tokens
    """
    if type(value) is int:
        number = value
    elif value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    else:
        exact = _exact(value)
        if exact is None or exact != exact.to_integral_value():
            raise AttributeValueError(
                f"{described(value)} is no number of tokens", "send a whole number, or leave the attribute out"
            )
        number = int(exact)
    if not 0 <= number < MAX_COUNT:
        raise AttributeValueError(
            f"{described(value)} is no number of tokens", "send a whole number from 0 up, or leave the attribute out"
        )
    return number


def retries_from_attempts(value: Any) -> int | None:
    """Retries, from 0, of an attempt number that starts at 1."""
    attempts = count(value)
    return None if attempts is None else max(attempts - 1, 0)


def money(value: Any) -> str | None:
    """An amount, as decimal text: the shortest text of a double, never the double itself.

    >>> money(3.5e-05), money("0.0001"), money(0), money("")
    ('3.5e-05', '0.0001', '0', None)
    """
    if value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    exact = _exact(value)
    if exact is None or exact < 0:
        raise AttributeValueError(
            f"{described(value)} is no amount of money", "send a decimal number in US dollars, or leave the attribute out"
        )
    return repr(value) if isinstance(value, float) else str(exact)


def micros(value: Any) -> str | None:
    """Millionths of a dollar, as dollars.

    >>> micros(106866), micros("")
    ('0.106866', None)
    """
    whole = count(value)
    return None if whole is None else decimal_text(Decimal(whole).scaleb(-6))


def quantity(value: Any) -> str | None:
    """A quantity of a meter as decimal text; None for 0 or an absent value.

    >>> quantity(2), quantity(1.5), quantity("12"), quantity(0)
    ('2', '1.5', '12', None)
    """
    if value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    exact = _exact(value)
    if exact is None or not 0 <= exact < MAX_COUNT:
        raise AttributeValueError(f"{described(value)} is no quantity", "send a number from 0 up, or leave the attribute out")
    return decimal_text(exact) if exact else None


def _exact(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return exact_decimal(repr(value))
    if isinstance(value, Decimal):
        return value if value.is_finite() and value.adjusted() <= 20 else None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**20 else None
    return exact_decimal(value) if isinstance(value, str) and len(value) < 64 else None


def flag(value: Any) -> bool | None:
    """True or false, in JSON's or Python's spelling.

    >>> flag(True), flag("False"), flag("None")
    (True, False, None)
    """
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def tier(value: Any) -> str | None:
    """A service tier; null is the standard one.

    >>> tier("priority"), tier("default")
    ('priority', None)
    """
    name = text(value)
    return None if name is None or name.lower() in STANDARD_TIERS else name.lower()


def geography(value: Any) -> str | None:
    """Where a provider says it ran the request, if that is priced apart: a short lower-case name; null is anywhere.

    >>> geography("us"), geography("EU"), geography("global"), geography("not_available"), geography(None)
    ('us', 'eu', None, None, None)
    """
    name = (text(value) or "").lower()
    return name if name in GEOGRAPHIES else None


def url(value: Any) -> str | None:
    """An endpoint without credentials and query.

    >>> url("https://me:secret@host:4000/v1/?key=1"), url("api.openai.com")
    ('https://host:4000/v1/', 'api.openai.com')
    """
    name = text(value)
    if name is None:
        return None
    scheme, separator, remainder = name.partition("://")
    remainder = (remainder if separator else scheme).split("?", 1)[0].split("#", 1)[0]
    host, slash, path = remainder.partition("/")
    return f"{scheme}://" * bool(separator) + host.rpartition("@")[2] + slash + path


def after_slash(value: Any) -> str | None:
    """The model of LiteLLM's ``provider/model``."""
    name = text(value)
    return None if name is None else name.partition("/")[2] or name


def before_slash(value: Any) -> str | None:
    """The provider of LiteLLM's ``provider/model``; None where it names no provider."""
    name = text(value)
    return name.partition("/")[0] if name and "/" in name else None


def without_api(value: Any) -> str | None:
    """A Vercel provider without the name of the API it was called through.

    >>> without_api("openai.responses"), without_api("google.generative-ai")
    ('openai', 'google.generative-ai')
    """
    name = text(value)
    if name is None:
        return None
    provider, dot, api = name.rpartition(".")
    return provider if dot and api in _API_NAMES else name


def run_id(value: Any) -> str | None:
    """The id of an agent run in an attribute for response ids; None for other ids."""
    name = text(value)
    return name if name and name.startswith("run_") else None


def response_id(value: Any) -> str | None:
    """A response id that is not a run id."""
    name = text(value)
    return name if name and not name.startswith("run_") else None


def request_ids(value: Any) -> str | None:
    """Further ids of a request, as a JSON list: an id, a list of ids (a header in OpenTelemetry's form), or an object of headers.

    >>> request_ids(["0b1c"]), request_ids("{'llm_provider-request-id': 'req_1', 'date': 'Tue'}"), request_ids("")
    ('["0b1c"]', '["req_1"]', None)
    """
    headers = parse_object(value) if isinstance(value, Mapping) or str(value)[:1] == "{" else None
    if headers is not None:
        return id_list(header_ids(headers))
    return id_list(text(item) for item in (value[:MAX_IDS] if isinstance(value, (list, tuple)) else [value]))


def http_error(value: Any) -> str | None:
    """An HTTP status of 400 or more."""
    name = text(value)
    return name if name and name.isdigit() and int(name) >= 400 else None


def parse_object(value: Any) -> Mapping[str, Any] | None:
    """The object inside JSON (or Python-spelled) text; None where there is none.

    >>> parse_object("{'completion_tokens': 80, 'details': None}"), parse_object("[1]")
    ({'completion_tokens': 80, 'details': None}, None)
    """
    if not isinstance(value, str):
        return value if isinstance(value, Mapping) else None
    inner = _parse_cached(value) if len(value) <= _CACHED_LENGTH else _parse_uncached(value)
    return inner if isinstance(inner, Mapping) else None


def _parse_uncached(source: str) -> Any:
    try:
        if source.startswith("{'") and '"' not in source and "\\" not in source:
            # Python's repr of plain names and numbers is the most frequent case: a few replacements make it JSON.
            plain = source.replace("'", '"').replace(": None", ": null")
            plain = plain.replace(": True", ": true").replace(": False", ": false")
            return json.loads(plain, parse_float=Decimal, parse_constant=str)
    except ValueError:
        pass  # parsed below
    try:
        return structure(source, "")
    except FieldError:
        raise AttributeValueError(f"{described(source)} is no JSON object", "send JSON, or leave the attribute out") from None


_parse_cached = lru_cache(maxsize=256)(_parse_uncached)


def value_at(inner: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path inside an object; None where the path does not exist."""
    node: Any = inner
    for step in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(step)
    return node


def tags(value: Any) -> dict[str, str]:
    """``key:value`` tags of a list, or of text with commas.

    >>> tags("team:ads, agent:planner, urgent"), tags(["agent:coder"])
    ({'team': 'ads', 'agent': 'planner'}, {'agent': 'coder'})
    """
    items = value.strip("[]").split(",") if isinstance(value, str) else value
    items = items if isinstance(items, list) else []
    values: dict[str, str] = {}
    for item in items:
        if isinstance(item, str):
            key, colon, remainder = item.strip().strip("\"'").partition(":")
            tag_value = text(remainder.strip())
            if colon and tag_value:
                values.setdefault(key.strip(), tag_value)
    return values


def labels(value: Any) -> dict[str, str]:
    """Labels of a JSON object, as text."""
    if isinstance(value, str) and len(value) > MAX_LABELS_LENGTH:
        return {}
    inner = parse_object(value) or {}
    return {k: label for k, v in inner.items() if (label := text(v))}


_BACKGROUND_WORDS = (
    "title",
    "summary",
    "recap",
    "suggestion",
    "classif",
    "router",
    "guardrail",
    "compact",
    "topic",
    "memory",
    "quota",
    "hook",
)


def phase(value: Any) -> str | None:
    """``overhead`` for calls that a tool made in the background, without a turn of the user; else None.

    >>> phase("away_summary"), phase("generate_session_title"), phase("repl_main_thread"), phase("agent:reviewer")
    ('overhead', 'overhead', None, None)
    """
    source = (text(value) or "").lower()
    is_turn = source.startswith("agent:") or "main_thread" in source
    return "overhead" if not is_turn and any(word in source for word in _BACKGROUND_WORDS) else None


def overhead(value: Any) -> str | None:
    """``overhead`` for any non-empty value: the sender made the call for its own purposes."""
    return "overhead" if text(value) else None


READERS: Mapping[str, Reader] = {
    "geography": geography,
    "phase": phase,
    "overhead": overhead,
    "text": text,
    "model": model,
    "count": count,
    "from_one": retries_from_attempts,
    "money": money,
    "quantity": quantity,
    "micros": micros,
    "flag": flag,
    "tier": tier,
    "url": url,
    "after_slash": after_slash,
    "before_slash": before_slash,
    "without_api": without_api,
    "run_only": run_id,
    "not_run": response_id,
    "http_error": http_error,
    "request_ids": request_ids,
    "tags": tags,
    "labels": labels,
}
"""Parsers by their name in attributes.csv; ``operation``, ``provider`` and ``framework`` depend on the table itself."""


def is_usage_attribute(name: str) -> bool:
    """Whether an attribute states usage, going by its name.

    >>> is_usage_attribute("gen_ai.usage.output_tokens"), is_usage_attribute("gen_ai.request.model")
    (True, False)
    """
    return ".usage." in name or ".token_count." in name
