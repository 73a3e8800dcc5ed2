"""The inputs RootCost reads, one module each. Modules are found by name and imported when asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, cast

from ledger.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from ingest.source import Source
    from ledger.settings import IngestSettings


def discover() -> tuple[str, ...]:
    """Names of all sources, in order, without importing them.

    >>> "focus" in discover() and "aws-cur" in discover()
    True
    """
    return tuple(sorted(module.name.replace("_", "-") for module in iter_modules(__path__) if not module.name.startswith("_")))


def by_name(name: str) -> Source:
    """The source of that name. Raises `UsageError` that lists the known ones.

    >>> by_name("focus").kind
    'bill'
    """
    if name not in discover():
        close_names = get_close_matches(name, discover(), n=1, cutoff=0.5)
        hint = f"did you mean {close_names[0]}? " if close_names else ""
        raise UsageError(f"there is no source {name!r}", remedy=f"{hint}sources are {', '.join(discover())}")
    return cast("Source", import_module(f"{__name__}.{name.replace('-', '_')}").SOURCE)


def check_trusted_sources(settings: IngestSettings) -> None:
    """Raises `SettingsError` that names the setting where `ingest.trusted_sources` lists anything but sources of logs.

    >>> from ledger.settings import IngestSettings
    >>> check_trusted_sources(IngestSettings(trusted_sources=["otlp"]))
    >>> check_trusted_sources(IngestSettings(trusted_sources=["focus"]))
    Traceback (most recent call last):
    ...
    ledger.errors.SettingsError: ingest.trusted_sources: 'focus' is no log source; there are agentcore, ...
    """
    known_names = discover()
    for name in settings.trusted_sources:
        if name in known_names and by_name(name).kind == "log":
            continue
        log_sources = [source for source in known_names if by_name(source).kind == "log"]
        close = get_close_matches(name, log_sources, n=1)
        suggestion = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(
            f"{name!r} is no log source{suggestion}; there are {', '.join(log_sources)}",
            where="ingest.trusted_sources",
            remedy="`rootcost sources kinds` lists the sources; only logs make claims that can be trusted",
        )
