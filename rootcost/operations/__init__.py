"""What people manage, for the command line and the API alike: each function checks, changes, and audits with the principal of the books."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.operations import Operations
    from rootcost.operations.erasures import Drain


def all_operations(*, drain: Drain = lambda _store: None) -> Operations:
    """The functions that the routes of the API call; `drain` books what waits in the spool of the service."""
    from api.operations import Operations
    from rootcost.operations import periods, prices, rules, sources
    from rootcost.operations.erasures import Erasures

    return Operations(sources=sources, prices=prices, rules=rules, erasures=Erasures(drain), periods=periods)
