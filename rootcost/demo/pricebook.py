"""List prices of the demo: a price list of October 2026 for the company's own models, the installed price map for the rest.

The list is part of the demo, so that its figures are the same whatever release of litellm is installed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import ObjectMissingError
from rootcost.demo.company import Model

if TYPE_CHECKING:
    from ingest.prices.litellm_map import PriceList

PRICE_LIST = Path(__file__).with_name("prices_2026_10.json")
"""Entries of LiteLLM's price map as they were in October 2026, for the models that the company uses."""

_FIELDS = {
    "input_tokens": "input_cost_per_token",
    "cache_read_tokens": "cache_read_input_token_cost",
    "cache_write_5m_tokens": "cache_creation_input_token_cost",
    "output_tokens": "output_cost_per_token",
}


def installed_price_map() -> dict[str, dict[str, Any]]:
    """All entries of the installed litellm's price map, with exact numbers."""
    module_spec = importlib.util.find_spec("litellm")
    if module_spec is None or module_spec.origin is None:
        raise ObjectMissingError("litellm is not installed", where="price map", remedy="install it: pip install litellm")
    # The library itself takes seconds to import; its price table is plain JSON.
    return _entries(Path(module_spec.origin).parent / "model_prices_and_context_window_backup.json")


@cache
def _entries(path: Path) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return entries


def list_rates(model: Model) -> Mapping[str, Decimal]:
    """Price of one token by meter, in USD; a meter without a price is absent.

    >>> from rootcost.demo.company import NOVA_LITE
    >>> {meter: str(rate) for meter, rate in list_rates(NOVA_LITE).items()}
    {'input_tokens': '6E-8', 'cache_read_tokens': '1.5E-8', 'output_tokens': '2.4E-7'}
    """
    if not model.book:
        return {}
    entry = _entries(PRICE_LIST)[model.book]
    return {meter: Decimal(entry[name]) for meter, name in _FIELDS.items() if entry.get(name) is not None}


def price_list() -> PriceList:
    """The price list that the demo imports: the installed price map, with the rates of `PRICE_LIST` in place of its own."""
    from ingest.prices.litellm_map import read_litellm_map

    installed, dated = read_litellm_map(), read_litellm_map(PRICE_LIST)
    others = installed.frame.join(dated.frame, on=["provider", "model"], how="anti")
    return replace(installed, frame=others.vstack(dated.frame))
