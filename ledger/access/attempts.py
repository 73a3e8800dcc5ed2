"""How often somebody may try to log in: counted per account and address, in bounded memory."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ledger.errors import RootCostError


class TooManyAttemptsError(RootCostError):
    """There were too many attempts; the next is looked at after `retry_seconds`."""

    def __init__(self, retry_seconds: float) -> None:
        self.retry_seconds = max(1, round(retry_seconds))
        super().__init__("too many attempts", remedy=f"try again in {self.retry_seconds} seconds")


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts within so many seconds."""

    attempts: int
    seconds: float


ACCOUNT_AT_ADDRESS: Final = Limit(5, 300.0)
ADDRESS: Final = Limit(50, 300.0)
ACCOUNT: Final = Limit(100, 900.0)
DEPARTURES: Final = Limit(300, 300.0)
"""Of log-ins that an address begins at providers, where a password is of no use: a whole office may have one address."""
_OTHERS: Final = b"others"
_MAX_COUNTS: Final = 10_000
_PURGE_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Count:
    began_seconds: float
    limit: Limit
    attempts: int = 0


class AttemptLimiter:
    """Counts attempts of an account from an address, of an address, and of an account, each within a window of time.

    At most ten thousand counts are held; accounts and addresses beyond them share one. The clock is monotonic: setting the machine's clock
    frees nobody.

    >>> limiter = AttemptLimiter()
    >>> for _ in range(5): limiter.admit("ada", "192.0.2.1")
    >>> limiter.admit("ada", "192.0.2.1")
    Traceback (most recent call last):
    ledger.access.attempts.TooManyAttemptsError: too many attempts — try again in 300 seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, address_limit: Limit = ADDRESS) -> None:
        self._clock = clock
        self._address_limit = address_limit
        self._lock = threading.Lock()
        self._counts: dict[bytes, _Count] = {}
        self._purged_seconds = float("-inf")

    def admit(self, account: str, address: str) -> None:
        """Counts an attempt. Raises `TooManyAttemptsError` if one of its limits is reached already."""
        with self._lock:
            at = self._clock()
            counts = [self._count(key, limit, at) for key, limit in self._keys(account, address)]
            waits = [c.began_seconds + c.limit.seconds - at for c in counts if c.attempts >= c.limit.attempts]
            if waits:
                raise TooManyAttemptsError(max(waits))
            for count in counts:
                count.attempts += 1

    def forgive(self, account: str, address: str) -> None:
        """The attempt was right: what the account did wrong from this address counts no more."""
        with self._lock:
            self._counts.pop(self._keys(account, address)[0][0], None)

    def __len__(self) -> int:
        return len(self._counts)

    def _keys(self, account: str, address: str) -> list[tuple[bytes, Limit]]:
        network = _network(address)
        keys = [(f"{network} {account}", ACCOUNT_AT_ADDRESS), (network, self._address_limit), (f"account {account}", ACCOUNT)]
        if not account:
            keys = keys[1:2]
        return [(sha256(text.encode("utf-8", "replace")).digest(), limit) for text, limit in keys]

    def _count(self, key: bytes, limit: Limit, at: float) -> _Count:
        count = self._counts.get(key)
        if count is None and len(self._counts) >= _MAX_COUNTS:
            self._purge(at)
            if len(self._counts) >= _MAX_COUNTS:
                key, count = _OTHERS, self._counts.get(_OTHERS)
        if count is None or at - count.began_seconds >= count.limit.seconds:
            count = self._counts[key] = _Count(at, limit)
        return count

    def _purge(self, at: float) -> None:
        """Drops counts whose time is over, now and then: doing it at every attempt would make attempts slow when there are many."""
        if at - self._purged_seconds >= _PURGE_SECONDS:
            self._purged_seconds = at
            self._counts = {k: c for k, c in self._counts.items() if at - c.began_seconds < c.limit.seconds}


def _network(address: str) -> str:
    """An address as it is counted: of IPv6 the /64, which one sender has whole.

    >>> _network("2001:db8:0:1::5"), _network("192.0.2.1")
    ('2001:db8:0:1::/64', '192.0.2.1')
    """
    try:
        parsed_address = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False)) if parsed_address.version == 6 else address
