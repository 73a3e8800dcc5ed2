"""Records of Azure Monitor in every form they are delivered in, as one: fields by lower-case name.

* objects in blob storage and events of Event Hubs: ``{"category": …, "properties": {…}}``, one a line or as ``{"records": […]}``;
* rows of a Log Analytics table of the resource's own (``ApiManagementGatewayLlmLog``): fields in capitals;
* rows of the shared table ``AzureDiagnostics``: names end in their type (``promptTokens_d``), properties may be JSON text;
* the answer of a query: ``{"tables": [{"columns": […], "rows": […]}]}``, or a list of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.logs.json_fields import parse_json
from ingest.logs.json_items import Damage, Item, ItemStream

Fields = Mapping[str, Any]
_TYPE = re.compile(r"_[sdbgt]\Z")


def items(entries: ItemStream) -> ItemStream:
    """The records of a file's items, each with its place."""
    for entry in entries:
        if isinstance(entry, Damage):
            yield entry
            continue
        values = list(records(entry.value))
        for number, record in enumerate(values, 1):
            yield Item(entry.place if len(values) == 1 else f"{entry.place}, record {number}", record)


def records(value: object) -> Iterator[object]:
    """The records of one item of a file."""
    if isinstance(value, list):
        yield from value
    elif isinstance(value, Mapping) and isinstance(value.get("records"), list):
        yield from value["records"]
    elif isinstance(value, Mapping) and isinstance(value.get("tables"), list):
        for table in value["tables"]:
            yield from _table_rows(table)
    else:
        yield value


def _table_rows(table: object) -> Iterator[object]:
    columns, rows = (table.get("columns"), table.get("rows")) if isinstance(table, Mapping) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list):
        yield table
        return
    names = [str(column.get("name")) if isinstance(column, Mapping) else str(column) for column in columns]
    for row in rows:
        yield dict(zip(names, row, strict=False)) if isinstance(row, list) else row


def fields_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record and of its properties; of two with one name the property's.

    >>> fields_of({"category": "GatewayLlmLogs", "properties": '{"promptTokens": 14}'})
    {'category': 'GatewayLlmLogs', 'prompttokens': 14}
    >>> fields_of({"Category": "GatewayLlmLogs", "promptTokens_d": 14, "_ResourceId": "/subscriptions/1"})
    {'category': 'GatewayLlmLogs', 'prompttokens': 14, 'resourceid': '/subscriptions/1'}
    """
    fields, properties = dict[str, Any](), dict[str, Any]()
    for raw_name, value in record.items():
        name = _TYPE.sub("", str(raw_name)).lower().lstrip("_")
        if name == "properties":
            properties = {str(k).lower(): v for k, v in parsed(value).items()}
        elif value is not None or name not in fields:
            fields[name] = value
    return fields | properties


def parsed(value: object) -> Mapping[str, Any]:
    """An object, or the JSON text of one; empty for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_json(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}
