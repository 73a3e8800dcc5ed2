"""List prices: LiteLLM's price map read as data, and the effective-dated price book it goes into.

The map has no dates. The first import therefore holds from 1970 on: the earliest prices known serve all older usage. Each later
import adds rows for the rates that changed or are new, valid from the day of the import or a given one; nothing is ever
changed or taken away, so what was priced stays priced (ES-2). A rate that disappears from the list stays in force.

How LiteLLM means its rates, for whoever applies them: a rate above N prompt tokens prices *all* tokens of a request that has more
than N; a rate that a tier, a context size or a meter lacks is looked up one key at a time, in the standard tier, in the lower
context size, then in the plain input or output rate; a batch rate that is lacking is half the standard one. `litellm` itself is
never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from ingest.normalise.price_keys import Meaning, is_price, meaning, why_not
from ledger.errors import FormatError, ObjectMissingError
from ledger.money import RATE
from ledger.problems import Problem
from ledger.tables import METERS, PRICES, TIME

if TYPE_CHECKING:
    from ledger.books import Books

MAP_FILE = "model_prices_and_context_window_backup.json"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""From when the first prices hold."""
_NOT_MODELS = frozenset({"sample_spec", "fallback_generalizations"})
_WHAT = [name for name in PRICES.key if name != "valid_from"]
_SOURCE = "prices"


@dataclass(frozen=True)
class PriceList:
    """A price list as read: rates as rows of `prices`, what was refused, and what of the list was not imported."""

    book: str
    frame: pl.DataFrame
    problems: tuple[Problem, ...] = ()
    coverage: pl.DataFrame = field(default_factory=pl.DataFrame)


@dataclass(frozen=True)
class ImportPrices:
    """What an import did. `added` counts new rows, of which `changed` price something that had another rate before."""

    book: str
    read: int
    added: int
    changed: int
    valid_from: datetime
    problems: tuple[Problem, ...] = ()

    @property
    def unchanged(self) -> int:
        """Rates that were already in force."""
        return self.read - self.added


class _Rate(NamedTuple):
    provider: str
    model: str
    key: str
    means: Meaning
    rate: Decimal


def litellm_map_path() -> Path:
    """Where the installed litellm keeps its price map; found without importing it. Raises `ObjectMissingError`."""
    found = importlib.util.find_spec("litellm")
    folders = list(found.submodule_search_locations or ()) if found else []
    path = Path(folders[0]) / MAP_FILE if folders else Path(MAP_FILE)
    if not path.is_file():
        raise ObjectMissingError(
            "litellm's price map is not installed", where=str(path), remedy="install litellm, or name a price map"
        )
    return path


def import_litellm_map(path: Path | None = None) -> pl.DataFrame:
    """The rates of LiteLLM's price map as rows of `prices`; `import_prices` dates them. See `read_litellm_map`."""
    return read_litellm_map(path).frame


def read_litellm_map(path: Path | None = None) -> PriceList:
    """LiteLLM's price map, the installed one by default: rates in US dollars per unit, exact as written, to 18 places.

    A price that is negative or no number is a problem and is left out. Where a model states two rates for one meter, the first
    that is not 0 is taken; a second that differs is told as a warning.
    Raises `ObjectMissingError` if there is no such file, `FormatError` if it is no price map.
    """
    where = path or litellm_map_path()
    try:
        content = where.read_bytes()
    except FileNotFoundError as fault:
        raise ObjectMissingError("no such file", where=str(where), remedy="name a price map in litellm's JSON form") from fault
    except OSError as fault:
        raise FormatError(
            f"cannot be read: {fault.strerror}", where=str(where), remedy="name a price map in litellm's JSON form"
        ) from fault
    try:
        entries = json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as fault:
        raise FormatError(f"no valid JSON: {str(fault)[:120]}", where=str(where), remedy="fetch the price map again") from fault
    if not isinstance(entries, dict) or not any(isinstance(entry, dict) for entry in entries.values()):
        raise FormatError("no price map", where=str(where), remedy="it is a JSON object of models")
    book = f"litellm {_edition(path)}sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    reader = _Reader(str(where.name))
    rates = [rate for model, entry in entries.items() if model not in _NOT_MODELS for rate in reader.entry(model, entry)]
    return PriceList(book, _frame(rates, book), tuple(reader.problems), reader.coverage())


def coverage(path: Path | None = None) -> pl.DataFrame:
    """Every price key of the map: on how many models it stands, how many rates it gave, and why it gave none.

    Columns: key, models, rates, reason (empty for imported keys).
    """
    return read_litellm_map(path).coverage


