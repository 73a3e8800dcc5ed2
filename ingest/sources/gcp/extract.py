"""The charges of one extract of Google's billing export: sound lines by columns, all other rows one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import polars as pl

from ingest.bills import charges
from ingest.bills.dictionary import BillBatch
from ingest.bills.reader import read_ahead
from ingest.logs import json_columns, table_items
from ingest.logs.json_columns import ParsedLines
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage, Item, LineBlock
from ingest.problem_counter import ProblemCounter, described
from ingest.source import RawObject, Reading
from ingest.sources.gcp import columns
from ingest.sources.gcp import rows as gcp_rows
from ingest.sources.gcp.rows import NEEDED, Row
from ledger.errors import FormatError

_BATCH_ROWS: Final = 20_000
_NAMES: Final = {
    "billed_cost": "cost",
    "charge_period_start": "usage_start_time",
    "charge_period_end": "usage_end_time",
    "billing_period_start": "invoice.month",
    "list_cost": "cost_at_list",
    "contracted_cost": "cost",
}


class Extract:
    """One file, read once."""

    def __init__(self, source: str, item: RawObject) -> None:
        self._item = item
        self._counter = ProblemCounter(source, item.uri)
        self._rows, self._numbers = list[Row](), list[int]()
        self._is_export = False
        self._missing_list_costs = 0

    def readings(self) -> Iterator[Reading]:
        """The charges in FOCUS terms; rows that cannot be booked are problems. Raises `FormatError` where the file is no export."""
        for part in read_ahead(self._parts()):
            if isinstance(part, Item | Damage):
                self._add(part)
            else:
                yield from self._block(*part)
            if len(self._rows) >= _BATCH_ROWS:
                yield self._reading_of_rows()
        if self._missing_list_costs:
            remedy = "nothing to do: Google fills it for newer rows; the list cost of these is counted as unknown, not as 0"
            self._counter.add_summed("cost_at_list", "is empty", remedy, self._missing_list_costs)
        if self._rows:
            yield self._reading_of_rows()
        yield charges.last_reading(self._counter)

    def _parts(self) -> Iterator[Item | Damage | tuple[LineBlock, ParsedLines]]:
        for part in table_items.parts_of_object(self._item):
            yield (part, json_columns.parse(part.lines, columns.SCHEMA)) if isinstance(part, LineBlock) else part

    def _block(self, block: LineBlock, lines: ParsedLines) -> Iterator[Reading]:
        first_entry = None if self._is_export else next((entry for entry in block.items() if isinstance(entry, Item)), None)
        if first_entry is not None:
            self._check_format(first_entry.value)
        conversion = columns.to_charges(lines.table, lines.fitting, np.asarray(block.numbers, np.int64))
        last_entry = -1
        for position in sorted((*lines.remainder.tolist(), *conversion.remainder.tolist())):
            for entry in block.select([position]).items():
                self._add(entry)
                last_entry = position
        self._counter.place = "line"
        if len(conversion.positions) and conversion.positions[-1] > last_entry:
            self._counter.broken_off = ""
        for name, count in conversion.unknown_types.items():
            self._report_type(name, count)
        if conversion.batch.rows.height:
            self._missing_list_costs += conversion.batch.rows["list_cost"].null_count()
            yield self._reading(conversion.batch)

    def _add(self, entry: Item | Damage) -> None:
        counter = self._counter
        counter.broken_off = entry.reason if isinstance(entry, Damage) else ""
        if isinstance(entry, Damage):
            counter.add(entry.place, entry.field, entry.reason, entry.remedy)
            return
        counter.place, _, number = entry.place.partition(" ")
        self._check_format(entry.value)
        try:
            row, unknown_type = gcp_rows.charge(_record(entry.value))
        except FieldError as error:
            counter.add(entry.place, error.field, error.reason, error.remedy)
            return
        if unknown_type:
            self._report_type(unknown_type, 1)
        self._missing_list_costs += row["list_cost"] is None
        self._rows.append(row)
        self._numbers.append(int(number))

    def _check_format(self, first_row: object) -> None:
        if not self._is_export and not gcp_rows.is_export(first_row):
            raise _unknown_format(first_row, self._item.uri)
        self._is_export = True

    def _report_type(self, name: str, rows: int) -> None:
        reason, remedy = f"{name!r} is an unknown cost type; booked as an Adjustment", "tell us of it"
        self._counter.add_summed("cost_type", reason, remedy, rows)

    def _reading_of_rows(self) -> Reading:
        batch = charges.parse_types(gcp_rows.to_batch(self._rows, self._numbers))
        self._rows, self._numbers = [], []
        return self._reading(batch)

    def _reading(self, batch: BillBatch) -> Reading:
        sound = charges.check_required(batch, _NAMES, self._counter)
        # The export has no invoice number: a month is final once it is no longer restated, which `ingest.bills.month` knows by its age.
        charge_batch = charges.to_charges(BillBatch(sound.rows, sound.dimensions.with_columns(final=pl.lit(value=True))))
        return Reading(charge_batch.rows, self._counter.drain(), charge_batch.dimensions)


def _record(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise FieldError("row", f"{described(value)} is no record", "write one row of the table a line")
    return value


def _unknown_format(value: object, uri: str) -> FormatError:
    names = {str(key) for key in value} if isinstance(value, Mapping) else set[str]()
    if "BilledCost" in names:
        remedy = "this is Google's FOCUS export: rootcost ingest focus"
    elif {"logging_time", "full_response"} & names:
        remedy = "these are Vertex AI request-response logs: rootcost ingest vertex"
    else:
        remedy = f"a row of the export has {', '.join(sorted(NEEDED))}"
    return FormatError("no billing export of Google Cloud", where=uri, remedy=remedy)
