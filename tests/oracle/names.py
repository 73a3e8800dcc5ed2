"""What the names in the oracle's worlds mean. Classification is data (RA-1): here it is a list, so that the oracle needs no classifier."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Sold:
    """What a SKU sells: a meter of a model, or the time of a resource."""

    provider: str
    model: str | None
    meter: str
    tier: str = "standard"
    provisioned: bool = False


AWS_MODELS = {"Claude4.6Sonnet": "claude-sonnet-4-6", "NovaPro": "nova-pro"}
"""Models as Amazon's bill writes them."""

METER_WORDS = {
    "input-tokens": "input_tokens",
    "cache-read-input-token-count": "cache_read_tokens",
    "cache-write-input-token-count": "cache_write_5m_tokens",
    "output-tokens": "output_tokens",
}

SKUS = {
    f"USE1-{word}-{words}{suffix}": Sold("AWS", model, meter, tier)
    for word, model in AWS_MODELS.items()
    for words, meter in METER_WORDS.items()
    for suffix, tier in (("", "standard"), ("-batch", "batch"), ("-flex", "flex"))
} | {
    "USE1-BoxUsage:g5.xlarge": Sold("AWS", None, "seconds", provisioned=True),
    "USE1-Runtime:Consumption-based:vCPU": Sold("AWS", None, "seconds"),
}

UNITS = {
    "tokens": Fraction(1),
    "1K tokens": Fraction(1000),
    "1M tokens": Fraction(1_000_000),
    "Hrs": Fraction(3600),
    "vCPU-Hours": None,
}
"""How many of the meter one unit of the bill is; None where it is another thing than the meter. (RA-2, RA-3)"""

PROVIDERS = {"bedrock": "AWS", "AWS": "AWS"}
LOG_MODELS = {"anthropic.claude-sonnet-4-6-v1:0": "claude-sonnet-4-6", "amazon.nova-pro-v1:0": "nova-pro"}
PRICE_MODELS = {"anthropic.claude-sonnet-4-6": "claude-sonnet-4-6", "amazon.nova-pro-v1:0": "nova-pro"}
"""Models as logs and price lists write them."""
