"""What every source of token logs must show: the same rows however often, in whatever order, and however much of a file there is."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from api.queries import of_operator
from api.queries.calls import with_ids
from attribution.run import attribute
from ingest.run import IngestReport, ingest
from ingest.source import RawObject, Reading, Source
from ledger.books import Books
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import CALLS, CHAINS, SPANS
from tests.support.books_by_hand import price, write

PLAIN = IngestSettings()
D = Decimal
Rates = Mapping[str, tuple[str, Mapping[str, str]]]
"""Model → its provider and the rate of each meter."""


def read(source: Source, path: Path, settings: IngestSettings = PLAIN) -> Reading:
    """All rows and problems of a file."""
    item = RawObject(uri=path.name, path=path, raw_id=f"sha-{path.name}", size=path.stat().st_size)
    readings = list(source.read(item, settings))
    return Reading(pl.concat([SPANS.empty(), *(r.frame for r in readings)]), [p for r in readings for p in r.problems])


def rows(source: Source, path: Path, settings: IngestSettings = PLAIN) -> list[dict[str, Any]]:
    """The rows of a file that has no fault."""
    reading = read(source, path, settings)
    assert reading.problems == [], reading.problems
    return reading.frame.to_dicts()


def written(
    source: Source, folder: Path, content: bytes | str, name: str = "log.jsonl", settings: IngestSettings = PLAIN
) -> Reading:
    """The rows of these bytes."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(source, path, settings)


def cuts(content: bytes, seed: int = 7, most: int = 120) -> list[int]:
    """Where to cut: everywhere in something small, else around every line's end and at random."""
    if len(content) <= most:
        return list(range(len(content)))
    ends = [at + near for at, byte in enumerate(content) if byte == 10 for near in (0, 1, 2)]
    chosen = random.Random(seed)
    found = {*chosen.sample(ends, min(len(ends), most // 2)), *chosen.sample(range(len(content)), most // 2)}
    return sorted(at for at in found if at < len(content))


def survives_cuts(source: Source, folder: Path, content: bytes, name: str, grows: Sequence[str] = ()) -> int:
    """Cut off anywhere, the rows are rows of the whole, and what is missing is named. `grows` are columns that a longer file may raise.

    Returns how many cuts gave rows.
    """
    keys = ["trace_key", "span_key"]
    compared = [c for c in SPANS.schema if c not in {*grows, "raw_id", "rank"}]
    whole = written(source, folder, content, name).frame
    gave, refused = 0, list[FormatError]()
    for at in cuts(content):
        try:
            reading = written(source, folder, content[:at], name)
        except FormatError as fault:
            refused.append(fault)
            continue
        part = reading.frame
        assert part.height <= whole.height
        assert part.join(whole, on=keys, how="anti").is_empty(), f"cut at {at}"
        if not grows:
            assert part.join(whole, on=compared, how="anti", nulls_equal=True).is_empty(), f"cut at {at}"
        if part.height < whole.height and at and content[at - 1] != 10 and content[at] != 10:
            assert reading.problems, f"cut at {at}: {whole.height - part.height} rows are missing, and nobody says so"
        assert all(p.reason and p.remedy for p in reading.problems)
        gave += part.height > 0
    assert all(fault.what and fault.where and fault.remedy for fault in refused)
    return gave


NONSENSE: tuple[object, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, "", "x" * 5000, "\ud800", "NaN", "2026-10-05T10:00:00Z", "0" * 16, "{}", "[1]"),
    *([], {}, [[]], {"a": {"b": 1}}, [None, 1, "x"], {"value": 7}),
)


def survives_nonsense(source: Source, folder: Path, documents: Sequence[object], tries: int = 60) -> None:
    """Whatever stands wherever: rows, problems or a refusal, and never anything else."""
    chosen, text = random.Random(11), [json.dumps(document) for document in documents]
    for _ in range(tries):
        spoilt = [json.loads(line) for line in text]
        for _ in range(chosen.randint(1, 3)):
            at = chosen.choice(list(_places(spoilt)))
            within: Any = spoilt
            for step in at[:-1]:
                within = within[step]
            within[at[-1]] = copy.deepcopy(chosen.choice(NONSENSE))
        try:
            reading = written(source, folder, "".join(json.dumps(document) + "\n" for document in spoilt), "nonsense.jsonl")
        except FormatError:
            continue
        assert all(p.reason and p.remedy for p in reading.problems)


def _places(value: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    for step, inner in inside:
        yield (*at, step)
        yield from _places(inner, (*at, step))


def booked(books: Books, name: str, paths: Iterable[Path], *, rates: Rates | None = None, owners: str = "") -> list[Problem]:
    """Ingests and attributes; every chain has one root, calls and chains sum to the same, and once more changes nothing."""
    named = [str(p) for p in paths]
    prices = [
        price(model, meter, rate, provider=provider)
        for model, (provider, meters) in (rates or {}).items()
        for meter, rate in meters.items()
    ]
    write(books, prices=prices, owners=owners)
    report = ingest(books, name, named)
    assert report.rows
    version = books.store.version(SPANS)
    again: IngestReport = ingest(books, name, list(reversed(named)))
    assert again.rows_changed == 0
    assert books.store.version(SPANS) == version
    attribute(books)
    calls, chains = books.store.scan(CALLS).collect(), books.store.scan(CHAINS).collect()
    assert chains["chain_id"].is_unique().all()
    assert set(calls["chain_id"]) <= set(chains["chain_id"])
    by_chain = calls.group_by("chain_id").agg(pl.col("list_cost").sum(), pl.len().alias("calls"))
    told = chains.filter(pl.col("calls") > 0).select("chain_id", "list_cost", "calls")
    both = told.join(by_chain, on="chain_id", suffix="_calls")
    assert both.height == by_chain.height
    assert (both["calls"] == both["calls_calls"]).all()
    assert (both["list_cost"].fill_null(0) == both["list_cost_calls"].fill_null(0)).all()
    return report.problems


def same_in_any_order(folder: Path, name: str, paths: Sequence[Path]) -> int:
    """Files in two orders, and one at a time, make the same rows, whichever file they are then known from. Returns how many."""
    found = []
    for home, order in (("one", list(paths)), ("two", list(reversed(paths)))):
        with Books.open(folder / home) as books:
            for path in order:
                ingest(books, name, [str(path)])
            found.append(books.store.scan(SPANS).collect().drop("raw_id").sort("trace_key", "span_key", "date", "channel"))
    assert found[0].equals(found[1])
    return found[0].height


def calls(books: Books) -> pl.DataFrame:
    """The calls of the published run, with their ids."""
    return with_ids(of_operator(books), books.store.scan(CALLS).collect()).sort("start_time", "span_id")


def chains(books: Books) -> pl.DataFrame:
    """Its chains."""
    return books.store.scan(CHAINS).collect().sort("start_time", "chain_id")


def no_content(reading: Reading, *secrets: str) -> None:
    """Nothing of what was said is in any row or problem."""
    told = reading.frame.write_csv() + repr(reading.problems)
    assert not [secret for secret in secrets if secret in told]
