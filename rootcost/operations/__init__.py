"""What people manage, for the command line and the API alike: each function checks, changes, and audits with the principal of the books."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.operations import Operations


def all_operations() -> Operations:
    """The functions that the routes of the API call."""
    from api.operations import Operations
    from rootcost.operations import prices, rules, sources

    return Operations(sources=sources, prices=prices, rules=rules)
