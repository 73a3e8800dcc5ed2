"""Reader of LiteLLM's price map. `ingest.prices.updates` enters it into the price book.

The map has no dates. A rate that disappears from it stays in force.

Semantics of its rates: a rate above N prompt tokens prices *all* tokens of a request that has more than N; a rate that a tier, a
context size or a meter lacks falls back one key at a time, to the standard tier, to the lower context size, then to the plain input
or output rate; a missing batch rate is half the standard one. `litellm` itself is
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
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from ingest.prices.litellm_entry import Entry, Rate
from ingest.prices.litellm_keys import Meaning, meaning, table, why_not
from ledger.errors import FormatError, ObjectMissingError
from ledger.money import RATE
from ledger.problems import Problem
from ledger.tables import PRICES, TIME

if TYPE_CHECKING:
    from ingest.prices.updates import ImportResult
    from ledger.books import Books

MAP_FILE = "model_prices_and_context_window_backup.json"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""First instant of the earliest prices."""
_NOT_MODELS = frozenset({"sample_spec", "fallback_generalizations"})
_SOURCE = "prices"
_TOOLS, _IN_CODE = "container", "(tool prices of LiteLLM's code)"


@dataclass(frozen=True)
class PriceList:
    """A parsed price list: rates as rows of `prices`, refused rows, and keys that were not imported."""

    book: str
    frame: pl.DataFrame
    problems: tuple[Problem, ...] = ()
    coverage: pl.DataFrame = field(default_factory=pl.DataFrame)


class _Row(NamedTuple):
    provider: str
    model: str
    rate: Rate


def litellm_map_path() -> Path:
    """Path of the installed litellm's price map, determined without importing litellm. Raises `ObjectMissingError`."""
    spec = importlib.util.find_spec("litellm")
    folders = list(spec.submodule_search_locations or ()) if spec else []
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

    A price that is negative or not a number is a problem and is left out. Where a model states two rates for one meter, the first
    that is not 0 is used; a second that differs is reported as a warning.
    Raises `ObjectMissingError` if there is no such file, `FormatError` if it is no price map.
    """
    map_path = path or litellm_map_path()
    try:
        content = map_path.read_bytes()
    except FileNotFoundError as error:
        raise ObjectMissingError("no such file", where=str(map_path), remedy="name a price map in litellm's JSON form") from error
    except OSError as error:
        raise FormatError(
            f"cannot be read: {error.strerror}", where=str(map_path), remedy="name a price map in litellm's JSON form"
        ) from error
    return parse_litellm_map(content, uri=map_path.name, edition=_edition(path))


def parse_litellm_map(content: bytes, *, uri: str, edition: str = "") -> PriceList:
    """The same from bytes; `edition` is that of the installed library, if the map is its own."""
    try:
        entries = json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no valid JSON: {str(error)[:120]}", where=uri, remedy="fetch the price map again") from error
    if not isinstance(entries, dict) or not any(isinstance(entry, dict) for entry in entries.values()):
        raise FormatError("no price map", where=uri, remedy="it is a JSON object of models")
    book = f"litellm {edition}sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    reader = _Reader(uri)
    rows = [row for model, entry in entries.items() if model not in _NOT_MODELS for row in reader.entry(model, entry)]
    if edition:
        # Rates stated in litellm's code belong to the installed version, not to the map.
        rows += [reader.tools(tool["provider"], tool["meter"], tool["rate"]) for tool in table("tool_prices")]
    return PriceList(book, _frame(rows, book), tuple(reader.problems), reader.coverage())


def coverage(path: Path | None = None) -> pl.DataFrame:
    """Every price key of the map: its number of models, its number of rates, and the reason where it has none.

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
    """Reads entries one by one; collects the problems and the keys that were not imported."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.problems: list[Problem] = []
        self._models: dict[str, int] = defaultdict(int)
        self._rates: dict[str, int] = defaultdict(int)

    def entry(self, model: str, entry: object) -> Iterator[_Row]:
        """The rates of one model."""
        if not isinstance(entry, Mapping):
            self._problem(model, "entry", "is no object", "each model is a JSON object")
            return
        provider = entry.get("litellm_provider")
        if not isinstance(provider, str) or not provider:
            self._problem(model, "litellm_provider", "is missing", "name the provider")
            return
        entry_reader = Entry(model, entry, partial(self._rate, model), self._seen, partial(self._differing, model))
        for rate in entry_reader.rates():
            self._rates[rate.key] += 1
            yield _Row(provider, model, rate)

    def tools(self, provider: str, meter: str, rate: str) -> _Row:
        """A price stated in LiteLLM's code instead of its map: of a tool, for every model."""
        self._models[_IN_CODE] += 1
        self._rates[_IN_CODE] += 1
        return _Row(provider, f"{provider}/{_TOOLS}", Rate(_IN_CODE, Meaning(meter, "standard", 0), "", Decimal(rate)))

    def _seen(self, key: str) -> None:
        self._models[key] += 1

    def _differing(self, model: str, key: str, rate: Decimal, earlier_key: str, earlier: Decimal) -> None:
        reason = f"states {rate:f}, but {earlier_key} states {earlier:f} for the same meter; the first was used"
        self._problem(model, key, reason, "the list should state one rate", "warning")

    def _rate(self, model: str, key: str, value: object) -> Decimal | None:
        number = Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None
        if number is None or not number.is_finite() or number >= 10**20:
            self._problem(model, key, f"{str(value)[:40]!r} is no price", "state a number of US dollars")
            return None
        if number < 0:
            self._problem(model, key, f"{number:f} is negative", "state a number from 0 up")
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
        if meaning(key.removeprefix("tiered_pricing.")) is not None:
            return "another key states the same rate"
        return why_not(key)


