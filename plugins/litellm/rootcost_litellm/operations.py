"""Operations on budgets, as JSON that every store applies alike: whole batches, in order, at once.

Amounts are integers written as text, since some stores calculate in doubles. `amounts` lists ``[level, amount]`` pairs, outermost level first.

| operation | meaning | result |
|---|---|---|
| level | sets the cap of a level; with `committed` creates it | the sums |
| reserve | holds an amount at every level, or at none | granted; else the level that has too little, or the levels that do not exist |
| resize | changes what an open hold holds, if all levels have room | as for reserve |
| commit | books what the call cost; final, whatever the state was, and taken even above the hold | state, or levels that do not exist |
| release | gives an open hold back; of an unknown id, keeps a late reserve from holding anything | state |
| uncertain | an open hold whose cost nobody knows: goes on counting until it is settled | state |
| settle | books what an uncertain hold turned out to cost | state |
| expire | open holds past their deadline become uncertain; finished ones are forgotten after a day | moved |
| lease | moves budget of one level to a replica, books what it used, takes back what it returns | amount, granted, left |
| epoch | names this life of the store | epoch |
| holds | lists open and uncertain holds | holds |
| read | the sums of levels | levels |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Amounts = Mapping[str, int]
"""Amount by level, outermost first."""

Operation = dict[str, Any]
Result = dict[str, Any]

KEEP_SECONDS = 86_400
"""How long a finished hold is remembered, so that a repeated or late event changes nothing twice."""


def _pairs(amounts: Amounts) -> list[list[str]]:
    return [[level, str(amount)] for level, amount in amounts.items()]


def level(key: str, cap: int, committed: int | None = None, *, reset: bool = False) -> Operation:
    """Sets the cap of a level. With `committed` one that does not exist is created; with `reset` an existing one is set to it, too."""
    operation: Operation = {"op": "level", "level": key, "cap": str(cap), "reset": reset}
    return operation if committed is None else operation | {"committed": str(committed)}


def reserve(hold_id: str, amounts: Amounts, seconds: int) -> Operation:
    """Holds amounts for at most `seconds`; after that the hold is uncertain."""
    return {"op": "reserve", "id": hold_id, "amounts": _pairs(amounts), "seconds": seconds}


def resize(hold_id: str, amounts: Amounts) -> Operation:
    """Changes the amounts of an open hold."""
    return {"op": "resize", "id": hold_id, "amounts": _pairs(amounts)}


def commit(hold_id: str, amounts: Amounts) -> Operation:
    """Books what a call cost."""
    return {"op": "commit", "id": hold_id, "amounts": _pairs(amounts)}


def release(hold_id: str) -> Operation:
    """Gives back."""
    return {"op": "release", "id": hold_id}


def uncertain(hold_id: str, amounts: Amounts) -> Operation:
    """Keeps the amounts counted until settled. A hold that the store does not know is entered."""
    return {"op": "uncertain", "id": hold_id, "amounts": _pairs(amounts)}


def settle(hold_id: str, amounts: Amounts) -> Operation:
    """Books what an uncertain hold cost, by the token log or the bill."""
    return {"op": "settle", "id": hold_id, "amounts": _pairs(amounts)}


def expire() -> Operation:
    """Moves overdue holds to uncertain, by the store's clock."""
    return {"op": "expire", "keep": KEEP_SECONDS}


def lease(
    replica: str, key: str, sequence: int, *, used: int = 0, returned: int = 0, need: int = 0, replicas: int = 1, seconds: int
) -> Operation:
    """Budget of one level for one replica: books `used`, shrinks the lease by `returned`, and enlarges it where there is plenty for `need`."""
    return {
        "op": "lease",
        "id": f"lease/{replica}/{key}",
        "level": key,
        "sequence": sequence,
        "used": str(used),
        "returned": str(returned),
        "need": str(need),
        "replicas": replicas,
        "seconds": seconds,
    }


def epoch(proposed: str, grace_seconds: int) -> Operation:
    """Which life of the store this is: one that lost its data begins another, and grants nothing for `grace_seconds`."""
    return {"op": "epoch", "proposed": proposed, "grace_seconds": grace_seconds}


def holds(limit: int = 1000) -> Operation:
    """Lists what is open or uncertain, oldest deadline first."""
    return {"op": "holds", "limit": limit}


def read(keys: Sequence[str]) -> Operation:
    """Reads the sums of levels."""
    return {"op": "read", "levels": list(keys)}


def amounts_of(pairs: Sequence[Sequence[str]]) -> dict[str, int]:
    """The amounts of an operation or of a listed hold.

    >>> amounts_of([["team/ads", "5"]])
    {'team/ads': 5}
    """
    return {key: int(amount) for key, amount in pairs}
