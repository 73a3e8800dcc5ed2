"""Cells: each call's row in a small table of rates.

What a call's rates depend on (model, tier, region, size of the prompt, time) takes few distinct values among millions of calls. Each
combination is a cell, its rates are looked up once, and a call's rate is then one gather by a small integer.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from attribution import factorize
from attribution.classification import names
from attribution.pricing.book import PriceBook
from attribution.pricing.rates import REGIONAL, Sale, Tariffs, is_off_peak, service_tier

_NAMES = ("provider", "region", "request_model", "response_model", "service_tier")
_GOOGLE_PLACE = re.compile(r"([a-z]+(-[a-z]+)+\d+|us|eu)$")


class Cell(NamedTuple):
    """One combination: the tariffs of the model, how it was used, and the tariffs of the provider's tools."""

    sold_by: Tariffs
    sale: Sale
    tools: Tariffs


@dataclass(frozen=True)
class Cells:
    """The table of cells, and each call's row in it."""

    table: list[Cell]
    cell_of: pl.Series

    @property
    def context_above(self) -> pl.Series | pl.Expr:
        """Of each call, Int64: the largest context size of the model that the prompt exceeds; 0: none."""
        sizes = pl.Series([cell.sale.prompt_above for cell in self.table], dtype=pl.Int64)
        return sizes.gather(self.cell_of) if (sizes > 0).any() else pl.lit(0, dtype=pl.Int64)

    @property
    def tier_at_standard(self) -> pl.Series | pl.Expr:
        """Of each call: whether the book prices its model and not its service tier, so that standard prices stand in. (ES-2)"""
        flags = [bool(cell.sold_by.tariffs) and not cell.sold_by.prices_tier(cell.sale.service_tier) for cell in self.table]
        return pl.Series(flags, dtype=pl.Boolean).gather(self.cell_of) if any(flags) else pl.lit(value=False)

    @property
    def price_key(self) -> pl.Series:
        """Of each call: the book's name of the model; null: unpriced."""
        names_ = [cell.sold_by.tariffs[0].model if cell.sold_by.tariffs else None for cell in self.table]
        return pl.Series(names_, dtype=pl.String).cast(pl.Categorical()).gather(self.cell_of)


def regions(provider: str | None, region: str | None) -> tuple[str, ...]:
    """Regions whose rates apply to a call, the most specific first; `regional` is any Google location but global.

    >>> regions("vertex_ai", "us-east5"), regions("vertex_ai", "global"), regions("anthropic", "us"), regions("openai", None)
    (('us-east5', 'regional', ''), ('global', ''), ('us', ''), ('',))
    """
    if not region:
        return ("",)
    if names.provider(provider) == "Google Cloud" and _GOOGLE_PLACE.match(region):
        return (region, REGIONAL, "")
    return (region, "")


def seller_name(logged_provider: str | None, *models: str | None) -> str | None:
    """The provider as logged; where that names none, the one that the form of a model's name states. (RA-1b)

    >>> seller_name("bedrock", "gpt-4o"), seller_name("langchain", None, "us.anthropic.claude-sonnet-4-6"), seller_name(None, "gpt-4o")
    ('bedrock', 'AWS', None)
    """
    if names.called_provider(logged_provider) is not None:
        return logged_provider
    return next((form for model in models if (form := names.provider_by_form(model)) is not None), logged_provider)


def cells(calls: pl.DataFrame, book: PriceBook) -> Cells:
    """The cells of metered calls."""
    combination, first = combinations(calls)
    words = calls[first].select(pl.col(name).cast(pl.String) for name in _NAMES).rows()
    kinds: dict[tuple[Tariffs, str, tuple[str, ...], Tariffs], int] = {}
    kind_of = np.zeros(len(words), dtype=np.int32)
    for i, (logged_provider, region, request_model, response_model, tier) in enumerate(words):
        provider = seller_name(logged_provider, response_model, request_model)
        sold_by = book.tariffs(provider, region, response_model, request_model)
        kind = (sold_by, service_tier(tier), regions(provider, region), book.tool_tariffs(provider))
        kind_of[i] = kinds.setdefault(kind, len(kinds))
    return _Grid(calls, combination, list(kinds), kind_of).cells()


_SEEDS = tuple(int.from_bytes(os.urandom(8)) for _ in range(2))
_MIX = np.uint64(0x9E3779B97F4A7C15)
_BITS = 20


def combinations(calls: pl.DataFrame) -> tuple[factorize.Index, factorize.Index]:
    """For each call the number of its combination of names, and the first call of each combination.

    Names are compared by 128 bits of hash with seeds of this process, three times as fast as by text; where two combinations fall into one slot
    of the table, by text.

    >>> calls = pl.DataFrame({n: ["x", "y", "x"] for n in _NAMES})
    >>> [found.tolist() for found in combinations(calls)]
    [[0, 1, 0], [0, 1]]
    """
    key_names = [
        name for name, nulls in zip(_NAMES, calls.select(_NAMES).null_count().row(0), strict=True) if nulls < calls.height
    ]
    if "request_model" not in key_names or any(calls.schema[name] != pl.String for name in key_names):
        return factorize.combine(calls.height, factorize.encode_columns(calls, key_names))
    if calls["response_model"].eq_missing(calls["request_model"]).all():
        key_names.remove("response_model")  # in most logs both are equal
    hashes = calls.select(pl.col(name).hash(seed).alias(f"{name} {seed}") for seed in _SEEDS for name in key_names)
    keys = [_mixed([hashes[f"{name} {seed}"].to_numpy() for name in key_names]) for seed in _SEEDS]
    place = (keys[0] >> np.uint64(64 - _BITS)).astype(np.int32)
    rows = np.arange(calls.height, dtype=np.int32)
    holder = np.full(1 << _BITS, factorize.NONE, dtype=np.int32)
    holder[place[::-1]] = rows[::-1]
    first_rows = holder[place]
    if not all((key == key[first_rows]).all() for key in keys):
        return factorize.combine(calls.height, factorize.encode_columns(calls, key_names))
    first = np.sort(holder[holder != factorize.NONE])
    number = np.empty(1 << _BITS, dtype=np.int32)
    number[place[first]] = np.arange(len(first), dtype=np.int32)
    return number[place], first


