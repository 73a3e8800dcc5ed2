"""Parsers of single fields of LiteLLM's log items: exact numbers, valid UTF-8 text, unwrapped JSON.

LiteLLM writes the same field in several ways: as JSON, as JSON inside JSON text (`LiteLLM_SpendLogs`), or as Python's own
``str(value)`` (the generic callback's old format). Each function here accepts all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from ingest.problem_counter import described
from ledger.money import exact_decimal, is_amount

ABSENT_VALUES = frozenset({"", "None", "none", "null", "NULL", "NaN", "nan"})
"""Texts that emitters write for an absent value."""

MAX_TEXT_LENGTH = 4096
"""Characters of the longest name or id that is accepted; longer text is treated as absent."""
MAX_STRUCTURE_LENGTH = 2_000_000
"""Characters of the longest JSON text inside a field that is parsed."""

_EARLIEST, _LATEST = 0, 7_258_118_400  # 1970 and 2200, in seconds: no call was made outside
_INT64 = 2**63 - 1
_RATE_STEP = Decimal(1).scaleb(-18)
_RATE_LIMIT, _RATE_CONTEXT = Decimal(10) ** 20, Context(prec=40)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=str)
"""Made once: it costs as much as a small record."""


class FieldError(ValueError):
    """A field has an invalid value. The reader of the item catches it and reports a `Problem`."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        self.field, self.reason, self.remedy = field, reason, remedy
        super().__init__(f"{field}: {reason}")


def parse_json(text: str | bytes) -> Any:
    """JSON with exact numbers. Raises ValueError on bad JSON, RecursionError on JSON that is nested too deeply."""
    if isinstance(text, str):
        return json.loads(text, parse_float=Decimal, parse_constant=str)
    return _DECODER.decode(text.decode(json.detect_encoding(text), "surrogatepass"))


def text(value: object) -> str | None:
    """A name or id; None where there is none.

    Text that UTF-8 cannot carry has its stray surrogates replaced.

    >>> text(" key-a "), text(""), text("None"), text(42), text({"a": 1})
    ('key-a', None, None, '42', None)
    """
    if value is None:
        return None
    if type(value) is str:
        if value in ABSENT_VALUES:
            return None
        name = value.strip()
        if (name is not value and name in ABSENT_VALUES) or len(name) > MAX_TEXT_LENGTH:
            return None
        return name if name.isascii() else name.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    return None


def count(value: object, field: str) -> int | None:
    """A number of tokens; None where it is absent. Raises `FieldError` on anything that is no whole number from 0 up.

    >>> count("1200", "prompt_tokens"), count(None, "prompt_tokens"), count(Decimal("7.0"), "prompt_tokens")
    (1200, None, 7)
    """
    if type(value) is int and 0 <= value <= _INT64:
        return value
    if value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    number: Decimal | int | None
    if type(value) is int:
        number = value
    elif isinstance(value, bool):
        number = None
    else:
        number = decimal(value)
    if number is None or not 0 <= number <= _INT64 or number != int(number):
        raise FieldError(field, f"{described(value)} is no number of tokens", "send a whole number from 0 up, or leave it out")
    return int(number)


def decimal(value: object) -> Decimal | None:
    """A number exactly as it was written; None where it is absent or no finite number.

    A float, which only Parquet and in-process callers send, counts as its shortest decimal form.

    >>> decimal("0.0025200000000000005"), decimal(1.4e-07), decimal("dear")
    (Decimal('0.0025200000000000005'), Decimal('1.4E-7'), None)
    """
    if value is None:
        return None
    if isinstance(value, Decimal):
        return value if is_amount(value) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**20 else None
    if isinstance(value, float):
        return exact_decimal(repr(value))
    return exact_decimal(value) if isinstance(value, str) else None


def rate(value: object, field: str) -> Decimal | None:
    """A cost at the 18 places of `ledger.money.RATE`; None where it is absent. Raises `FieldError` on what is no number.

    >>> rate("0.0025200000000000005", "response_cost")
    Decimal('0.002520000000000000')
    """
    if value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    number = decimal(value)
    if number is None:
        raise FieldError(field, f"{described(value)} is no amount", "send a decimal number in US dollars")
    if abs(number) >= _RATE_LIMIT:
        raise FieldError(field, f"{described(value)} is beyond all amounts", "send a decimal number in US dollars")
    return number.quantize(_RATE_STEP, ROUND_HALF_EVEN, _RATE_CONTEXT)


