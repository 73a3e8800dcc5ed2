"""Canonical names: one provider, one model, one meter, however a log or a bill spells them. (RA-1)

The classification is data (`attribution/classification/*.csv`); a name that is not in it stays as written, so that it can be seen.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import polars as pl


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of one classification file."""
    text = (files("attribution") / "classification" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _providers() -> dict[str, str]:
    return {spelling(row["alias"]): row["provider"] for row in table("providers")}


@cache
def _provider_apis() -> frozenset[str]:
    return frozenset(spelling(row["name"]) for row in table("provider_apis"))


@cache
def _frameworks() -> frozenset[str]:
    return frozenset(spelling(row["name"]) for row in table("frameworks"))


def spelling(raw_name: str) -> str:
    """A name without case and without what stands between its words, which everybody writes otherwise: ``amazon_bedrock``, `Amazon Bedrock`."""
    return re.sub(r"[\W_]+", "", raw_name.casefold())


def provider(raw_name: str | None) -> str | None:
    """The canonical provider; as written where it is unknown. Names of its APIs after a point are left out.

    >>> provider("bedrock_converse"), provider("Amazon Web Services, Inc."), provider("mistral-ai"), provider("NoSuchCloud")
    ('AWS', 'AWS', 'Mistral AI', 'NoSuchCloud')
    >>> provider("google.vertex.chat"), provider("nosuchcloud.chat")
    ('Google Cloud', 'nosuchcloud.chat')
    """
    if raw_name is None:
        return None
    name, point = raw_name.strip(), "."
    while point:
        known_provider = _providers().get(spelling(name))
        if known_provider is not None:
            return known_provider
        name, point, api = name.rpartition(".")
        if spelling(api) not in _provider_apis():
            break
    return raw_name.strip()


@cache
def called_provider(raw_name: str | None) -> str | None:
    """The provider that a log names; a framework is none. (RA-1b)

    >>> called_provider("aws.bedrock"), called_provider("strands-agents"), called_provider("NoSuchCloud")
    ('AWS', None, 'NoSuchCloud')
    """
    key = spelling(raw_name or "")
    return None if not key or key in _frameworks() else provider(raw_name)


@cache
def provider_by_form(raw_name: str | None) -> str | None:
    """The provider that the form of a model's id, an ARN or an endpoint states; None where several sell it under that name. (RA-1b)

    >>> provider_by_form("us.anthropic.claude-sonnet-4-6"), provider_by_form("https://acme.openai.azure.com/openai"), provider_by_form("gpt-4o")
    ('AWS', 'Microsoft', None)
    """
    if not raw_name or len(raw_name) > 2048:
        return None
    return next((name for name, pattern in _model_forms() if pattern.search(raw_name.strip())), None)


@cache
def _model_forms() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((row["provider"], re.compile(row["pattern"], re.IGNORECASE)) for row in table("model_forms"))


_PREFIX = re.compile(
    r"^(?:(?:us-gov|us|eu|apac|au|jp|ca|sa|global)\.)?(?:(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|stability|writer|google|moonshotai|minimax|nvidia|zai)\.)?"
)
_VERSION = re.compile(r"(?:[-@:]v\d+(?::\d+)*|:\d+|-\d{8}|@\d{8}|-\d{4}-\d{2}-\d{2}|@default|-latest|-\d{4}$)+$")
_POINT_NOUGHT = re.compile(r"\.0(?!\d)")
_SIZE = re.compile(r"\d[A-Z](?![A-Za-z])")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|\d+[a-z]+(?![a-zA-Z])|\d+|[a-z]+")


@cache
def model(raw_name: str | None) -> str | None:
    """The model's own name, without route, vendor, inference geography, release date or API version.

    >>> model("us.anthropic.claude-sonnet-4-6-v1:0"), model("openai/gpt-4o-2024-08-06"), model("vertex_ai/claude-sonnet-4-5@20250929")
    ('claude-sonnet-4-6', 'gpt-4o', 'claude-sonnet-4-5')
    """
    if not raw_name:
        return None
    name = raw_name.strip()
    if name.startswith("arn:"):
        name = name.rsplit("/", 1)[-1]
    name = _PREFIX.sub("", name.rsplit("/", 1)[-1])
    bare = _VERSION.sub("", name)
    return bare or name


_RELEASE = re.compile(r"(?<!\d)20\d\d-?((?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))(?!\d)")
_SHORT_RELEASE = re.compile(
    r"(?<![\d.])((?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|2\d(?:0[1-9]|1[0-2]))(?:[ -](?:GA|global|regional|preview|glbl|regnl))*$"
)
_MODEL_VERSION = re.compile(r"(?:[-@: ]|(?<=[a-z]))v(\d{1,3})(?::\d+)*(?:@\S*|-\d{8})?$")
_GEOGRAPHY = re.compile(r"^(us-gov|us|eu|apac|au|jp|ca|sa|global)\.[a-z]")
_MAX_NAME = 200


class Variant(NamedTuple):
    """What a model's name states beside its family: optional keys of a pool. (RA-1c)"""

    release: str | None = None
    """Month and day of the release, or its year and month, as the shorter spelling has it: 0806, 2407."""
    model_version: str | None = None
    geography: str | None = None
    """Where inference may run, by the prefix of an inference profile: us, eu, apac, global."""


@cache
def variant(raw_name: str | None) -> Variant:
    """Release, version and inference geography that a name states; what is no date is no release.

    >>> [variant(name).release for name in ("gpt-4o-2024-08-06", "gpt 4o 0806", "mistral-large-2407", "gpt-4o-2024-99-99", "gpt-4o-9999")]
    ['0806', '0806', '2407', None, None]
    >>> variant("us.anthropic.claude-3-5-sonnet-20241022-v2:0")
    Variant(release='1022', model_version='2', geography='us')
    """
    if not raw_name or len(raw_name) > _MAX_NAME:
        return Variant()
    name = raw_name.strip().rsplit("/", 1)[-1]
    version, geography = _MODEL_VERSION.search(name), _GEOGRAPHY.search(name)
    release = _RELEASE.search(name) or _SHORT_RELEASE.search(name)
    return Variant(
        release[1].replace("-", "") if release else None,
        version[1] if version else None,
        geography[1] if geography else None,
    )


@cache
def signature(name: str | None) -> str | None:
    """What two spellings of one model have in common: its words in alphabetical order, then its numbers in their order.

    >>> signature("claude-sonnet-4-6") == signature("Claude4.6Sonnet"), signature("gpt-4o-mini"), signature("Nova2.0Lite")
    (True, 'gpt mini 4o', 'lite nova 2')
    >>> signature("us.meta.llama3-3-70b-instruct-v1:0") == signature("Llama3-3-70B")
    True
    """
    bare = model(name)
    if bare is None:
        return None
    bare = _SIZE.sub(lambda size: size[0].lower(), _POINT_NOUGHT.sub("", bare))
    words: list[str] = []
    numbers: list[str] = []
    for word in _WORDS.findall(bare):
        (numbers if word[0].isdigit() else words).append(word.lower())
    if "instruct" in words and any(number.endswith("b") for number in numbers):
        words.remove("instruct")  # bills leave "instruct" out where they name the size
    return " ".join([*sorted(words), *numbers])


def map_distinct(values: pl.Series, rule: Callable[[str | None], str | None]) -> pl.Series:
    """A naming function applied to a whole column, called once per distinct value.

    >>> map_distinct(pl.Series(["bedrock", "openai", None]), provider).to_list()
    ['AWS', 'OpenAI', None]
    """
    distinct = values.unique()
    lookup = pl.DataFrame({"written": distinct, "named": pl.Series([rule(v) for v in distinct], dtype=pl.String)})
    return pl.DataFrame({"written": values}).join(lookup, on="written", how="left", nulls_equal=True, maintain_order="left")[
        "named"
    ]


class ModelNames:
    """One display name for each model, however it is spelled: the commonest in the price book, else in logs, else on bills."""

    def __init__(self, book: Iterable[str], logs: Iterable[str] = (), bills: Iterable[str] = ()) -> None:
        self._display: dict[str, str] = {}
        for names in (book, logs, bills):
            spelled_as: dict[str, Counter[str]] = {}
            for raw_name in names:
                bare, sign = model(raw_name), signature(raw_name)
                if bare is not None and sign is not None:
                    spelled_as.setdefault(sign, Counter())[bare] += 1
            commonest = {
                sign: min(counter, key=lambda name: (-counter[name], len(name), name)) for sign, counter in spelled_as.items()
            }
            self._display = {**commonest, **self._display}

    def display(self, raw_name: str | None) -> str | None:
        """The name to show and to match by.

        >>> names = ModelNames(["us.anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6-v1:0"])
        >>> names.display("Claude4.6Sonnet"), names.display("no-such-model-7b")
        ('claude-sonnet-4-6', 'no-such-model-7b')
        """
        sign = signature(raw_name)
        return None if sign is None else self._display.get(sign) or model(raw_name)
