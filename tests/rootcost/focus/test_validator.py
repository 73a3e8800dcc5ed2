"""The check of FOCUS files: what is right raises no alarm, and each of 200 seeded faults is named by row, column and rule."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rootcost.cli import app
from rootcost.focus.columns import VERSIONS, Version, columns
from rootcost.focus.validator import validate
from tests.support.paths import ROOT

SPEC_EXAMPLES = ROOT / "tests/data/focus_spec"
Row = dict[str, Any]
VALUES: Row = {
    "BillingAccountId": "9999", "BillingAccountName": None, "BillingAccountType": "Organization", "BillingCurrency": "USD", "ChargeCategory": "Usage",
    "ChargeClass": None, "ChargeFrequency": "Usage-Based", "PricingCategory": "Standard", "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": "Generative AI", "BillingPeriodStart": "2026-10-01T00:00:00Z", "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargePeriodStart": "2026-10-05T06:00:00Z", "ChargePeriodEnd": "2026-10-05T07:00:00Z", "Tags": '{"team": "Care"}',
    "PricingQuantity": "10.0", "PricingUnit": "1000 Tokens", "ConsumedQuantity": "10000", "ConsumedUnit": "Tokens", "ResourceId": "r-1",
    "PricingCurrency": "USD", "PricingCurrencyEffectiveCost": "0.03", "AllocatedMethodId": "rootcost-metered-1",
    "AllocatedMethodDetails": '{"Elements": [{"AllocatedRatio": 1, "UsageQuantity": 10000, "UsageUnit": "Tokens", "x_Rule": "a"}]}',
    "AllocatedResourceId": "support-bot", "AllocatedTags": '{"rootcost/team": "Care"}',
}  # fmt: skip


def valid_row(version: Version, number: int = 0) -> Row:
    """A row with every column of a version."""
    row: Row = {}
    for name, column in columns(version).items():
        usual = "0.03" if column.format == "decimal" and not column.is_nullable else None
        row[name] = VALUES.get(name, usual or (None if column.is_nullable else "AWS"))
    return row | {"x_ChargeId": str(number)}


Fault = tuple[str, str, Callable[[Row], Any]]
FAULTS: list[Fault] = [
    *(("not-null", name, lambda _: None) for name in ("BilledCost", "BillingCurrency", "ServiceName", "ChargePeriodStart", "EffectiveCost")),
    *(("decimal", name, lambda _, text=text: text) for name in ("BilledCost", "ListCost", "ConsumedQuantity") for text in ("1,5", "+1", "1e+5", "$3", "1/3", "NaN")),
    *(("date-time", "ChargePeriodEnd", lambda _, text=text: text) for text in ("2026-10-05", "2026-10-05 07:00:00", "2026-02-30T00:00:00Z", "2026-10-05T07:00:00+01:00")),
    ("currency", "BillingCurrency", lambda _: "EURO"), ("currency", "BillingCurrency", lambda _: "usd"),
    *(("json", "Tags", lambda _, text=text: text) for text in ("a=b", "[1]", '{"a": {"b": 1}}', '{"a"')),
    ("allowed-value", "ChargeCategory", lambda _: "Fee"), ("allowed-value", "ServiceCategory", lambda _: "AI"),
    ("allowed-value", "ChargeClass", lambda _: "Refund"), ("allowed-value", "ChargeFrequency", lambda _: "Usage-based"),
    ("allowed-value", "ServiceSubcategory", lambda _: "Chat"), ("text", "ServiceName", lambda _: "  "),
    ("unit", "ConsumedUnit", lambda _: None), ("unit", "PricingUnit", lambda _: None),
    ("follows", "SubAccountName", lambda _: "prod"), ("follows", "CommitmentDiscountStatus", lambda _: "Used"),
    ("period", "ChargePeriodEnd", lambda row: row["ChargePeriodStart"]), ("period", "BillingPeriodEnd", lambda _: "2026-09-01T00:00:00Z"),
    ("split-details", "AllocatedMethodDetails", lambda _: None),
    *(("split-details", "AllocatedMethodDetails", lambda _, text=text: text) for text in (
        '{"Elements": []}', '{"Elements": [{"AllocatedRatio": 1.1}]}', '{"Elements": [{"AllocatedRatio": "1"}]}',
        '{"Elements": [{"AllocatedRatio": 1, "UsageQuantity": 3}]}', '{"Elements": [{"AllocatedRatio": 1, "other": 3}]}',
    )),
    ("split-ratio", "AllocatedMethodDetails", lambda _: '{"Elements": [{"AllocatedRatio": 0.999999999999}]}'),
    ("split-tags", "AllocatedTags", lambda _: '{"team": "Dev"}'),
    ("follows", "AllocatedResourceName", lambda row: "bot" if row.pop("AllocatedResourceId") else ""),
]  # fmt: skip


def written(path: Path, rows: list[Row]) -> Path:
    pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String)).write_csv(path)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_right_file_of_each_version_raises_no_alarm(tmp_path: Path, version: Version) -> None:
    report = validate(written(tmp_path / "right.csv", [valid_row(version, number) for number in range(3)]))
    assert (report.faults, report.version, report.rows) == ([], version, 3)


def test_every_seeded_fault_is_named_by_row_column_and_rule(tmp_path: Path) -> None:
    rng = random.Random(4)
    rows, seeded_faults = [], set()
    for number in range(200):
        rows += [valid_row("1.3", 2 * number)]
        row = valid_row("1.3", 2 * number + 1)
        rule, column, break_row = FAULTS[number] if number < len(FAULTS) else rng.choice(FAULTS)
        row[column] = break_row(row)
        rows.append(row)
        seeded_faults.add((len(rows), column, rule))
    report = validate(written(tmp_path / "broken.csv", rows), "1.3", max_rows=1000)
    named_faults = {(row, fault.column, fault.rule) for fault in report.faults for row in fault.rows}
    assert seeded_faults <= named_faults
    # A bound that is no time is out of order as well, and a unit that is missing leaves a quantity: nothing else is named.
    assert {row for row, _, _ in named_faults} == {row for row, _, _ in seeded_faults}


def test_parts_of_a_charge_sum_to_one_and_each_charge_on_its_own(tmp_path: Path) -> None:
    def part(number: int, share: str) -> Row:
        return valid_row("1.3", number) | {
            "AllocatedMethodDetails": f'{{"Elements": [{{"AllocatedRatio": {share}}}]}}',
            "BilledCost": share,
        }

    right = [part(1, "0.333333333333"), part(1, "0.333333333333"), part(1, "0.333333333334"), part(2, "1")]
    assert validate(written(tmp_path / "right.csv", right)).faults == []
    report = validate(written(tmp_path / "wrong.csv", [*right, part(3, "0.5"), part(4, "0.5")]))
    assert [(fault.rule, fault.rows, fault.values) for fault in report.faults] == [("split-ratio", [5, 6], ["0.5", "0.5"])]


def test_the_header_is_checked(tmp_path: Path) -> None:
    row = valid_row("1.4") | {"ProviderName": "AWS", "x_lower": "1", "Colour": "red", "billedcost": "1"}
    del row["ServiceName"], row["x_ChargeId"]
    report = validate(written(tmp_path / "header.csv", [row]), "1.4")
    assert {(fault.rule, fault.column) for fault in report.faults} == {
        ("column-unknown", "ProviderName"), ("custom-name", "x_lower"), ("column-unknown", "Colour"), ("column-unknown", "billedcost"),
        ("column-missing", "ServiceName"),
    }  # fmt: skip


def test_examples_of_the_specification_raise_no_alarm() -> None:
    """As excerpts: they have no column that an example does not need. Blank lines between rows are none. One example ends at 30 o'clock."""
    faults = {file.name: validate(file, is_excerpt=True).faults for file in sorted(SPEC_EXAMPLES.glob("*.csv"))}
    (late_end,) = faults.pop("commitment_discount_purchase_scenario_2.csv")
    assert (late_end.rule, late_end.values) == ("date-time", ["2023-02-01T30:00:00Z"])
    assert not any(faults.values())
    assert len(faults) == 5


