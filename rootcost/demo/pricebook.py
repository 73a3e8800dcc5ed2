"""Public prices of the models the demo company uses, read as data from the price map that litellm ships."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from ledger.errors import ObjectMissingError
from rootcost.demo.company import Model

_FIELDS = {
    "input_tokens": "input_cost_per_token",
    "cache_read_tokens": "cache_read_input_token_cost",
    "cache_write_5m_tokens": "cache_creation_input_token_cost",
    "output_tokens": "output_cost_per_token",
}


@cache
def price_map() -> dict[str, dict[str, Any]]:
    """Every entry of the map, with exact numbers."""
    module_spec = importlib.util.find_spec("litellm")
    if module_spec is None or module_spec.origin is None:
        raise ObjectMissingError("litellm is not installed", where="price map", remedy="install it: pip install litellm")
    path = Path(module_spec.origin).parent / "model_prices_and_context_window_backup.json"
    # The library itself takes seconds to import; its price table is plain JSON.
    prices: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return prices


def list_rates(model: Model) -> Mapping[str, Decimal]:
    """Price of one token by meter, in USD; a meter the book does not price is not in it.

    >>> from rootcost.demo.company import NOVA_LITE
    >>> sorted(list_rates(NOVA_LITE))
    ['cache_read_tokens', 'input_tokens', 'output_tokens']
    """
    if not model.book:
        return {}
    entry = price_map().get(model.book)
    if entry is None:
        raise ObjectMissingError(
            f"model {model.book} is not in the price map",
            where="price map",
            remedy="install the litellm release of requirements.lock",
        )
    return {meter: Decimal(entry[name]) for meter, name in _FIELDS.items() if entry.get(name) is not None}
