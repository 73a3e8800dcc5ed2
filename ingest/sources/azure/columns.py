"""The columns of an Azure cost export, in each of its header dialects.

The same column is `CostInBillingCurrency`, `costInBillingCurrency`, `Cost` or `PreTaxCost`, depending on the agreement, the year and the
language: names are compared by letters and digits alone, and where a translated header has the English name in parentheses, by that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ingest.bills.csv_reader import ColumnSelection
from ledger.errors import FormatError

DIMENSIONS: Final = {
    "billing_account_id": ("billingaccountid",),
    "billing_account_name": ("billingaccountname",),
    "sub_account_id": ("subscriptionid", "subscriptionguid"),
    "sub_account_name": ("subscriptionname",),
    "billing_currency": ("billingcurrency", "billingcurrencycode", "currency"),
    "pricing_currency": ("pricingcurrency", "pricingcurrencycode"),
    "exchange_rate": ("exchangeratepricingtobilling", "exchangerate"),
    "service_name": ("metercategory",),
    "product_code": ("consumedservice",),
    "sku_meter": ("metername",),
    "meter_subcategory": ("metersubcategory",),
    "sku_id": ("meterid",),
    "sku_price_id": ("partnumber", "productid"),
    "charge_description": ("productname", "product"),
    "region_id": ("resourcelocation", "location"),
    "resource_id": ("resourceid", "instanceid", "instancename"),
    "resource_name": ("resourcename",),
    "resource_type": ("resourcetype",),
    "charge_type": ("chargetype",),
    "frequency": ("frequency",),
    "pricing_model": ("pricingmodel",),
    "publisher_type": ("publishertype",),
    "publisher_name": ("publishername",),
    "invoice_id": ("invoiceid",),
    "benefit_id": ("benefitid",),
    "reservation_id": ("reservationid",),
    "pricing_unit": ("unitofmeasure",),
    "paid_unit_price": ("unitprice", "effectiveprice", "resourcerate"),
    "list_unit_price": ("paygprice",),
    "tags": ("tags",),
}
"""Dimensions and their header names, in order of preference."""
MEASURES: Final = {
    "cost": ("costinbillingcurrency", "pretaxcost", "cost"),
    "payg_cost": ("paygcostinbillingcurrency",),
    "quantity": ("quantity", "usagequantity", "consumedquantity"),
    "date": ("date", "usagedatetime", "usagedate"),
    "billing_start": ("billingperiodstartdate",),
}
"""What is each line's own."""
NEEDED: Final = {"cost": "CostInBillingCurrency", "date": "Date", "billing_currency": "BillingCurrency"}
_ENGLISH = re.compile(r"\(([A-Za-z0-9 _]+)\)\s*$")
_AMERICAN = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?:[ T]0{1,2}:00(?::00)?(?: AM)?)?")


@dataclass(frozen=True)
class Layout:
    """Our names to the header's."""

    headers: dict[str, str]

    @property
    def selection(self) -> ColumnSelection:
        """Header names worth reading."""
        measures = sorted({name for column, name in self.headers.items() if column in MEASURES})
        return ColumnSelection(sorted({*self.headers.values()} - {*measures}), measures)


def spelling(name: str) -> str:
    r"""A header name in the form that is common to all dialects.

    >>> spelling("Abonnement-GUID (SubscriptionGuid)"), spelling("costInBillingCurrency"), spelling("\ufeffBilling Currency")
    ('subscriptionguid', 'costinbillingcurrency', 'billingcurrency')
    """
    english = _ENGLISH.search(name)
    return re.sub(r"[^a-z0-9]", "", (english[1] if english else name).lower())


def is_focus(header: Sequence[str]) -> bool:
    """Whether these are the columns of a FOCUS export, by Azure or another publisher."""
    names = {spelling(name) for name in header}
    return {"billedcost", "chargeperiodstart"} <= names


