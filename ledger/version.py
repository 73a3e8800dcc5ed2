"""The version of RootCost that runs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def product_version() -> str:
    """The version that is installed."""
    try:
        return version("rootcost")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
