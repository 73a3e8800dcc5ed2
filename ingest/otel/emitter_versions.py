"""Versions of emitters: what emitter_versions.csv says from a version on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

_VERSION = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})(?![0-9])")


@lru_cache(maxsize=4096)
def version_key(version: str) -> tuple[int, ...]:
    """The numbers a version begins with; empty where it begins with none.

    >>> version_key("2.13.0"), version_key("v6.0.0-beta.1"), version_key("main"), version_key("9" * 40)
    ((2, 13, 0), (6, 0, 0), (), ())
    """
    match = _VERSION.match(version.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def by_first_version(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[tuple[int, ...], Mapping[str, str]]]:
    """The rows of emitter_versions.csv by emitter and first version."""
    versions: dict[str, dict[tuple[int, ...], Mapping[str, str]]] = {}
    for row in rows:
        versions.setdefault(row["emitter"], {})[version_key(row["from_version"])] = row
    return versions
