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

import polars as pl


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of one classification file."""
    text = (files("attribution") / "classification" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _providers() -> dict[str, str]:
    return {row["alias"]: row["provider"] for row in table("providers")}


def provider(raw_name: str | None) -> str | None:
    """The canonical provider; as written where it is unknown.

    >>> provider("bedrock_converse"), provider("Amazon Web Services, Inc."), provider("NoSuchCloud")
    ('AWS', 'AWS', 'NoSuchCloud')
    """
    if raw_name is None:
        return None
    return _providers().get(raw_name.strip().lower(), raw_name.strip())


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
