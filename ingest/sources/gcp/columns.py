"""Rows of Google's billing export by columns: what `rows.charge` makes of one row, for many at once.

Amounts are added up and rounded as decimals of 40 places, column by column. A dimension follows from few fields: the same functions
as for a single row are called once for each combination of their values. What is odd in a row, and all words about it, is left to
`rows.charge`: `to_charges` names the rows that it did not take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.bills import charges, dictionary
from ingest.bills.dictionary import BillBatch
from ingest.bills.reader import parse_times
from ingest.logs.json_columns import NUMBER, TEXT, Positions, record
from ingest.logs.json_fields import text
from ingest.sources.gcp import rows as gcp_rows
from ledger.hashing import GOLDEN_GAMMA, Hashes, splitmix64
from ledger.money import SCALE
from ledger.tables import COST_COLUMNS

_LABELS: Final = pa.list_(record(key=TEXT, value=TEXT))
SCHEMA: Final = pa.schema(
    {
        "billing_account_id": TEXT,
        "service": record(id=TEXT, description=TEXT),
        "sku": record(id=TEXT, description=TEXT),
        "usage_start_time": TEXT,
        "usage_end_time": TEXT,
        "project": record(id=TEXT, name=TEXT, labels=_LABELS),
        "labels": _LABELS,
        "system_labels": _LABELS,
        "tags": _LABELS,
        "location": record(location=TEXT, region=TEXT),
        "resource": record(name=TEXT, global_name=TEXT),
        "transaction_type": TEXT,
        "seller_name": TEXT,
        "cost": NUMBER,
        "currency": TEXT,
        "usage": record(amount=NUMBER, unit=TEXT, amount_in_pricing_units=NUMBER, pricing_unit=TEXT),
        "credits": pa.list_(record(amount=NUMBER, type=TEXT, id=TEXT)),
        "invoice": record(month=TEXT),
        "cost_type": TEXT,
        "adjustment_info": record(description=TEXT),
        "price": record(effective_price=NUMBER, list_price=NUMBER, pricing_unit_quantity=NUMBER),
        "cost_at_list": NUMBER,
        "cost_at_effective_price_default": NUMBER,
        "subscription": record(instance_id=TEXT),
    }
)
"""What `rows.charge` reads of a row."""
_AMOUNTS: Final = ("cost", "cost_at_list", "cost_at_effective_price_default", "usage.amount", "usage.amount_in_pricing_units")
_RATES: Final = ("price.effective_price", "price.list_price", "price.pricing_unit_quantity")
_LIMIT: Final = pa.scalar(Decimal(10) ** 20, NUMBER)
_MONEY: Final = pa.decimal128(38, SCALE)


class _Words(NamedTuple):
    """A column of few values: of row i ``words[codes[i]]``. A value may have several codes."""

    codes: Positions
    words: list[Any]

    def map(self, function: Callable[[Any], Any]) -> _Words:
        return _Words(self.codes, [function(word) for word in self.words])

    def to_arrow(self) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(self.codes, pa.int32()), pa.array(self.words, pa.string()))

    def is_absent(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.asarray(np.array([word is None for word in self.words], np.bool_)[self.codes])


class Converted(NamedTuple):
    """Rows with money and times, as `charges.parse_types` gives them; the positions of their lines, and of rows not taken."""

    batch: BillBatch
    positions: Positions
    remainder: Positions
    unknown_types: Mapping[str, int]
    """Rows of each ``cost_type`` that is unknown."""


def to_charges(table: pa.Table, positions: Positions, numbers: Positions) -> Converted:
    """The rows of a table of `SCHEMA` as charges. `positions` say where in a block each row is from; `numbers` are the block's lines."""
    fields = _Fields(table)
    is_odd = fields.odd_rows()
    remainder = positions[is_odd]
    if len(remainder):
        fields, positions = _Fields(table.filter(pa.array(~is_odd)).combine_chunks()), positions[~is_odd]
    kind = fields.words("cost_type", gcp_rows.cost_type)
    lines = pa.array(numbers[positions])
    rows = pl.DataFrame(pa.table({"__row": lines, "__line": lines, **_amounts(fields, kind), **_times(fields)}))
    batch = dictionary.encode({name: words.to_arrow() for name, words in _dimensions(fields, kind).items()}, rows)
    types = [gcp_rows.unknown_type(word) for word in kind.words]
    unknown_types = Counter[str]()
    for code, count in enumerate(np.bincount(kind.codes, minlength=len(types)).tolist()):
        if types[code] and count:
            unknown_types[types[code]] += count
    dimensions = charges.parse_types(BillBatch(rows.select("__row"), batch.dimensions)).dimensions
    return Converted(BillBatch(batch.rows, dimensions), positions, remainder, unknown_types)