def _edition(path: Path | None) -> str:
    if path is not None and path != litellm_map_path():
        return ""
    try:
        return f"{version('litellm')} "
    except PackageNotFoundError:
        return ""


class _Reader:
    """Reads entries one by one; remembers what was wrong and what was passed over."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.problems: list[Problem] = []
        self._models: dict[str, int] = defaultdict(int)
        self._rates: dict[str, int] = defaultdict(int)

    def entry(self, model: str, entry: object) -> Iterator[_Rate]:
        """The rates of one model."""
        if not isinstance(entry, Mapping):
            self._problem(model, "entry", "is no object", "each model is a JSON object")
            return
        provider = entry.get("litellm_provider")
        if not isinstance(provider, str) or not provider:
            self._problem(model, "litellm_provider", "is missing", "name the provider")
            return
        stated: dict[Meaning, _Rate] = {}
        for key, means, value in self._stated(entry):
            rate = self._rate(model, key, value)
            if rate is None:
                continue
            earlier = stated.get(means)
            if earlier is not None and earlier.rate and rate and earlier.rate != rate:
                told = f"states {rate:f}, but {earlier.key} states {earlier.rate:f} for the same meter; the first was taken"
                self._problem(model, key, told, "the list should state one rate", "warning")
                continue
            if earlier is None or (rate and not earlier.rate):
                stated[means] = _Rate(provider, model, key, means, rate)
        for found in stated.values():
            self._rates[found.key] += 1
            yield found

    def _stated(self, entry: Mapping[str, Any]) -> Iterator[tuple[str, Meaning, object]]:
        for key, value in entry.items():
            if not is_price(key):
                continue
            self._models[key] += 1
            if key == "tiered_pricing":
                yield from self._ranges(value)
            elif value is not None and (means := meaning(key)) is not None:
                yield key, means, value

    def _ranges(self, tiers: object) -> Iterator[tuple[str, Meaning, object]]:
        """Rates by prompt size: each range's lower end is the size above which it holds."""
        seen: set[str] = set()
        for tier in tiers if isinstance(tiers, list) else ():
            bounds = tier.get("range") if isinstance(tier, Mapping) else None
            lower = bounds[0] if isinstance(bounds, list) and bounds else None
            for key, value in tier.items() if isinstance(tier, Mapping) else ():
                if key == "range":
                    continue
                seen.add(f"tiered_pricing.{key}")
                means = meaning(key)
                if means is not None and isinstance(lower, (int, Decimal)) and value is not None:
                    yield f"tiered_pricing.{key}", means._replace(context_above=int(lower)), value
        for key in seen:
            self._models[key] += 1

    def _rate(self, model: str, key: str, value: object) -> Decimal | None:
        number = Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None
        if number is None or not number.is_finite() or number >= 10**20:
            self._problem(model, key, f"{str(value)[:40]!r} is no price", "state a number of US dollars")
            return None
        if number < 0:
            self._problem(model, key, f"{number:f} is negative: a price that would mint money", "state a number from 0 up")
            return None
        return number

    def _problem(self, model: str, key: str, reason: str, remedy: str, severity: str = "error") -> None:
        self.problems.append(Problem(_SOURCE, self.uri, model, key, reason, remedy, severity=severity))

    def coverage(self) -> pl.DataFrame:
        """See `coverage`."""
        keys = sorted(self._models)
        return pl.DataFrame(
            {
                "key": keys,
                "models": [self._models[key] for key in keys],
                "rates": [self._rates[key] for key in keys],
                "reason": [self._why(key) for key in keys],
            },
            schema={"key": pl.String, "models": pl.Int64, "rates": pl.Int64, "reason": pl.String},
        )

    def _why(self, key: str) -> str:
        if self._rates[key]:
            return ""
        if key == "tiered_pricing":
            return "read range by range: see tiered_pricing.*"
        if meaning(key.removeprefix("tiered_pricing.")) is not None and "query" not in key:
            return "another key states the same rate"
        return why_not(key)


def _frame(rates: list[_Rate], book: str) -> pl.DataFrame:
    now = datetime.now(UTC)
    return PRICES.conform(
        pl.DataFrame(
            {
                "origin": ["list"] * len(rates),
                "book": [book] * len(rates),
                "provider": [r.provider for r in rates],
                "model": [r.model for r in rates],
                "meter": [r.means.meter for r in rates],
                "service_tier": [r.means.service_tier for r in rates],
                "context_above": [r.means.context_above for r in rates],
                "region": [""] * len(rates),
                "currency": ["USD"] * len(rates),
                "rate": pl.Series([r.rate for r in rates], dtype=RATE),
                "valid_from": pl.Series([BEGINNING] * len(rates), dtype=TIME),
                "recorded_at": pl.Series([now] * len(rates), dtype=TIME),
            },
            schema_overrides={"context_above": pl.Int64},
        )
    )


