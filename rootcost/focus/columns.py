"""The columns of FOCUS Cost and Usage by version, from `columns.csv`: type, format, presence, nulls, allowed values, and how a split treats each.

The facts of the table are those of the FOCUS specification (CC-BY-4.0), versions 1.2 to 1.4.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal

Version = Literal["1.2", "1.3", "1.4"]
VERSIONS: Final[tuple[Version, ...]] = ("1.2", "1.3", "1.4")
CURRENCIES: Final = frozenset(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF
    CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
    MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU
    UYW UZS VED VES VND VUV WST XAF XAG XAU XCD XCG XDR XOF XPD XPF XPT XSU XUA YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - 180 codes in quotes are no table
)
"""Codes of ISO 4217."""


@dataclass(frozen=True, slots=True)
class FocusColumn:
    """A column of one version. `split` says what becomes of it when a charge is split: `copy`, `sum` or `set`."""

    name: str
    type: str
    format: str
    is_mandatory: bool
    is_nullable: bool
    allowed_values: tuple[str, ...]
    split: str


@cache
def columns(version: Version) -> dict[str, FocusColumn]:
    """The columns of a version by name, in alphabetical order, as the specification lists them."""
    table = {}
    is_newest = version == "1.4"
    with resources.files("rootcost.focus").joinpath("columns.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if version not in row["versions"].split():
                continue
            level = row["level_1_4"] if is_newest else row["level"]
            nullable = (row["nullable_1_4"] if is_newest else "") or row["nullable"]
            table[row["column"]] = FocusColumn(
                name=row["column"],
                type=row["type"],
                format=row["format"],
                is_mandatory=level == "Mandatory",
                is_nullable=nullable == "yes",
                allowed_values=tuple(value for value in row["allowed"].split(";") if value),
                split=row["split"],
            )
    return table


def guessed_version(names: Collection[str]) -> Version:
    """The version that a file with these columns is of.

    >>> guessed_version(["BilledCost", "ProviderName"]), guessed_version(["ServiceProviderName", "ProviderName"]), guessed_version(["ServiceProviderName"])
    ('1.2', '1.3', '1.4')
    """
    newest_only = set(columns("1.4")) - set(columns("1.3"))
    is_of_1_3 = not set(names).isdisjoint(set(columns("1.3")) - set(columns("1.2")))
    if not set(names).isdisjoint(newest_only):
        return "1.4"
    if not is_of_1_3:
        return "1.2"
    return "1.3" if "ProviderName" in names or "ServiceProviderName" not in names else "1.4"
