"""Price updates: a price list is validated, compared with the rates in force, staged where implausible, and entered.

    read        a price list                  `ingest.prices.books`
    compare     with the rates in force       `compare`: new, changed, removed and implausible rates
    enter       plausible changes             rows of `prices`, each dated; past rates are never changed or deleted (ES-2)
    stage       implausible changes           rows of `prices_staged`, reported as problems, until accepted or rejected

Invalid rates (negative, without unit, in an unknown currency) are refused. Valid but implausible rates (ten times yesterday's rate)
need to be accepted. A price change is a dated row, so that an earlier month keeps its price.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from ingest.prices.currencies import CURRENCIES
from ledger import periods
from ledger.audit import record
from ledger.money import text
from ledger.problems import Problem, renew, to_frame
from ledger.published import runs_in_force
from ledger.store import Store
from ledger.tables import METERS, PRICES, PRICES_STAGED, PROBLEMS, TIME

if TYPE_CHECKING:
    from ledger.books import Books

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""First instant of the first list prices: older usage is priced at the earliest known prices."""
MAX_FACTOR = 10
"""A rate that changes by more than this factor, up or down, is staged."""
_MAX_TOKEN_RATE = Decimal("0.01")
_MAX_MISSING_PERCENT = 10
"""Percentage of a list's models that may disappear before the whole list is staged."""
_RATE_KEY = [name for name in PRICES.key if name != "valid_from"]
"""Key of a rate without its date."""
_SOURCE, _STAGED = "prices", "prices-staged"
_COMPARED = ("rate", "currency", "valid_from", "valid_to", "hours", "recorded_at", "book")


@dataclass(frozen=True)
class PriceList:
    """A parsed price list: rates as rows of `prices`, and refused rows. `valid_from` is null where the list states no date."""

    book: str
    origin: str
    uri: str
    frame: pl.DataFrame
    problems: tuple[Problem, ...] = ()

    @property
    def family(self) -> str:
        """The list's name without its version: later editions are compared by it."""
        return _family(self.book)


@dataclass(frozen=True, kw_only=True)
class Update:
    """The changes of a price list against the price book. `changes` are rows of `prices` with `change`, `doubt` (empty: none) and the old rate."""

    price_list: PriceList
    changes: pl.DataFrame
    rates_read: int
    missing_models: pl.DataFrame
    problems: tuple[Problem, ...]
    valid_from: datetime

    @property
    def doubtful(self) -> pl.DataFrame:
        """Changes that look wrong."""
        return self.changes.filter(pl.col("doubt") != "")

    @property
    def unchanged(self) -> int:
        """Number of rates that are in force already."""
        return self.rates_read - self.changes.height


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """The result of an import. `added` counts new rows, `changed` those among them that replace a rate in force."""

    book: str
    read: int
    added: int
    changed: int
    staged: int
    unchanged: int
    valid_from: datetime
    problems: tuple[Problem, ...] = field(default=())


def compare(
    books: Books, price_list: PriceList, *, valid_from: datetime | None = None, max_factor: int = MAX_FACTOR, whole: bool = True
) -> Update:
    """Compares a price list with the book; writes nothing.

    Rates without a date are valid from `valid_from` on. The default is now; the very first list is valid from 1970, so that all older usage
    is priced. A list with dated rates may contain its history: then its undated rates are the start of it. `whole` means that the
    list is complete, so that a missing model has been removed.
    """
    now = periods.now()
    stored_prices = books.store.scan(PRICES, {"origin": [price_list.origin]}).collect()
    since = valid_from or (BEGINNING if price_list.origin == "list" and not stored_prices.height else now)
    if since.tzinfo is None:
        raise ValueError("valid_from needs a timezone")
    valid_rates, refusals = _validate(price_list.frame, price_list.uri)
    valid_rates, contradictions = _reject_contradictions(_with_dates(valid_rates, since), price_list.uri)
    changes = _changes(valid_rates.with_columns(recorded_at=pl.lit(now).cast(TIME)), stored_prices)
    missing_models = (
        _missing_models(price_list, stored_prices, since) if whole and price_list.origin == "list" else _no_missing_models()
    )
    doubts = _doubts(changes, price_list, missing_models, stored_prices, _published(books, now), max_factor)
    changes = changes.with_columns(doubt=pl.Series("doubt", doubts, dtype=pl.String))
    return Update(
        price_list=price_list,
        changes=changes,
        rates_read=valid_rates.height,
        missing_models=missing_models,
        problems=(*price_list.problems, *refusals, *contradictions),
        valid_from=since,
    )