def import_prices(books: Books, prices: PriceList | pl.DataFrame, valid_from: datetime | None = None) -> ImportPrices:
    """Brings a price list into the price book; importing it again changes nothing.

    Where the book has no prices of this origin yet, all rates are taken, valid from 1970 unless `valid_from` says otherwise.
    Later, only rates that differ from the ones in force are added, valid from `valid_from` (default: now). Rows with a negative
    or missing rate, an unknown meter, or two rates for one thing are refused and told as problems.
    """
    frame = prices.frame if isinstance(prices, PriceList) else prices
    problems = list(prices.problems) if isinstance(prices, PriceList) else []
    now = datetime.now(UTC)
    sound, refused = _checked(frame)
    problems += refused
    book = prices.book if isinstance(prices, PriceList) else str(sound["book"][0]) if sound.height else ""
    origins = sound["origin"].unique().to_list()
    held = books.store.scan(PRICES).filter(pl.col("origin").is_in(origins)).collect()
    since = valid_from or (now if held.height else BEGINNING)
    if since.tzinfo is None:
        raise ValueError("valid_from needs a timezone")
    dated = sound.with_columns(valid_from=pl.lit(since).cast(TIME), recorded_at=pl.lit(now).cast(TIME))
    in_force = (
        held.filter(pl.col("valid_from") <= since)
        .sort("valid_from", "recorded_at")
        .unique(_WHAT, keep="last", maintain_order=True)
        .select(*_WHAT, held_rate="rate", held_currency="currency", held_since="valid_from")
    )
    compared = dated.join(in_force, on=_WHAT, how="left", maintain_order="left")
    same = ((pl.col("rate") == pl.col("held_rate")) & (pl.col("currency") == pl.col("held_currency"))).fill_null(value=False)
    differing = compared.filter(~same)
    rewriting = differing.filter((pl.col("held_since") == pl.col("valid_from")).fill_null(value=False))
    for row in rewriting.iter_rows(named=True):
        reason = f"{row['rate'].normalize():f} would replace {row['held_rate'].normalize():f}, recorded for the same moment"
        problems.append(_told(row, reason, "price history is not rewritten: import with a later valid_from"))
    new = differing.join(rewriting.select(_WHAT), on=_WHAT, how="anti", maintain_order="left")
    changed = new["held_rate"].len() - new["held_rate"].null_count()
    books.store.append(PRICES, new.select(list(PRICES.schema)), note=f"prices: {book}")
    return ImportPrices(book, sound.height, new.height, changed, since, tuple(problems))


def _checked(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Problem]]:
    """Rows a price book may hold, one for each thing priced, and why the others may not be in it."""
    rows = frame.unique(maintain_order=True)
    problems = []
    wrong = pl.col("rate").is_null() | (pl.col("rate") < 0) | ~pl.col("meter").is_in(list(METERS))
    for row in rows.filter(wrong).iter_rows(named=True):
        if row["meter"] not in METERS:
            reason, remedy = f"{row['meter']!r} is no meter", f"meters are {', '.join(METERS)}"
        elif row["rate"] is None:
            reason, remedy = "has no rate", "state a number from 0 up"
        else:
            reason, remedy = f"{row['rate'].normalize():f} is negative: a price that would mint money", "state a number from 0 up"
        problems.append(_told(row, reason, remedy))
    sound = rows.filter(~wrong)
    twice = (
        sound.group_by(_WHAT)
        .agg(rates=pl.col("rate").n_unique(), low=pl.col("rate").min(), high=pl.col("rate").max())
        .filter(pl.col("rates") > 1)
    )
    problems += [
        _told(row, f"has two rates, {row['low'].normalize():f} and {row['high'].normalize():f}; neither was taken", "state one")
        for row in twice.sort(_WHAT).iter_rows(named=True)
    ]
    sound = sound.join(twice.select(_WHAT), on=_WHAT, how="anti", maintain_order="left").unique(
        _WHAT, keep="first", maintain_order=True
    )
    return sound, problems


def _told(row: Mapping[str, Any], reason: str, remedy: str) -> Problem:
    above = f" above {row['context_above']}" if row["context_above"] else ""
    return Problem(
        _SOURCE,
        str(row.get("book") or row["origin"]),
        row["model"],
        f"{row['meter']} {row['service_tier']}{above}",
        reason,
        remedy,
    )
