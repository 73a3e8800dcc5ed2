"""Answers that the API gave a tag (ETag): asked again, it says that one still holds (304) instead of sending it.

Each is kept under the identity that asked. The API's tag is of one person, too: nobody else's matches it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

MAX_BYTES: Final = 32 << 20
_OVERHEAD_BYTES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked, and by whom: `identity_key` is a hash."""

    url: str
    accept: str
    identity_key: str


@dataclass(frozen=True, slots=True)
class TaggedAnswer:
    """An answer, and the tag that the API gave it."""

    tag: str
    headers: list[tuple[str, str]]
    content: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.content) + _OVERHEAD_BYTES


class TaggedAnswers:
    """Answers of all tabs, not larger than `max_bytes` together; those that were not asked for longest go first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._size, self._lock = max_bytes, 0, Lock()
        self._by_place: OrderedDict[Place, TaggedAnswer] = OrderedDict()

    def get(self, place: Place) -> TaggedAnswer | None:
        """The answer that was given there last."""
        with self._lock:
            if (answer := self._by_place.get(place)) is not None:
                self._by_place.move_to_end(place)
            return answer

    def put(self, place: Place, answer: TaggedAnswer) -> None:
        """Keeps an answer in place of the one before."""
        with self._lock:
            if (former := self._by_place.pop(place, None)) is not None:
                self._size -= former.size
            self._by_place[place] = answer
            self._size += answer.size
            while self._size > self._max_bytes:
                self._size -= self._by_place.popitem(last=False)[1].size