def flag(value: object) -> bool | None:
    """True or false, also in Python's spelling; None where it is neither.

    >>> flag("True"), flag(False), flag("None")
    (True, False, None)
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return None


def instant(value: object, field: str) -> int | None:
    """A moment in microseconds since 1970 UTC, exact; None where it is absent.

    Takes epoch seconds as numbers or text, ISO 8601 text, and datetimes; what names no zone is UTC, as the database keeps it.
    Raises `FieldError` on anything else, and outside the years 1970 to 2200.

    >>> instant(Decimal("1795361505.924785"), "startTime")
    1795361505924785
    >>> instant("2026-11-22 15:31:45.924785+00:00", "startTime") == instant("1795361505.924785", "startTime")
    True
    """
    if value is None or (isinstance(value, str) and value.strip() in ABSENT_VALUES):
        return None
    moment: datetime | None = value if isinstance(value, datetime) else None
    seconds = None if moment else decimal(value)
    if moment is None and seconds is None and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if moment is not None:
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        since_epoch = aware - _EPOCH
        seconds = Decimal(since_epoch.days * 86_400 + since_epoch.seconds) + Decimal(since_epoch.microseconds).scaleb(-6)
    if seconds is None or not _EARLIEST < seconds < _LATEST:
        raise FieldError(field, f"{described(value)} is no time", "send seconds since 1970 UTC, or ISO 8601 text")
    return int(seconds.scaleb(6).to_integral_value(rounding=ROUND_HALF_EVEN))


def structure(value: object, field: str) -> Any:
    """An object or list, unwrapped from JSON text or from Python's spelling of it if need be; None where it is absent.

    Raises `FieldError` on text that is neither.

    >>> structure('{"a": 1}', "metadata"), structure("{'a': None}", "metadata"), structure("", "metadata")
    ({'a': 1}, {'a': None}, None)
    """
    if not isinstance(value, str):
        return value
    source = value.strip()
    if source in ABSENT_VALUES:
        return None
    if len(source) <= MAX_STRUCTURE_LENGTH:
        for spelling in (str, _as_json):
            try:
                return parse_json(spelling(source))
            except (ValueError, RecursionError):
                continue  # try the next spelling
    raise FieldError(field, f"{described(value)} is neither an object nor a list", "send JSON")


_LITERAL = re.compile(
    r"""'((?:[^'\\]|\\.)*)(?:'|\\?\Z)|"((?:[^"\\]|\\.)*)(?:"|\\?\Z)|\b(None|True|False)\b|([()]|,\s*[)])""", re.DOTALL
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_WORDS = {"None": "null", "True": "true", "False": "false", "(": "[", ")": "]"}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}


def _as_json(literal: str) -> str:
    """Python's spelling of strings, None, booleans and tuples in JSON's. Nothing is evaluated."""

    def escape(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _CONTROLS.get(code, code)

    def token(match: re.Match[str]) -> str:
        word = match[3] or (match[4] and match[4][-1])
        body = match[1] if match[1] is not None else match[2]
        return _WORDS[word] if word else json.dumps(_ESCAPE.sub(escape, body))

    return _LITERAL.sub(token, literal)


def mapping(value: object, field: str) -> Mapping[str, Any]:
    """An object; empty where it is absent. Raises `FieldError` on anything else."""
    inner = structure(value, field)
    if inner is None:
        return {}
    if not isinstance(inner, Mapping):
        raise FieldError(field, f"{described(value)} is no object", "send a JSON object, or leave it out")
    return inner


_TOKEN = re.compile(r"\b(\w{1,64})=(?:(-?\d{1,19}(?:\.\d{1,30})?)(?![\w.(])|([A-Za-z_]\w*)\(|(None|True|False)\b)|(\))")


def spelled_usage(usage_text: str) -> dict[str, Any]:
    """The token counts in ``str(usage)``, as the generic callback's old format sends them.

    >>> spelled_usage("completion_tokens=80 prompt_tokens_details=Details(audio_tokens=None, cached_tokens=1024)")
    {'completion_tokens': 80, 'prompt_tokens_details': {'cached_tokens': 1024}}
    """
    root: dict[str, Any] = {}
    nest = [root]
    for match in _TOKEN.finditer(usage_text[:MAX_STRUCTURE_LENGTH]):
        name, number, opening, _, closing = match.groups()
        if closing:
            if len(nest) > 1:
                nest.pop()
        elif opening:
            inner: dict[str, Any] = {}
            nest[-1][name] = inner
            nest.append(inner)
        elif number:
            nest[-1][name] = int(number) if number.lstrip("-").isdigit() else Decimal(number)
    return root