class _Fields:
    """The fields of a table by their dotted names, and what several columns need of them."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.rows = table.num_rows

    def column(self, name: str) -> pa.Array:
        """A field; null where a record around it is."""
        outer, _, inner = name.partition(".")
        chunks = self._table[outer]
        array = chunks.chunk(0) if chunks.num_chunks else pa.nulls(0, chunks.type)
        return pc.struct_field(array, [inner]) if inner else array

    def words(self, name: str, function: Callable[[Any], Any] = text) -> _Words:
        """A field's values after a function, which is called once for each of them."""
        return _words(self.column(name)).map(function)

    @cached_property
    def net(self) -> pa.Array:
        """Cost and credits of each row, summed with every digit. (MO-1a)"""
        cost, credit_lists = self.column("cost"), self.column("credits")
        entries = pa.table({"row": pc.list_parent_indices(credit_lists), "amount": self.credit("amount")})
        sums = entries.group_by("row", use_threads=False).aggregate([("amount", "sum")]).sort_by("row")
        if not sums.num_rows:
            return cost
        mask = np.zeros(self.rows, np.bool_)
        mask[sums["row"].to_numpy()] = True
        amounts = pc.fill_null(sums["amount_sum"].combine_chunks().cast(NUMBER), Decimal(0))
        credit_sums = pc.replace_with_mask(pa.repeat(pa.scalar(Decimal(0), NUMBER), self.rows), mask, amounts)
        return pc.add(cost, credit_sums)

    def credit(self, name: str) -> pa.Array:
        """A field of all credits, row after row."""
        return pc.struct_field(pc.list_flatten(self.column("credits")), [name])

    def odd_rows(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The rows that have no cost, currency or invoice month, an amount beyond all money, or a list entry that is no record."""
        odd = self.words("invoice.month", _invoice_month).is_absent() | self.words("currency").is_absent()
        odd |= _as_numpy(self.column("cost").is_null())
        credit_rows = pc.list_parent_indices(self.column("credits"))
        for numbers, parents in [(self.column(name), None) for name in (*_AMOUNTS, *_RATES)] + [
            (self.credit("amount"), credit_rows)
        ]:
            large = _as_numpy(pc.fill_null(pc.greater_equal(pc.abs(numbers), _LIMIT), False))
            odd[large if parents is None else parents.filter(pa.array(large)).to_numpy()] = True
        for name in ("credits", *(f"{outer}.{name}".lstrip(".") for _, outer, name in gcp_rows.LABELS)):
            lists = self.column(name)
            entries = pc.list_flatten(lists)
            if entries.null_count:
                odd[pc.list_parent_indices(lists).filter(entries.is_null()).to_numpy()] = True
        odd |= _as_numpy(pc.fill_null(pc.greater_equal(pc.abs(self.net), _LIMIT), False))
        return odd

    def commitment_credits(self) -> _Words:
        """The id of the first credit of each row that pays for a commitment, as a text of one item; None where there is no such credit."""
        kinds = _words(self.credit("type")).map(gcp_rows.is_commitment)
        at = np.flatnonzero(np.array(kinds.words, np.bool_)[kinds.codes])
        owners, firsts = np.unique(pc.list_parent_indices(self.column("credits")).to_numpy()[at], return_index=True)
        ids = _words(self.credit("id").take(pa.array(at[firsts]))).map(lambda word: (text(word),))
        codes = np.full(self.rows, len(ids.words), np.int64)
        codes[owners] = ids.codes
        return _Words(codes, [*ids.words, None])

    def tags(self) -> _Words:
        """All labels of each row as one JSON object."""
        labels = [(prefix, _Labels(self.column(f"{outer}.{name}".lstrip(".")))) for prefix, outer, name in gcp_rows.LABELS]
        hashes = np.zeros(self.rows, np.uint64)
        for _, lists in labels:
            hashes = splitmix64(hashes + GOLDEN_GAMMA) + lists.hashes()
        _, examples, codes = np.unique(hashes, return_index=True, return_inverse=True)
        words = [
            gcp_rows.tag_object(tuple((prefix, key, value) for prefix, lists in labels for key, value in lists.entries(row)))
            for row in examples.tolist()
        ]
        return _Words(codes.reshape(-1), words)


class _Labels:
    """A column of lists of keys and values."""

    def __init__(self, lists: pa.Array) -> None:
        entries = pc.list_flatten(lists)
        self._keys = _words(pc.struct_field(entries, ["key"])).map(text)
        self._values = _words(pc.struct_field(entries, ["value"])).map(text)
        self._owners = pc.list_parent_indices(lists).to_numpy()
        counts = np.bincount(self._owners, minlength=len(lists)).astype(np.int64)
        self._key_codes, self._value_codes = self._keys.codes.tolist(), self._values.codes.tolist()
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def hashes(self) -> Hashes:
        """A hash for each list, equal for equal entries in the same order."""
        # The codes are those of this column: hashes are compared within it only. 64 bits suffice, as in `dictionary.encode`.
        pairs = (self._keys.codes * len(self._values.words) + self._values.codes).astype(np.uint64)
        places = (np.arange(len(self._owners)) - self._starts[self._owners]).astype(np.uint64)
        entries = splitmix64(splitmix64(pairs + GOLDEN_GAMMA) + places)
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(entries, dtype=np.uint64)])
        return np.asarray(splitmix64(running[self._ends] - running[self._starts]))

    def entries(self, row: int) -> list[tuple[str | None, str | None]]:
        """Keys and values of one list."""
        at = slice(self._starts[row], self._ends[row])
        pairs = zip(self._key_codes[at], self._value_codes[at], strict=True)
        return [(self._keys.words[key], self._values.words[value]) for key, value in pairs]


def _dimensions(fields: _Fields, kind: _Words) -> dict[str, _Words]:
    words = fields.words
    constant = np.zeros(fields.rows, np.int64)
    sku_description, resource_name = words("sku.description"), words("resource.name")
    units = fields.words("price.pricing_unit_quantity", _same)
    credit = fields.commitment_credits()
    commitment = _combined(lambda own, of_credit: own or (of_credit or (None,))[0], words("subscription.instance_id"), credit)
    is_covered = _combined(lambda kind, of_credit: kind == "regular" and of_credit is not None, kind, credit)
    return {
        "billing_currency": words("currency", lambda word: (text(word) or "").upper()),
        "charge_category": _combined(gcp_rows.category, kind, sku_description),
        "charge_description": _combined(gcp_rows.first, words("adjustment_info.description"), sku_description),
        "provider_name": _Words(constant, [gcp_rows.PROVIDER]),
        "publisher_name": _combined(gcp_rows.publisher, words("seller_name"), words("transaction_type", _same)),
        "invoice_issuer_name": _Words(constant, [gcp_rows.PROVIDER]),
        "billing_account_id": words("billing_account_id"),
        "sub_account_id": words("project.id"),
        "sub_account_name": words("project.name"),
        "service_name": words("service.description"),
        "product_code": words("service.id"),
        "region_id": _combined(gcp_rows.first, words("location.region"), words("location.location")),
        "resource_id": _combined(gcp_rows.first, words("resource.global_name"), resource_name),
        "resource_name": resource_name,
        "sku_id": words("sku.id"),
        "sku_meter": sku_description.map(gcp_rows.meter),
        "line_item_type": kind,
        "pricing_unit": words("usage.pricing_unit"),
        "list_unit_price": _combined(gcp_rows.unit_price, words("price.list_price", _same), units),
        "contracted_unit_price": _combined(gcp_rows.unit_price, words("price.effective_price", _same), units),
        "consumed_unit": words("usage.unit"),
        "commitment_discount_id": commitment,
        "commitment_discount_status": _combined(
            lambda own, has_credit: "Used" if own and has_credit else None, commitment, is_covered
        ),
        "tags": fields.tags(),
    }


def _amounts(fields: _Fields, kind: _Words) -> dict[str, pa.Array]:
    """Costs and quantities as MONEY, and the text of costs that have more digits than it holds."""
    is_regular = pa.array(np.array([word == "regular" for word in kind.words], np.bool_)[kind.codes])
    net, cost = fields.net, fields.column("cost")
    contracted_cost = pc.coalesce(fields.column("cost_at_effective_price_default"), cost)
    net_amounts = _money(net)
    costs = {
        "billed_cost": net_amounts,
        "effective_cost": net_amounts,
        "list_cost": _money(pc.if_else(is_regular, fields.column("cost_at_list"), net)),
        "contracted_cost": _money(pc.if_else(is_regular, contracted_cost, net)),
    }
    columns = {name: amounts for name, (amounts, _) in costs.items()}
    columns["pricing_quantity"], _ = _money(fields.column("usage.amount_in_pricing_units"))
    columns["consumed_quantity"], _ = _money(fields.column("usage.amount"))
    columns |= {f"{name}__written": literals for name, (_, literals) in costs.items()}
    return columns | dict.fromkeys((f"{name}__text" for name in COST_COLUMNS), pa.nulls(fields.rows, pa.string()))


def _money(amounts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """MONEY, rounded half to even at twelve places, and the texts that have more."""
    rounded_amounts = pc.round(amounts, SCALE, "half_to_even")
    longer = pc.fill_null(pc.not_equal(rounded_amounts, amounts), False)
    literals = pa.nulls(len(amounts), pa.string())
    if pc.any(longer).as_py():
        digits = amounts.filter(longer).cast(pa.string())
        literals = pc.replace_with_mask(literals, longer, pc.replace_substring_regex(digits, r"\.?0+(E[+-]?\d+)?$", r"\1"))
    return rounded_amounts.cast(_MONEY), literals


def _times(fields: _Fields) -> dict[str, pa.Array]:
    """Times as instants, and their text."""
    columns = dict[str, pa.Array]()
    for name, field, function in (
        ("charge_period_start", "usage_start_time", gcp_rows.moment),
        ("charge_period_end", "usage_end_time", gcp_rows.moment),
        ("billing_period_start", "invoice.month", _invoice_month),
    ):
        words = fields.words(field, function)
        codes, texts = pa.array(words.codes), pl.Series(words.words, dtype=pl.String)
        columns[name] = parse_times(texts).to_arrow().take(codes)
        columns[f"{name}__text"] = texts.to_arrow().take(codes)
    return columns


def _invoice_month(value: object) -> str | None:
    month = gcp_rows.invoice_month(text(value))
    return f"{month}-01T00:00:00Z" if month else None


def _same(value: Any) -> Any:
    return value


def _words(array: pa.Array) -> _Words:
    dictionary_array = array.dictionary_encode()
    return _Words(dictionary.codes(dictionary_array).astype(np.int64), [*dictionary_array.dictionary.to_pylist(), None])


def _combined(function: Callable[[Any, Any], Any], one: _Words, other: _Words) -> _Words:
    """A function of two columns, called once for each combination that occurs."""
    dictionary_array = pa.array(one.codes * len(other.words) + other.codes).dictionary_encode()
    pairs = (divmod(pair, len(other.words)) for pair in dictionary_array.dictionary.to_pylist())
    return _Words(dictionary.codes(dictionary_array).astype(np.int64), [function(one.words[a], other.words[b]) for a, b in pairs])


def _as_numpy(mask: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(mask.to_numpy(zero_copy_only=False), np.bool_)