def _frame(rows: list[_Row], book: str) -> pl.DataFrame:
    rates = [row.rate for row in rows]
    return PRICES.conform(
        pl.DataFrame(
            {
                "provider": [row.provider for row in rows],
                "model": [row.model for row in rows],
                "meter": [r.meaning.meter for r in rates],
                "service_tier": [r.meaning.service_tier for r in rates],
                "context_above": [r.meaning.context_above for r in rates],
                "region": [r.region for r in rates],
                "rate": pl.Series([r.rate for r in rates], dtype=RATE),
                "hours": [r.hours for r in rates],
            },
            schema_overrides={"context_above": pl.Int64, "hours": pl.String},
        ).with_columns(
            origin=pl.lit("list"),
            book=pl.lit(book),
            currency=pl.lit("USD"),
            valid_from=pl.lit(BEGINNING).cast(TIME),
            recorded_at=pl.lit(datetime.now(UTC)).cast(TIME),
        )
    )


def import_prices(books: Books, prices: PriceList | pl.DataFrame, valid_from: datetime | None = None) -> ImportResult:
    """Brings a price list into the price book; importing it again changes nothing. See `ingest.prices.updates`.

    Where the book has no prices of this origin yet, all rates are added, valid from 1970 unless `valid_from` is given.
    Later, only rates that differ from the ones in force are added, valid from `valid_from` (default: now); implausible ones are
    staged. Rows with a negative or missing rate, an unknown meter, or two rates for one key are refused and reported as problems.
    """
    from ingest.prices import updates

    frame = prices.frame if isinstance(prices, PriceList) else prices
    problems = prices.problems if isinstance(prices, PriceList) else ()
    book = prices.book if isinstance(prices, PriceList) else str(frame["book"][0]) if frame.height else "by hand"
    origin = str(frame["origin"][0]) if frame.height else "list"
    undated_frame = frame.with_columns(valid_from=pl.lit(None, dtype=TIME))
    price_list = updates.PriceList(book, origin, book, undated_frame, tuple(problems))
    return updates.apply_update(books, updates.compare(books, price_list, valid_from=valid_from))
