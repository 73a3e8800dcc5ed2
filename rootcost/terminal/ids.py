"""Ids that are written by how they begin."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.errors import ObjectMissingError, UsageError


def only_one(ids: Sequence[str], beginning: str, noun: str, command: str) -> str:
    """The id that begins so. Raises where none or several do.

    >>> only_one(["3f2a", "91bc"], "3f", "alert", "rootcost alerts list")
    '3f2a'
    """
    matching_ids = [key for key in ids if key.startswith(beginning)]
    if not matching_ids:
        raise ObjectMissingError(f"no such {noun}", where=beginning, remedy=f"`{command}` lists them")
    if len(matching_ids) > 1:
        raise UsageError(
            f"several begin so ({noun})", where=beginning, remedy=f"write more of it: {', '.join(matching_ids[:3])}, …"
        )
    return matching_ids[0]
