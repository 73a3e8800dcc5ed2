"""RA-1b: who sold a call whose provider nobody names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from tests.oracle.chains import Row
from tests.oracle.names import PROVIDERS
from tests.oracle.rating import Charge
from tests.oracle.usage import Use, keys_of


def with_sellers(
    uses: Sequence[Use], bill: Sequence[Charge], prices: Sequence[Row], defaults: Mapping[str, Mapping[str, str]]
) -> list[Use]:
    """Uses under the only provider whose bill sells their model in their hour, where their records name none.

    Reading: a name that no table, bill or price list has is a slip of the pen and names nobody; but where no bill sells the model, it
    stays, since it may be a provider that sends no bill. The place is what it would be if the record had named the provider.
    """
    real = {*PROVIDERS.values(), *(PROVIDERS.get(c.row["provider_name"], c.row["provider_name"]) for c in bill)}
    real |= {PROVIDERS[p["provider"]] for p in prices}
    return [use if use.provider in real or use.model is None else _with_seller(use, bill, defaults) for use in uses]


def _with_seller(use: Use, bill: Sequence[Charge], defaults: Mapping[str, Mapping[str, str]]) -> Use:
    sellers = {c.sold.provider for c in bill if c.sold and c.sold.model == use.model and _in_hour(use, c)}
    if len(sellers) == 1:
        seller = sellers.pop()
        keys, firm_keys = keys_of(use.keys, use.firm_keys or use.keys, seller, defaults)
        return replace(use, provider=seller, keys=keys, firm_keys=firm_keys, flags=use.flags | {"provider_inferred"})
    if use.provider is None or sellers:
        return replace(use, flags=use.flags | {"no_provider"})
    return use


def _in_hour(use: Use, charge: Charge) -> bool:
    return bool(charge.row["charge_period_start"] <= use.start < charge.row["charge_period_end"])


def may_be_uncaptured(use: Use, uncaptured_charges: Sequence[Charge]) -> bool:
    """Whether a use without a provider may be what the bill of its day has of its model beyond the logs: it is not estimated then.

    `uncaptured` are the charges that no use explains whole.
    """
    return "no_provider" in use.flags and any(
        c.sold is not None and c.sold.model == use.model and use.start.date() in _days(c) for c in uncaptured_charges
    )


def _days(charge: Charge) -> set[date]:
    start, end = charge.row["charge_period_start"], charge.row["charge_period_end"] - timedelta(microseconds=1)
    return {start.date() + timedelta(days=n) for n in range((end.date() - start.date()).days + 1)}
