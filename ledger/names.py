"""Names of agents, teams, workflows and tenants: which spellings are one name. (ID-3)

A name is compared in NFC and without space around it; a text that stands for an absent value is null. Names that then differ only in case or
in space within them have the same key: such a name is the registered one of that key, where there is exactly one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

import polars as pl

NULL_LIKES = frozenset({"", "-", "–", "—", "n/a", "null", "none", "nan", "undefined"})
"""Texts for an absent name, in lower case."""
MAX_LENGTH = 512
"""A longer name is cut, and told from others with the same beginning by a hash of the whole."""

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\ufeff"
_EDGES = _INVISIBLE + "".join(
    map(chr, (*range(9, 14), *range(28, 33), 133, 160, 5760, *range(8192, 8203), 8232, 8233, 8239, 8287, 12288))
)
_SPACE = re.compile(rf"[\s{_INVISIBLE}]+")
CUT_MARK = "…"
_DIGEST_BYTES = 6


def clean(name: str | None) -> str | None:
    """A name in NFC without space and invisible characters around it, at most `MAX_LENGTH` long; None for an absent one.

    >>> clean(" Growth "), clean("Mu\u0308ller") == "M\u00fcller", clean("\u200bcoder"), clean("N/A"), clean("none"), clean(" - ")
    ('Growth', True, 'coder', None, None, None)
    >>> len(clean("G" * 1_000_000)), clean("G" * 1_000_000) == clean("G" * 999_999)
    (512, False)
    """
    if name is None:
        return None
    name = name.strip(_EDGES)
    if len(name) > MAX_LENGTH:
        # Cut before it is normalised: the time to order combining characters grows with the square of their number.
        digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=_DIGEST_BYTES).hexdigest()
        name = unicodedata.normalize("NFC", name[: MAX_LENGTH - len(digest) - 1]) + CUT_MARK + digest
    elif not name.isascii():
        name = unicodedata.normalize("NFC", name)
    return None if name.lower() in NULL_LIKES else name


def key(name: str) -> str:
    """What spellings of one name have in common: the name without case, space and invisible characters.

    >>> key("Support Bot") == key("support\u200b  bot") == key("SUPPORTBOT"), key("STRASSE") == key("straße"), key("bot-1") == key("bot 1")
    (True, True, False)
    """
    folded_name = _SPACE.sub("", name).casefold()
    return folded_name if folded_name.isascii() else unicodedata.normalize("NFC", folded_name)


_BLANK = re.compile("[\u034f\u115f\u1160\u180e\u2800\ufe00-\ufe0f\U000e0000-\U000e01ef]+")
"""Characters that show nothing, and are neither space nor format characters of `_INVISIBLE`."""


def look_alike_key(name: str) -> str:
    """What names have in common that look alike: `key`, without the forms that Unicode calls compatible, and without blanks.

    Look-alikes are told, and never taken for each other.

    >>> look_alike_key("Ｃａｒｅ\u3000１") == look_alike_key("care1"), look_alike_key("Ca\u3164re") == "care", key("Ｃａｒｅ") == "care"
    (True, True, False)
    """
    return key(_BLANK.sub("", unicodedata.normalize("NFKC", name)))


def map_names(values: pl.Series, rule: Callable[[str | None], str | None]) -> pl.Series:
    """A rule of names applied to a whole column, once per distinct value; the same series if it changes none."""
    if values.null_count() == len(values):
        return values
    distinct = values.unique().drop_nulls().cast(pl.String)
    names = pl.Series([rule(value) for value in distinct], dtype=pl.String)
    is_changed = distinct.ne_missing(names)
    if not is_changed.any():
        return values
    return values.cast(pl.String).replace(distinct.filter(is_changed), names.filter(is_changed))


class RegisteredNames:
    """The names of a registry by key; each stands for an owner.

    A name that is not registered is the registered one with the same key. Where several are and stand for different owners, none is chosen.

    >>> agents = RegisteredNames({"Support Bot": "Support Bot", "CX": "Support Bot", "coder": "coder", "Coder": "Coder"})
    >>> [agents.find(name) for name in ("support bot", "cx", "coder", "CODER", "newcomer ", "N/A")]
    ['Support Bot', 'CX', 'coder', 'CODER', 'newcomer', None]
    """

    def __init__(self, owner_of: Mapping[str, str]) -> None:
        self.names = frozenset(owner_of)
        by_key: dict[str, list[str]] = {}
        for name in sorted(owner_of):
            by_key.setdefault(key(name), []).append(name)
        self._by_key = {name_key: names[0] for name_key, names in by_key.items() if len({owner_of[name] for name in names}) == 1}

    @classmethod
    def agents(cls, timeline: pl.DataFrame) -> RegisteredNames:
        """Agents and their aliases, at any time."""
        rows = timeline.filter(pl.col("kind").is_in(["agent", "alias"]), pl.col("name").is_not_null())
        owners = rows.group_by("name").agg(pl.col("agent").drop_nulls().unique().sort())
        return cls({name: "\n".join(agents) for name, agents in owners.iter_rows()})

    @classmethod
    def teams(cls, timeline: pl.DataFrame) -> RegisteredNames:
        """Teams that own an agent or another registered name, at any time."""
        return cls.of(timeline["team"].drop_nulls().unique())

    @classmethod
    def of(cls, names: Iterable[str]) -> RegisteredNames:
        """Names that stand for themselves."""
        return cls({name: name for name in names})

    def find(self, name: str | None) -> str | None:
        """The registered name that this one is, else the name itself; None for an absent one."""
        if name in self.names:
            return name
        clean_name = clean(name)
        if clean_name is None or clean_name in self.names:
            return clean_name
        return self._by_key.get(key(clean_name), clean_name)

    def find_all(self, values: pl.Series) -> pl.Series:
        """`find` for a whole column."""
        return map_names(values, self.find)