def apply_update(books: Books, update: Update, *, accept: bool = False, actor: str = "cli") -> ImportResult:
    """Enters the plausible changes into the book and stages the implausible ones; with `accept` it enters all.

    Rates that an earlier edition staged for the same keys are superseded. Entering the same list again changes nothing.
    """
    accepted_rows = update.changes if accept else update.changes.filter(pl.col("doubt") == "")
    held_back = update.changes.filter((pl.col("doubt") != "") & pl.lit(not accept))
    books.store.append(PRICES, accepted_rows.select(list(PRICES.schema)), note=f"prices: {update.price_list.book}")
    origin = update.price_list.origin
    staged_before = staged(books).filter(pl.col("origin") == origin)
    other_staged = staged_before.join(update.price_list.frame.select(_RATE_KEY).unique(), on=_RATE_KEY, how="anti")
    newly_staged = held_back.with_columns(uri=pl.lit(update.price_list.uri)).select(list(PRICES_STAGED.schema))
    _stage(books.store, origin, staged_before, pl.concat([other_staged, PRICES_STAGED.conform(newly_staged)]))
    renew(books.store, _SOURCE, {update.price_list.uri, *(p.uri for p in update.problems)}, update.problems)
    if accepted_rows.height or held_back.height:
        summary = {"book": update.price_list.book, "added": accepted_rows.height, "staged": held_back.height}
        _audit(books, actor, "prices.import", update.price_list.uri, summary)
    return ImportResult(
        book=update.price_list.book,
        read=update.rates_read,
        added=accepted_rows.height,
        changed=accepted_rows.filter(pl.col("change") != "new").height,
        staged=held_back.height,
        unchanged=update.unchanged,
        valid_from=update.valid_from,
        problems=update.problems,
    )


def staged(books: Books) -> pl.DataFrame:
    """Staged rates, in a fixed order."""
    return books.store.scan(PRICES_STAGED).collect().sort(*_RATE_KEY, "valid_from")


def decide(books: Books, chosen: pl.DataFrame, *, accept: bool, actor: str = "cli") -> int:
    """Enters staged rates into the book, or discards them; returns their number. `chosen` are rows of `staged`."""
    rate_count = 0
    for (origin,), rows in chosen.group_by("origin", maintain_order=True):
        before = staged(books).filter(pl.col("origin") == origin)
        if accept:
            price_list = PriceList(str(rows["book"][0]), str(origin), str(rows["uri"][0]), rows.select(list(PRICES.schema)))
            changes = compare(books, price_list, whole=False).changes
            rate_count += books.store.append(PRICES, changes.select(list(PRICES.schema)), note="prices accepted")
        else:
            rate_count += rows.height
        _stage(books.store, str(origin), before, before.join(rows.select(PRICES.key), on=list(PRICES.key), how="anti"))
        action = "prices.accept" if accept else "prices.reject"
        _audit(books, actor, action, str(rows["uri"][0]), {"rates": rows.height, "models": sorted(rows["model"].unique())[:20]})
    return rate_count


def _stage(store: Store, origin: str, before: pl.DataFrame, after: pl.DataFrame) -> None:
    """Replaces the staged rates of one origin by `after`, and reports them as problems."""
    order = [*_RATE_KEY, "valid_from"]
    if before.drop("recorded_at").sort(order).equals(after.drop("recorded_at").sort(order)):
        return
    store.replace(PRICES_STAGED, after, {"origin": origin}, note="prices staged")
    problems = to_frame(_staged_problems(store.scan(PRICES_STAGED).collect().sort(order)))
    store.replace(PROBLEMS, problems, {"source": _STAGED})


def _staged_problems(rows: pl.DataFrame) -> Iterator[Problem]:
    for (uri, doubt), group in rows.group_by("uri", "doubt", maintain_order=True):
        first = group.row(0, named=True)
        place = first["model"] if group.height == 1 else f"{first['model']} and {group.height - 1:,} more"
        remedy = "`rootcost prices diff --staged` shows it; then `rootcost prices accept`, or `rootcost prices reject`"
        yield Problem(
            _STAGED, str(uri), place, describe(first) if group.height == 1 else "rate", str(doubt), remedy, group.height
        )


def _audit(books: Books, actor: str, action: str, subject: str, after: Mapping[str, Any]) -> None:
    with books.database.session() as session:
        record(session, actor, action, subject, after=dict(after))


# ── dates of a list's rates ────────────────────────────────────────────────────────────────────────────────────────────


