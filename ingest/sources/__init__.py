"""The inputs RootCost reads, one module each. Modules are found by name and imported when asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, cast

from ledger.errors import UsageError

if TYPE_CHECKING:
    from ingest.source import Source


def discover() -> tuple[str, ...]:
    """Names of all sources, in order, without importing them.

    >>> "focus" in discover() and "aws-cur" in discover()
    True
    """
    return tuple(sorted(found.name.replace("_", "-") for found in iter_modules(__path__) if not found.name.startswith("_")))


def by_name(name: str) -> Source:
    """The source of that name. Raises `UsageError` that lists the known ones.

    >>> by_name("focus").kind
    'bill'
    """
    if name not in discover():
        near = get_close_matches(name, discover(), n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no source {name!r}", remedy=f"{meant}sources are {', '.join(discover())}")
    return cast("Source", import_module(f"{__name__}.{name.replace('-', '_')}").SOURCE)
