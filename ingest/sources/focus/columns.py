"""Mapping of FOCUS columns to columns of `charges`, and detection of a header's version. The table is `focus_columns.csv`."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from ingest.bills.charges import MEASURES
from ingest.bills.csv_reader import ColumnSelection
from ledger.errors import FormatError

_SUCCESSORS = {"ProviderName": "ServiceProviderName", "PublisherName": "ServiceProviderName"}
"""Mandatory columns that FOCUS 1.3 replaced by others: a file with the new one may lack them."""
_SINCE_SERVICE_PROVIDER = ("ServiceProviderName", "HostProviderName")
"""Mandatory since 1.3. A file without either is of an older version, even if it has newer columns."""

CUSTOM = {
    "x_UsageType": "sku_meter",
    "x_SkuMeterName": "sku_meter",
    "x_ServiceCode": "product_code",
    "x_ServiceId": "product_code",
    "x_Operation": "operation",
}
"""Provider columns that are more specific than FOCUS's own and are preferred: an AWS usage type names the model."""


@dataclass(frozen=True, slots=True)
class FocusColumn:
    """One column of the specification; `charge` is its column in `charges`, or empty."""

    name: str
    charge: str
    introduced: str
    removed: str
    level: str
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The columns of a file: FOCUS name to the name in its header."""

    version: str
    headers: dict[str, str]
    respelt: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def selection(self) -> ColumnSelection:
        """Header names to read, in a fixed order."""
        charge = {column.name: column.charge for column in columns()} | CUSTOM
        measures = {spelt for name, spelt in self.headers.items() if charge.get(name) in MEASURES or name == "BillingPeriodStart"}
        return ColumnSelection(sorted(set(self.headers.values()) - measures), sorted(measures))


@cache
def columns() -> tuple[FocusColumn, ...]:
    """The columns of Cost and Usage, FOCUS 1.0 to 1.4."""
    text = (files("ingest.sources.focus") / "columns.csv").read_text(encoding="utf-8")
    return tuple(
        FocusColumn(
            r["column"], r["charge"], r["introduced"], r["removed"], r["level"], tuple(filter(None, r["allowed"].split(";")))
        )
        for r in csv.DictReader(text.splitlines())
    )


def allowed(name: str) -> tuple[str, ...]:
    """The values FOCUS allows in a column; empty where any value is allowed.

    >>> allowed("ChargeClass")
    ('Correction',)
    """
    return next(c.allowed for c in columns() if c.name == name)


def version(names: set[str]) -> str:
    """The oldest version that has all of these columns.

    >>> version({"ProviderName"}), version({"SkuMeter", "InvoiceId"}), version({"ServiceProviderName"})
    ('1.0', '1.2', '1.3')
    >>> version({"ServiceProviderName", "InvoiceDetailId"})
    '1.4'
    """
    versions = [c.introduced for c in columns() if c.name in names and not c.introduced.endswith("draft")]
    return max(versions, default="1.0")


def layout(header: list[str], *, location: str) -> Layout:
    """Finds the columns by name, first exactly, then ignoring case.

    Raises `FormatError` that names every missing column that is mandatory in the version the header speaks.
    """
    exact = set(header)
    by_case: dict[str, str] = {}
    for name in header:
        by_case.setdefault(name.lower(), name)
    headers, respelt = {}, {}
    for name in (*(c.name for c in columns()), *CUSTOM):
        if name in exact:
            headers[name] = name
        elif (spelt := by_case.get(name.lower())) is not None:
            headers[name] = respelt[name] = spelt
    file_version = version(set(headers))
    missing = _missing(headers, file_version)
    if missing:
        raise FormatError(
            f"no FOCUS cost and usage file: mandatory columns are missing: {', '.join(missing)} (read as FOCUS {file_version})",
            where=location,
            remedy="export the dataset with all mandatory columns, or name the source that fits the file",
        )
    names = {c.name for c in columns() if c.charge} | set(CUSTOM) | {"BillingPeriodStart"}
    return Layout(file_version, {n: h for n, h in headers.items() if n in names}, respelt)


def _missing(headers: Collection[str], file_version: str) -> list[str]:
    """The mandatory columns of a version that are not there.

    >>> whole = [c.name for c in columns() if c.level == "mandatory"]
    >>> older = [name for name in whole if name not in _SINCE_SERVICE_PROVIDER]
    >>> newer = [name for name in whole if name not in ("ProviderName", "PublisherName")]
    >>> _missing(older, "1.0"), _missing(newer, "1.4"), _missing(newer[1:], "1.4"), _missing(older[:-2], "1.2")
    ([], [], ['BilledCost'], ['ServiceCategory', 'ServiceName'])
    """
    new = any(name in headers for name in _SINCE_SERVICE_PROVIDER)
    mandatory = [c for c in columns() if c.level == "mandatory" and c.introduced <= file_version]
    return [
        c.name
        for c in mandatory
        if c.name not in headers
        and not (c.removed and c.removed <= file_version and new)
        and _SUCCESSORS.get(c.name) not in headers
        and (new or c.name not in _SINCE_SERVICE_PROVIDER)
    ]