def _mixed(hashes: list[np.ndarray]) -> np.ndarray:
    key = hashes[0]
    for more in hashes[1:]:
        key = key * _MIX
        key ^= more
    return key


class _Grid:
    """Lays out cells: for each kind of sale its context sizes, peak and off-peak hours, and each epoch between price changes."""

    def __init__(
        self,
        calls: pl.DataFrame,
        combination: factorize.Index,
        kinds: list[tuple[Tariffs, str, tuple[str, ...], Tariffs]],
        kind_of: np.ndarray,
    ) -> None:
        self.calls = calls
        self.kinds = kinds
        self.kind = kind_of[combination]
        self.sizes = [sold_by.thresholds for sold_by, *_ in kinds]
        self.start = calls["start_time"].to_physical().to_numpy() if calls.height else np.zeros(0, dtype=np.int64)

    def cells(self) -> Cells:
        """The table and each call's row in it."""
        epochs, epoch = self._epochs()
        peaks, peak = self._peaks()
        level = self._levels()
        depth = np.cumsum([0, *(len(sizes) + 1 for sizes in self.sizes)], dtype=np.int32)
        of = depth[self.kind] if level is not None else self.kind
        if level is not None:
            of = of + level
        if peaks > 1:
            of = of * 2 + peak
        if len(epochs) > 1:
            of = of * len(epochs) + epoch
        table = [
            Cell(sold_by, Sale(tier, places, above, since, off), tools)
            for (sold_by, tier, places, tools), sizes in zip(self.kinds, self.sizes, strict=True)
            for above in (0, *sizes)
            for off in ((False, True) if peaks > 1 else (False,))
            for since in epochs
        ]
        return Cells(table, pl.Series(of.astype(np.uint32)))

    def _levels(self) -> np.ndarray | None:
        """How many context sizes of its model each prompt exceeds; None where no model has any."""
        most = max((len(sizes) for sizes in self.sizes), default=0)
        if not most:
            return None
        prompts = self.calls["prompt_tokens"]
        prompt = (prompts.fill_null(0) if prompts.null_count() else prompts).to_numpy()
        # Few prompts are larger than the smallest size of any model; only they are looked at one by one.
        large = np.flatnonzero(prompt > min(sizes[0] for sizes in self.sizes if sizes))
        level = np.zeros(len(prompt), dtype=np.int32)
        never = np.iinfo(np.int64).max
        kind, prompt = self.kind[large], prompt[large]
        for i in range(most):
            size = np.array([sizes[i] if i < len(sizes) else never for sizes in self.sizes], dtype=np.int64)
            level[large] += prompt > size[kind]
        return level

    def _epochs(self) -> tuple[list[datetime], np.ndarray | None]:
        """Instants at which prices may change among those the calls fall into, and each call's epoch number."""
        if not len(self.start):
            return [_moment(0)], None
        cuts = {boundary for sold_by, *_, tools in self.kinds for boundary in sold_by.boundaries | tools.boundaries}
        micros = np.array(sorted(_micros(cut) for cut in cuts), dtype=np.int64)
        low, high = int(self.start.min()), int(self.start.max())
        later_cuts = micros[(micros > low) & (micros <= high)]
        # One instant represents its whole epoch: rates looked up for one partition of calls are reused for the next.
        earlier = micros[micros <= low]
        epochs = [_moment(earlier[-1] if len(earlier) else low), *(_moment(m) for m in later_cuts)]
        return epochs, np.searchsorted(later_cuts, self.start, side="right") if len(later_cuts) else None

    def _peaks(self) -> tuple[int, np.ndarray | None]:
        """1 where no model has off-peak rates, else 2 and whether each call fell into its model's off-peak hours."""
        schedules = [sold_by.schedule for sold_by, *_ in self.kinds]
        if not any(schedules):
            return 1, None
        open_ = np.zeros(len(self.start), dtype=np.int64)
        kind = self.kind
        minute = self.start // 60_000_000
        for schedule in dict.fromkeys(s for s in schedules if s):
            has_schedule = np.isin(kind, [i for i, s in enumerate(schedules) if s == schedule])
            distinct, back = np.unique(minute[has_schedule], return_inverse=True)
            off_peak_flags = np.array([is_off_peak(schedule, _moment(int(m) * 60_000_000)) for m in distinct], dtype=np.int64)
            open_[has_schedule] = off_peak_flags[back]
        return 2, open_


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(micros: int | np.integer) -> datetime:
    seconds, microseconds = divmod(int(micros), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