def _with_dates(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Every rate with its date. An undated rate that ended by `since`, or was followed by a dated one, is valid from the beginning."""
    has_begun = (pl.col("valid_from") <= since).any().over(_RATE_KEY) | (pl.col("valid_to") <= since).fill_null(value=False)
    start = pl.when(has_begun).then(pl.lit(BEGINNING)).otherwise(pl.lit(since)).cast(TIME)
    return rows.with_columns(valid_from=pl.coalesce(pl.col("valid_from").cast(TIME), start))


def _validate(frame: pl.DataFrame, uri: str) -> tuple[pl.DataFrame, list[Problem]]:
    """The valid rates, and the reasons why others are refused."""
    rows = frame.with_columns(
        (pl.col(c).cast(t) if c in frame.columns else pl.lit(None, dtype=t)).alias(c) for c, t in PRICES.schema.items()
    ).unique(maintain_order=True)
    is_known = pl.col("meter").is_in(list(METERS)) & pl.col("currency").is_in(sorted(CURRENCIES))
    is_valid = (is_known & (pl.col("rate") >= 0)).fill_null(value=False)
    problems = [_refusal(row, uri) for row in rows.filter(~is_valid).iter_rows(named=True)]
    return rows.filter(is_valid).select(list(PRICES.schema)), problems


def _refusal(row: Mapping[str, Any], uri: str) -> Problem:
    if row["meter"] not in METERS:
        reason, remedy = f"{row['meter']!r} is no meter", "meters are listed in docs/tables.md"
    elif row["currency"] not in CURRENCIES:
        reason, remedy = f"{row['currency']!r} is no currency", "write its ISO 4217 code, such as USD"
    elif row["rate"] is None:
        reason, remedy = "has no rate", "state a number from 0 up"
    else:
        reason, remedy = f"{text(row['rate'])} is negative", "state a number from 0 up"
    return Problem(_SOURCE, uri, str(row["model"]), describe(row), reason, remedy)


def _reject_contradictions(rows: pl.DataFrame, uri: str) -> tuple[pl.DataFrame, list[Problem]]:
    """One rate per key and first instant; where there are two, both are refused."""
    key = list(PRICES.key)
    contradictions = (
        rows.group_by(key)
        .agg(rates=pl.struct("rate", "currency").n_unique(), low=pl.col("rate").min(), high=pl.col("rate").max())
        .filter(pl.col("rates") > 1)
        .sort(key)
    )
    problems = [
        Problem(
            _SOURCE,
            uri,
            row["model"],
            describe(row),
            f"has two rates, {text(row['low'])} and {text(row['high'])}; neither was imported",
            "state one, or give each a valid_from of its own",
        )
        for row in contradictions.iter_rows(named=True)
    ]
    unique_rates = (
        rows.join(contradictions.select(key), on=key, how="anti", maintain_order="left").unique(key, keep="first").sort(key)
    )
    # An end at the start of the next rate is redundant.
    is_followed = pl.col("valid_to") == pl.col("valid_from").shift(-1).over(_RATE_KEY)
    return unique_rates.with_columns(valid_to=pl.when(~is_followed.fill_null(value=False)).then("valid_to")), problems


def describe(row: Mapping[str, Any]) -> str:
    """The key of a rate, in words.

    >>> describe(dict(meter="input_tokens", service_tier="batch", context_above=200000, region="eu"))
    'input_tokens batch above 200000 eu'
    """
    above = f"above {row['context_above']}" if row["context_above"] else ""
    tier = "" if row["service_tier"] == "standard" else row["service_tier"]
    return " ".join(part for part in (row["meter"], tier, above, row["region"]) if part)


# ── comparison with the book ────────────────────────────────────────────────────────────────────────────────────────────


def _changes(new_rates: pl.DataFrame, stored_prices: pl.DataFrame) -> pl.DataFrame:
    """The rates that differ from the book, with the rate in force just before each.

    Adds `change` (new, changed, corrected: another rate for the same instant), `old_rate`, `old_currency`, `old_from` and `old_book`.
    """
    order = [*_RATE_KEY, "valid_from", "__new", "recorded_at"]
    all_rates = pl.concat(
        [stored_prices.with_columns(__new=pl.lit(value=False)), new_rates.with_columns(__new=pl.lit(value=True))]
    ).sort(order)
    first = pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in _RATE_KEY).fill_null(value=True)
    all_rates = all_rates.with_columns(
        *(pl.when(~first).then(pl.col(c).shift(1)).alias(f"__old_{c}") for c in _COMPARED),
        __known=~first & ~pl.col("__new").shift(1).fill_null(value=True),
        __first=first,
    )
    has_ended = (pl.col("__old_valid_to") <= pl.col("valid_from")).fill_null(value=False)
    is_same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"__old_{c}")) for c in ("rate", "currency", "valid_to", "hours"))
    is_same_time = pl.col("__known") & (pl.col("__old_valid_from") == pl.col("valid_from"))
    change = (
        pl.when("__first")
        .then(pl.lit("new"))
        .when(is_same_time)
        .then(pl.lit("corrected"))
        .otherwise(pl.lit("changed"))
        .alias("change")
    )
    return (
        all_rates.filter(pl.col("__new") & (pl.col("__first") | has_ended | ~is_same))
        .with_columns(
            change,
            old_rate="__old_rate",
            old_currency="__old_currency",
            old_from="__old_valid_from",
            old_book="__old_book",
        )
        .select(*PRICES.schema, "change", "old_rate", "old_currency", "old_from", "old_book")
    )


def _family(book: str) -> str:
    return book.split(" ", 1)[0]


def _no_missing_models() -> pl.DataFrame:
    return pl.DataFrame(schema={"provider": pl.String, "model": pl.String, "rates": pl.UInt32})


def _missing_models(price_list: PriceList, stored_prices: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Models that are in an earlier edition of the list and not in this one: provider, model, rates."""
    edition = (pl.col("book").str.split(" ").list.first() == price_list.family) & (pl.col("valid_from") <= since)
    models = stored_prices.filter(edition).group_by("provider", "model").agg(rates=pl.len()).sort("provider", "model")
    return models.join(price_list.frame.select("provider", "model").unique(), on=["provider", "model"], how="anti")


def _published(books: Books, now: datetime) -> list[str]:
    """Months before this one whose figures are published."""
    return [month for month in runs_in_force(books.database) if month < periods.month_of(now)]


def _doubts(
    changes: pl.DataFrame,
    price_list: PriceList,
    missing_models: pl.DataFrame,
    stored_prices: pl.DataFrame,
    published_months: Sequence[str],
    max_factor: int,
) -> list[str]:
    """For each change the reason why it is implausible; empty where it is plausible."""
    lacking = _incomplete_list(price_list, missing_models, stored_prices)
    reached_months: dict[datetime, str] = {}
    out = []
    for row in changes.iter_rows(named=True):
        start = row["valid_from"]
        if start not in reached_months:
            months = [month for month in published_months if periods.month_end(month) > start]
            months_text = months[0] if len(months) == 1 else f"{months[0]} and {len(months) - 1} more" if months else ""
            reached_months[start] = (
                f"reaches back into {months_text}: published; its estimates change if this is accepted" if months_text else ""
            )
        out.append("; ".join(filter(None, (lacking, *_doubts_of(row, reached_months[start], max_factor)))))
    return out


def _doubts_of(row: Mapping[str, Any], months_text: str, max_factor: int) -> Iterator[str]:
    rate, old = row["rate"], row["old_rate"]
    is_observed = row["origin"] == "observed"  # a restated bill is not an error
    if old is None:
        if rate > _MAX_TOKEN_RATE and row["meter"].endswith("_tokens"):
            yield f"{text(rate)} for one token: is it the price of a thousand, or of a million?"
    elif row["currency"] != row["old_currency"]:
        yield f"was in {row['old_currency']}, is in {row['currency']}"
    elif not rate and old:
        yield f"would be free, was {text(old)}"
    elif rate and not old:
        yield f"was free, would be {text(rate)}"
    elif rate > old * max_factor or old > rate * max_factor:
        yield f"moves from {text(old)} to {text(rate)}, more than {max_factor} times"
    if is_observed:
        return
    if row["change"] == "corrected":
        yield f"{text(rate)} would replace {text(old)}, recorded for the same moment"
    if months_text and (row["change"] != "new" or row["origin"] == "contract"):
        yield months_text


def _incomplete_list(price_list: PriceList, missing_models: pl.DataFrame, stored_prices: pl.DataFrame) -> str:
    models = (
        stored_prices.filter(pl.col("book").str.split(" ").list.first() == price_list.family)
        .select("provider", "model")
        .n_unique()
    )
    if not models or missing_models.height * 100 <= models * _MAX_MISSING_PERCENT:
        return ""
    return f"the list lacks {missing_models.height:,} of the {models:,} models it had: is it complete?"
