"""Denials in the audit log, bounded: who tries a million keys fills no disk, and is in the log all the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.addresses import masked
from ledger.audit import record
from ledger.db import Database
from ledger.errors import RootCostError

DENIED: Final = "access.denied"
"""Action of the entries."""

_PAUSE_SECONDS: Final = 60.0
_MAX_ENTRIES: Final = 60
_OTHERS: Final = ("", "")

log = logging.getLogger("rootcost.audit")


@dataclass(slots=True)
class _Repetition:
    recorded_seconds: float
    unrecorded: int = 0


class DenialLog:
    """Records denials: the first of an actor and address at once, and then once a minute with how many there were since.

    At most 60 entries a minute are made for all together; what is beyond them is counted in one.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._repetitions: dict[tuple[str, str], _Repetition] = {}

    def note(self, subject: str, *, status: int, reason: str, actor: str = "anonymous", address: str = "") -> None:
        """A request for `subject` (method and path) was denied. Never raises: the answer to the request must not depend on it."""
        count = self._due((actor, address))
        if not count:
            return
        try:
            with self._database.session() as session:
                after = {"status": status, "reason": masked(reason), "denials": count}
                personal = {"address": address} if address else None
                kind = "anonymous" if actor == "anonymous" else None
                record(session, actor, DENIED, masked(subject), after=after, personal=personal, actor_kind=kind)
        except RootCostError as error:
            log.warning("a denial could not be recorded: %s", error)

    def _due(self, key: tuple[str, str]) -> int:
        """How many denials an entry has to stand for now; 0 if none is due."""
        with self._lock:
            at = self._clock()
            self._repetitions = {
                k: r for k, r in self._repetitions.items() if r.unrecorded or at - r.recorded_seconds < _PAUSE_SECONDS
            }
            if key not in self._repetitions and len(self._repetitions) >= _MAX_ENTRIES:
                key = _OTHERS
            repetition = self._repetitions.get(key)
            if repetition is not None and at - repetition.recorded_seconds < _PAUSE_SECONDS:
                repetition.unrecorded += 1
                return 0
            count = 1 + (repetition.unrecorded if repetition is not None else 0)
            self._repetitions[key] = _Repetition(at)
            return count
