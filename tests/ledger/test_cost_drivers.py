"""Drivers sum to the change exactly, and name what changed."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import pytest

from ledger.cost_drivers import GONE, NEW, ItemUsage, PeriodUsage, decompose
from ledger.money import quantize

F = Fraction


def item(calls: int, tokens: str, price: str, *, retries: int = 0, cache_read: str = "0", cached_price: str = "0.1") -> ItemUsage:
    attempts = F(calls + retries)
    classes = {"input_tokens": (attempts * F(tokens), attempts * F(tokens) * F(price))}
    if F(cache_read):
        classes["cache_read_tokens"] = (attempts * F(cache_read), attempts * F(cache_read) * F(cached_price))
    return ItemUsage(attempts, F(calls), classes)


BASE = {"a": item(100, "10", "2"), "b": item(50, "20", "1")}


@pytest.mark.parametrize(("after", "driver"), [
    ({"a": item(200, "10", "2"), "b": item(100, "20", "1")}, "volume"),
    ({"a": item(100, "30", "2"), "b": item(50, "60", "1")}, "tokens per call: input"),
    ({"a": item(100, "10", "4"), "b": item(50, "20", "2")}, "price"),
    ({"a": item(100, "10", "2", retries=50), "b": item(50, "20", "1", retries=25)}, "retries"),
    ({"a": item(50, "10", "2"), "b": item(100, "20", "1")}, "mix"),
    ({**BASE, "c": item(7, "10", "2")}, NEW),
    ({"a": BASE["a"]}, GONE),
    ({"a": item(100, "10", "2", cache_read="5"), "b": BASE["b"]}, "tokens per call: cache read"),
])  # fmt: skip
def test_what_alone_has_changed_is_the_only_driver(after: dict[str, ItemUsage], driver: str) -> None:
    drivers = decompose(PeriodUsage(BASE), PeriodUsage(after))
    # Where the two models cost the same a call, another mix costs nothing.
    expected_names = [] if driver == "mix" else [driver]
    assert list(drivers) == expected_names
    assert sum(drivers.values()) == quantize(Decimal(int(PeriodUsage(after).cost - PeriodUsage(BASE).cost)))


def test_mix_is_what_a_dearer_model_costs_more() -> None:
    before, after = (
        {"a": item(100, "10", "2"), "b": item(100, "10", "10")},
        {"a": item(50, "10", "2"), "b": item(150, "10", "10")},
    )
    assert decompose(PeriodUsage(before), PeriodUsage(after)) == {"mix": Decimal(4000)}


def test_random_periods_leave_no_residual() -> None:
    rng = random.Random(5)

    def period() -> PeriodUsage:
        items = {}
        for name in rng.sample("abcdef", rng.randint(0, 5)):
            calls, retries = rng.randint(0, 9), rng.randint(0, 3)
            classes = {
                meter: (F(rng.randint(0, 999)), F(rng.randint(0, 10**6), 10**5))
                for meter in rng.sample(["input_tokens", "output_tokens", "cache_read_tokens"], rng.randint(0, 3))
            }
            items[name] = ItemUsage(F(calls + retries), F(calls), classes)
        return PeriodUsage(items, F(rng.randint(-50, 500), 7))

    for _ in range(150):
        before, after = period(), period().as_of(Decimal(rng.randint(1, 10**6)) / 1000)
        difference = after.cost - before.cost
        assert sum(decompose(before, after).values()) * 10**12 == round(difference * 10**12)


def test_what_was_expected_is_the_past_at_that_cost() -> None:
    expected_usage = PeriodUsage(BASE, F(5)).as_of(Decimal("123.456"))
    assert expected_usage.cost == F("123.456")
    assert decompose(PeriodUsage(BASE, F(5)).as_of(Decimal(300)), PeriodUsage(BASE, F(5)).as_of(Decimal(600))).keys() == {
        "volume",
        "other charges",
    }