def layout(header: Sequence[str], *, location: str) -> Layout:
    """Finds the columns. Raises `FormatError` that names every required column that is missing."""
    names: dict[str, str] = {}
    for name in header:
        names.setdefault(spelling(name), name)
    headers = {
        column: next(names[spelling_key] for spelling_key in spelt if spelling_key in names)
        for column, spelt in (DIMENSIONS | MEASURES).items()
        if any(spelling_key in names for spelling_key in spelt)
    }
    missing = [column_name for column, column_name in NEEDED.items() if column not in headers]
    if missing:
        raise FormatError(
            f"no Azure cost export: columns are missing: {', '.join(missing)}",
            where=location,
            remedy="export actual cost, amortised cost or FOCUS in Cost Management, with all columns; or name the source that fits the file",
        )
    return Layout(headers)


def iso_day(value: str) -> str:
    """A date of any dialect as ISO 8601; other text is returned unchanged, to be reported. With slashes the month comes first.

    >>> iso_day("9/2/2023"), iso_day("09/21/2023"), iso_day("3/1/21"), iso_day("2022-11-03T00:00:00Z"), iso_day("20230902")
    ('2023-09-02', '2023-09-21', '2021-03-01', '2022-11-03', '2023-09-02')
    >>> iso_day("21/09/2023"), iso_day("soon")
    ('21/09/2023', 'soon')
    """
    text = value.strip()
    american = _AMERICAN.fullmatch(text)
    try:
        if american:
            month, day, year = (int(part) for part in american.groups())
            return datetime(year + 2000 if year < 100 else year, month, day).strftime("%Y-%m-%d")  # noqa: DTZ001 - a day has no zone
        return datetime.fromisoformat(text).strftime("%Y-%m-%d")
    except ValueError:
        return value


_REGIONS = (
    (re.compile(r"us(north|south|west|east)?(central)?(\d?)"), r"\1\2us\3"),
    (re.compile(r"(eu|ap)(north|south|west|east)"), r"\2\1"),
)
_CONTINENTS = {"eu": "europe", "ap": "asia"}


def region(name_in_export: str) -> str:
    """A region under its name in Azure's APIs.

    >>> [region(name) for name in ("US East 2", "EastUS2", "EU West", "canadacentral", "US South Central", "Global")]
    ['eastus2', 'eastus2', 'westeurope', 'canadacentral', 'southcentralus', 'global']
    """
    name = re.sub(r"[^a-z0-9]", "", name_in_export.lower())
    for pattern, order in _REGIONS:
        match = pattern.fullmatch(name)
        if match and name != "us":
            name = match.expand(order)
            for short, long in _CONTINENTS.items():
                name = re.sub(rf"(?<=north|south){short}$|(?<=west|east){short}$", long, name) if name.endswith(short) else name
    return name


_BLOCK = re.compile(r"(?P<count>\d+(?:\.\d+)?)\s*(?P<scale>[KMB](?![A-Za-z]))?\s*(?P<noun>.*)")
_SCALES = {None: 1, "K": 1000, "M": 1_000_000, "B": 1_000_000_000}


def block(unit_of_measure: str, meter: str | None) -> tuple[int, str] | None:
    """The number and kind of units in a pricing unit; None where it is not a whole number.

    >>> block("1K", "gpt-4o-0806-Inp-glbl Tokens"), block("100 Hours", None), block("10K", "Class 2 Operations"), block("1/Month", None)
    ((1000, 'Tokens'), (100, 'Hours'), (10000, 'Units'), (1, 'Units/Month'))
    """
    match = _BLOCK.fullmatch(unit_of_measure.strip())
    if match is None or "." in match["count"]:
        return None
    noun = match["noun"] or ("Tokens" if re.search(r"tokens?\b", meter or "", re.IGNORECASE) else "Units")
    if noun.startswith("/"):
        noun = f"Units{noun}"
    elif noun.lower() == "hour":
        noun = "Hours"
    return int(match["count"]) * _SCALES[match["scale"]], noun