def test_parquet_with_decimals_is_right_and_with_floats_is_not(tmp_path: Path) -> None:
    frame = pl.DataFrame([valid_row("1.2")], schema_overrides=dict.fromkeys(columns("1.2"), pl.String))
    times = [
        pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
        for name, column in columns("1.2").items()
        if column.format == "time"
    ]
    frame = frame.with_columns(pl.col("BilledCost").cast(pl.Decimal(38, 12)), *times)
    frame.write_parquet(tmp_path / "right.parquet")
    assert validate(tmp_path / "right.parquet").faults == []
    frame.with_columns(pl.col("BilledCost").cast(pl.Float64)).write_parquet(tmp_path / "float.parquet")
    assert [(fault.rule, fault.column) for fault in validate(tmp_path / "float.parquet").faults] == [
        ("decimal-type", "BilledCost")
    ]


def test_the_command_tells_people_and_machines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def exit_code(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_info:
            app(["focus", "validate", *arguments])
        return int(exit_info.value.code or 0)

    right = written(tmp_path / "right.csv", [valid_row("1.3")])
    gzip_file = tmp_path / "right.csv.gz"
    gzip_file.write_bytes(gzip.compress(right.read_bytes()))
    assert exit_code(str(gzip_file)) == 0
    wrong = written(tmp_path / "wrong.csv", [valid_row("1.3") | {"BilledCost": "1,000"}])
    capfd.readouterr()
    assert exit_code(str(wrong)) == 1
    assert "row 1, BilledCost, decimal: '1,000'" in capfd.readouterr().out
    assert exit_code(str(wrong), "--format", "json") == 1
    document = json.loads(capfd.readouterr().out)
    assert (document["valid"], document["version"], document["faults"][0]["rows"]) == (False, "1.3", [1])
    (tmp_path / "ragged.csv").write_text("BilledCost,ServiceName\n1,a\n2,b,c\n", encoding="utf-8")
    assert exit_code(str(tmp_path / "ragged.csv")) == 1
    assert "it is no table" in (message := capfd.readouterr().err) and "Traceback" not in message
    assert exit_code(str(tmp_path / "absent.csv")) == 2
