"""Google's bill by columns: the same charges and the same problems as row by row, whatever stands in a line."""

from __future__ import annotations

import copy
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.logs import json_columns
from ingest.logs.json_columns import ParsedLines
from ingest.source import RawObject
from ingest.sources.gcp.columns import SCHEMA
from ingest.sources.gcp.extract import Extract
from ledger import money
from ledger.tables import COST_COLUMNS
from tests.support.paths import DATA

ROWS = [json.loads(line) for line in (DATA / "gcp" / "export.jsonl").read_text().splitlines()]
PATHS = [
    ("cost",), ("cost_at_list",), ("cost_at_effective_price_default",), ("usage", "amount"), ("usage", "amount_in_pricing_units"),
    ("price", "list_price"), ("price", "pricing_unit_quantity"), ("credits",), ("labels",), ("tags",), ("project",), ("project", "labels"),
    ("project", "id"), ("sku",), ("sku", "id"), ("sku", "description"), ("service", "description"), ("cost_type",), ("currency",), ("invoice",),
    ("invoice", "month"), ("usage_start_time",), ("usage_end_time",), ("seller_name",), ("transaction_type",), ("subscription", "instance_id"),
    ("resource", "name"), ("resource", "global_name"), ("location", "region"), ("adjustment_info",), ("consumption_model",), ("billing_account_id",),
]  # fmt: skip
NUMBERS = [
    "0", "-0.0", "1e-7", "2.2500000000000001e-06", "0.030000000000000002", "1234567890123.1234567890125", "1E+3", "-1e-19", "1e-45", "99e18",
    "100000000000000000000", "1e21", "1e400", "0.0000000000005", "0.0000000000015", "NaN", "-Infinity", "12345678901234567890123456789012345678901.5",
]  # fmt: skip
VALUES = [
    "null", "true", '""', '" a  b "', '"None"', '"1.5"', '" 1.5"', '"dear"', "[]", "{}", "[null]", '["a"]', "[{}]", '{"id": 5}', '{"id": null}',
    '[{"key": "team", "value": "b"}, {"key": "team", "value": "a"}]', '[{"key": "env", "value": ""}, null]', '[{"key": "k", "value": 4}]',
    '[{"key": "k", "value": "\\u00e9\\ud83d\\ude00"}]', '"\\ud800"', '"a\\u0000b"', '"202611"', '"2026-13"', '"tax"', '"Surprise"', '"THIRD_PARTY_X"',
    '"2026-10-05 09:00:00.25 UTC"', '"2026-10-05T11:00:00+02:00"', '"eur"', '"Commitment v1: N2"',
    '[{"type": "COMMITTED_USAGE_DISCOUNT_X", "id": " c1 ", "amount": -0.1}, {"type": "COMMITTED_USAGE_DISCOUNT", "id": "c2", "amount": "-1e-15"}]',
    '[{"type": "COMMITTED_USAGE_DISCOUNT", "id": null, "amount": null}]', '[{"amount": 1e19}, {"amount": 99e18}]', '[{"amount": "x"}]',
]  # fmt: skip
LINES = [
    b"", b"  ", b"null", b"5", b"[1]", b'"a"', b"{", b"{}", b"{}{}", b'{"cost":1} null {"cost":2}', b'{"cost": 1, "cost": 2}', b'{"a":\rnull}',
    b'{"cost": 0.1', b'\xff{"a":1}', b'{"sku":{"id":"\xff"}}', b"\xef\xbb\xbf{}", b"{} ",
]  # fmt: skip


def line_of(base: int, changes: list[tuple[tuple[str, ...], str]]) -> bytes:
    row: Any = copy.deepcopy(ROWS[base])
    raw_values = dict[str, str]()
    for number, (path, value) in enumerate(changes):
        inner = row
        for step in path[:-1]:
            if not isinstance(inner.get(step), dict):
                inner[step] = {}
            inner = inner[step]
        inner[path[-1]] = f"@{number}@"
        raw_values[f'"@{number}@"'] = value
    line = json.dumps(row)
    for mark, value in raw_values.items():
        line = line.replace(mark, value)
    return line.encode()


changed = st.builds(
    line_of,
    st.integers(0, len(ROWS) - 1),
    st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([*NUMBERS, *VALUES])), max_size=3),
)


def result(content: bytes, monkeypatch: pytest.MonkeyPatch, parse: Any) -> tuple[Any, ...]:
    monkeypatch.setattr(json_columns, "parse", parse)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        Path(file.name).write_bytes(content)
        readings = list(Extract("gcp", RawObject("gcp.jsonl", Path(file.name), "raw", len(content))).readings())
    frames = [
        pl.concat([r.frame, r.dimensions[r.frame["__word"]]], how="horizontal") for r in readings if r.dimensions is not None
    ]
    if frames:
        frame = pl.concat(frames).sort("line").drop("__word")
        losses = [
            [money.rounding_loss(frame[f"{n}__written"][i : i + 1], frame[n][i : i + 1]) for n in COST_COLUMNS]
            for i in range(frame.height)
        ]
        charges: Any = (frame.drop(f"{name}__written" for name in COST_COLUMNS).rows(named=True), losses)
    else:
        charges = ()
    return charges, sorted(map(str, (p for r in readings for p in r.problems))), readings[-1].broken_off


def row_by_row(lines: Any, schema: Any) -> ParsedLines:
    return ParsedLines(schema.empty_table(), np.zeros(0, np.int64), np.arange(len(lines)))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(changed | st.sampled_from(LINES), max_size=8))
@example([line_of(n % len(ROWS), [(PATHS[n % len(PATHS)], value)]) for n, value in enumerate([*NUMBERS, *VALUES] * 4)])
@example([line_of(0, []), *LINES])
def test_columns_give_the_charges_and_problems_of_single_rows(lines: list[bytes]) -> None:
    content = b"\n".join([line_of(0, []), *lines])
    with pytest.MonkeyPatch.context() as patch:
        parse = json_columns.parse
        by_columns = result(content, patch, partial(parse, few=1))
        single = result(content, patch, row_by_row)
    assert by_columns == single


def test_sound_lines_are_parsed_by_columns_and_odd_ones_do_not_slow_them() -> None:
    lines: list[bytes | None] = [line_of(n % len(ROWS), []) for n in range(4000)]
    lines[1234] = line_of(0, [(("cost",), '"dear"')])
    parse_result = json_columns.parse(lines, SCHEMA)

    assert 1234 in parse_result.remainder and len(parse_result.remainder) <= 32
    assert parse_result.table.num_rows == len(parse_result.fitting) == 4000 - len(parse_result.remainder)


def test_the_line_of_a_charge_is_its_line_in_the_file_beside_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(
        b"\n".join([line_of(0, []), line_of(0, [(("cost",), "null")]), b"", line_of(3, []), line_of(4, [(("sku",), "5")])])
    )
    readings = list(Extract("gcp", RawObject(str(path), path, "raw", 1)).readings())

    assert sorted(line for r in readings if r.dimensions is not None for line in r.frame["line"]) == [1, 4]
    assert [(p.place, p.field) for r in readings for p in r.problems] == [("line 2", "cost"), ("line 5", "sku")]
