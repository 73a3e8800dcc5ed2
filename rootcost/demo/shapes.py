"""Draws from the shapes of real LLM traffic: tokens per request, hours, weekdays, prefix reuse, who asks how often.

The numbers are in `shapes.csv`; `shapes.SOURCE.txt` names their origins and licences.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_STEPS = 4096


@cache
def _series(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    text = (files("rootcost.demo") / "shapes.csv").read_text(encoding="utf-8")
    rows = [(float(r["at"]), float(r["value"])) for r in csv.DictReader(text.splitlines()) if r["series"] == name]
    at, value = zip(*sorted(rows), strict=True)
    return np.array(at), np.array(value)


@cache
def inverse(name: str) -> list[float]:
    """A series of quantiles as a table: entry `int(u * 4096)` is the value at quantile `u`.

    >>> table = inverse("chat_output_tokens")
    >>> len(table), 120 < table[2048] < 140
    (4096, True)
    """
    at, value = _series(name)
    return [float(v) for v in np.interp((np.arange(_STEPS) + 0.5) / _STEPS, at, value)]


@cache
def shares(name: str) -> NDArray[np.float64]:
    """A series of shares, made to sum to 1."""
    _, value = _series(name)
    return np.asarray(value / value.sum())


class Dice:
    """Deterministic randomness in cheap portions: uniforms, table draws and id bytes."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._uniforms: Iterator[float] = iter(())
        self._bytes, self._at = b"", 0

    @property
    def generator(self) -> np.random.Generator:
        """The generator itself, for whole arrays."""
        return self._rng

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        for value in self._uniforms:
            return value
        self._uniforms = iter(self._rng.random(16384).tolist())
        return next(self._uniforms)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def draw(self, table: list[float]) -> float:
        """A value of a table made by `inverse`."""
        return table[int(self.uniform() * _STEPS)]

    def octets(self, count: int) -> bytes:
        """Id bytes, the first never zero."""
        if self._at + count > len(self._bytes):
            self._bytes, self._at = self._rng.bytes(1 << 16), 0
        octets = self._bytes[self._at : self._at + count]
        self._at += count
        return octets if octets[0] else b"\x01" + octets[1:]

    def uuid(self) -> str:
        """A random UUID, version 4."""
        h = self.octets(16).hex()
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
