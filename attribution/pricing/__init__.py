"""List prices: the price of a call in the price book, as of the moment it was made. (ES-1, ES-2)

`book` finds the tariffs of a model, `rates` which rate applies, `cells` and `costs` multiply whole columns, `other_usage` prices what is not
counted in tokens, and `readings` resolves ambiguous usage by the reported cost (CA-5).
"""

from __future__ import annotations

from attribution.pricing.book import PriceBook
from attribution.pricing.list_cost import add_list_cost
from attribution.pricing.other_usage import other_meters

__all__ = ["PriceBook", "add_list_cost", "other_meters"]
