"""Names after classification: one provider, one model, one meter, however a log or a bill spells them. (RA-1)

The classification is data (`attribution/classification/*.csv`); what it does not know stays as written, so that it can be seen.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files

import polars as pl


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of one classification file."""
    text = (files("attribution") / "classification" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _providers() -> dict[str, str]:
    return {row["alias"]: row["provider"] for row in table("providers")}


def provider(written: str | None) -> str | None:
    """The canonical provider; as written where it is not known.

    >>> provider("bedrock_converse"), provider("Amazon Web Services, Inc."), provider("NoSuchCloud")
    ('AWS', 'AWS', 'NoSuchCloud')
    """
    if written is None:
        return None
    return _providers().get(written.strip().lower(), written.strip())


_PREFIX = re.compile(
    r"^(?:(?:us-gov|us|eu|apac|au|jp|ca|sa|global)\.)?(?:(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|stability|writer|google|moonshotai|minimax|nvidia|zai)\.)?"
)
_VERSION = re.compile(r"(?:[-@:]v\d+(?::\d+)*|:\d+|-\d{8}|@\d{8}|-\d{4}-\d{2}-\d{2}|@default|-latest|-\d{4}$)+$")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|\d+[a-z]+(?![a-zA-Z])|\d+|[a-z]+")


@cache
def model(written: str | None) -> str | None:
    """The model's own name, without route, vendor, inference geography, release date or API version.

    >>> model("us.anthropic.claude-sonnet-4-6-v1:0"), model("openai/gpt-4o-2024-08-06"), model("vertex_ai/claude-sonnet-4-5@20250929")
    ('claude-sonnet-4-6', 'gpt-4o', 'claude-sonnet-4-5')
    """
    if not written:
        return None
    name = written.strip()
    if name.startswith("arn:"):
        name = name.rsplit("/", 1)[-1]
    name = _PREFIX.sub("", name.rsplit("/", 1)[-1])
    bare = _VERSION.sub("", name)
    return bare or name


@cache
def signature(name: str | None) -> str | None:
    """What two spellings of one model have in common: its words in alphabetical order, then its numbers as they stand.

    >>> signature("claude-sonnet-4-6") == signature("Claude4.6Sonnet"), signature("gpt-4o-mini"), signature("Nova2Lite")
    (True, 'gpt mini 4o', 'lite nova 2')
    """
    bare = model(name)
    if bare is None:
        return None
    words: list[str] = []
    numbers: list[str] = []
    for word in _WORDS.findall(bare):
        (numbers if word[0].isdigit() else words).append(word.lower())
    return " ".join([*sorted(words), *numbers])


@dataclass(frozen=True, slots=True)
class Sold:
    """What a bill row sells, as far as its words tell: model and meter, tier, and how its quantity counts.

    `factor` turns the billed quantity into the meter's unit (tokens, seconds, requests); None: not comparable.
    """

    model: str | None = None
    meter: str | None = None
    service_tier: str = "standard"
    context_above: int = 0
    kind: str | None = None
    factor: Decimal | None = None
    provisioned: bool = False


@cache
def _patterns(name: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    key = {"meters": "meter", "tiers": "service_tier", "provisioned": "why"}[name]
    return tuple((row[key], re.compile(row["pattern"], re.IGNORECASE)) for row in table(name))


@cache
def _units() -> dict[str, tuple[str, Decimal]]:
    return {row["unit"]: (row["meter_kind"], Decimal(row["factor"])) for row in table("units")}


def unit(written: str | None) -> tuple[str, Decimal] | None:
    """The kind of meter a unit counts, and how many base units one of it is.

    >>> unit("1K tokens"), unit("Hrs"), unit("LCU-Hours")
    (('tokens', Decimal('1000')), ('seconds', Decimal('3600')), None)
    """
    return None if written is None else _units().get(" ".join(written.lower().split()))


_REGION = re.compile(r"^(?:[A-Z]{2,4}\d-|MP:|[A-Z]{2,4}\d_)+")
_CONTEXT = re.compile(r"(?:above|over|>)[-_ ]?(\d+)[-_ ]?k|\(long\)|long[-_ ]context", re.IGNORECASE)
_NOISE = re.compile(
    r"[-_ ,]*(?:mantle)?[-_ ,]*"
    r"(?:input|output|cache[-_ ]?read|cache[-_ ]?write|cached|text|thinking|reasoning|audio|image)?"
    r"[-_ ,]*(?:input|output)?[-_ ]*(?:tokens?|token[-_ ]?count|- predictions).*$",
    re.IGNORECASE,
)


def sold(meter_text: str | None, description: str | None, unit_text: str | None) -> Sold:
    """Reads model, meter and tier out of an AWS usage type, a FOCUS SkuMeter or an OpenAI line item.

    >>> s = sold("USE1-Claude4.6Sonnet-input-tokens", None, "1K tokens")
    >>> s.model, s.meter, s.factor, s.service_tier
    ('Claude4.6Sonnet', 'input_tokens', Decimal('1000'), 'standard')
    >>> s = sold("USE1-Nova2Lite-cache-read-input-token-count-batch", None, "1K tokens")
    >>> s.model, s.meter, s.service_tier
    ('Nova2Lite', 'cache_read_tokens', 'batch')
    >>> s = sold("gpt-4o-2024-08-06, cached input_tokens", None, "Tokens")
    >>> s.model, s.meter
    ('gpt-4o-2024-08-06', 'cache_read_tokens')
    """
    counted = unit(unit_text)
    text = meter_text or ""
    provisioned = any(p.search(text) for _, p in _patterns("provisioned"))
    meter = next((m for m, p in _patterns("meters") if p.search(text)), None)
    if meter is None and description and "token" in description.lower():
        text = description
        meter = next((m for m, p in _patterns("meters") if p.search(text)), None)
    if meter is None:
        kind, factor = counted or (None, None)
        return Sold(kind=kind, factor=factor, provisioned=provisioned, meter=kind if kind in ("seconds", "requests") else None)
    tier = next((t for t, p in _patterns("tiers") if p.search(text)), "standard")
    context = _CONTEXT.search(text)
    above = 0 if context is None else int(context[1] or 200) * 1000
    name = _NOISE.sub("", _REGION.sub("", text)).strip(" -_,")
    tokens = counted if counted and counted[0] == "tokens" else None
    return Sold(
        model=name or None,
        meter=meter,
        service_tier=tier,
        context_above=above,
        kind="tokens",
        factor=tokens[1] if tokens else None,
        provisioned=provisioned,
    )


def spelled(values: pl.Series, rule: Callable[[str | None], str | None]) -> pl.Series:
    """A naming rule over a whole column, asked once per distinct value.

    >>> spelled(pl.Series(["bedrock", "openai", None]), provider).to_list()
    ['AWS', 'OpenAI', None]
    """
    distinct = values.unique()
    book = pl.DataFrame({"written": distinct, "named": pl.Series([rule(v) for v in distinct], dtype=pl.String)})
    return pl.DataFrame({"written": values}).join(book, on="written", how="left", nulls_equal=True, maintain_order="left")[
        "named"
    ]


class ModelNames:
    """One display name for each model, whoever spelled it: the commonest in the price book, else the log's, else the bill's."""

    def __init__(self, book: Iterable[str], logs: Iterable[str] = (), bills: Iterable[str] = ()) -> None:
        self._display: dict[str, str] = {}
        for names in (book, logs, bills):
            spelled_as: dict[str, Counter[str]] = {}
            for written in names:
                bare, sign = model(written), signature(written)
                if bare is not None and sign is not None:
                    spelled_as.setdefault(sign, Counter())[bare] += 1
            found = {sign: min(seen, key=lambda name: (-seen[name], len(name), name)) for sign, seen in spelled_as.items()}
            self._display = {**found, **self._display}

    def display(self, written: str | None) -> str | None:
        """The name to show and to match by.

        >>> names = ModelNames(["us.anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6-v1:0"])
        >>> names.display("Claude4.6Sonnet"), names.display("no-such-model-7b")
        ('claude-sonnet-4-6', 'no-such-model-7b')
        """
        sign = signature(written)
        return None if sign is None else self._display.get(sign) or model(written)
