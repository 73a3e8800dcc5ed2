"""List prices: what the price book asks for a call, as of the moment it was made. (ES-1, ES-2)

`book` finds what sells a model, `rates` which rate applies, `cells` and `costs` multiply whole columns, `other_usage` prices what is not a token, and
`readings` lets the reported cost decide how ambiguous usage was meant (CA-5).
"""

from __future__ import annotations

from attribution.pricing.book import PriceBook
from attribution.pricing.list_cost import add_list_cost
from attribution.pricing.other_usage import other_meters

__all__ = ["PriceBook", "add_list_cost", "other_meters"]
