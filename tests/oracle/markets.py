"""Who sells what in the oracle's worlds: how calls name providers and models, and how each provider bills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.oracle.names import LOG_MODELS, SKUS, Sold, called_provider
from tests.support.books_by_hand import price

AMAZON = (("bedrock", "anthropic.claude-sonnet-4-6-v1:0"), ("bedrock", "amazon.nova-pro-v1:0"))
"""Provider and model as calls name them where a company buys from one provider."""

SEVERAL = (
    ("bedrock", "anthropic.claude-sonnet-4-6-v1:0"),
    ("aws.bedrock", "global.anthropic.claude-sonnet-4-6-v1:0"),
    ("bedrock", "us.anthropic.claude-sonnet-4-6-v1:0"),
    ("anthropic", "claude-sonnet-4-6"),
    ("vertex_ai", "claude-sonnet-4-6"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-2024-11-20"),
    ("azure", "gpt-4o-2024-08-06"),
    ("az.ai.openai", "gpt-4o-2024-11-20"),
    (None, "gpt-4o"),
    (None, "gpt-4o-2024-08-06"),
    (None, "global.anthropic.claude-sonnet-4-6-v1:0"),
    ("langchain", "gpt-4o-2024-11-20"),
    ("strands-agents", "claude-sonnet-4-6"),
    ("strands-agents", "anthropic.claude-sonnet-4-6-v1:0"),
    ("openrouter", "anthropic/claude-sonnet-4-6"),
    ("opnai", "gpt-4o"),
    ("claude-gateway", "claude-sonnet-4-6"),
)
"""The same where it buys from many: frameworks, slips of the pen and nobody for a provider; releases and geographies. (RA-1b, RA-1c)"""

RATES = {
    "input_tokens": Decimal("0.000003"),
    "cache_read_tokens": Decimal("0.0000003"),
    "cache_write_5m_tokens": Decimal("0.00000375"),
    "cache_write_1h_tokens": Decimal("0.000006"),
    "output_tokens": Decimal("0.000015"),
    "reasoning_tokens": Decimal("0.000015"),
    "web_searches": Decimal("0.01"),
}
TIERS = {"standard": Decimal(1), "batch": Decimal("0.5"), "flex": Decimal("0.75")}
LISTED = [
    price(model, meter, str(rate * factor), service_tier=tier, provider=provider)
    for provider, model in (
        ("bedrock_converse", "anthropic.claude-sonnet-4-6"),
        ("bedrock_converse", "amazon.nova-pro-v1:0"),
        ("anthropic", "claude-sonnet-4-6"),
        ("openai", "gpt-4o"),
        ("openrouter", "anthropic/claude-sonnet-4-6"),
    )
    for tier, factor in TIERS.items()
    for meter, rate in RATES.items()
]

_BILLERS: Mapping[str, Mapping[str, Any]] = {
    "AWS": {"provider_name": "AWS", "service_name": "Amazon Bedrock"},
    "OpenAI": {"provider_name": "OpenAI", "service_name": "OpenAI API", "region_id": None},
    "Anthropic": {"provider_name": "Anthropic", "service_name": "Claude API", "region_id": None},
    "Microsoft": {"provider_name": "Microsoft", "service_name": "Azure OpenAI", "region_id": "eastus"},
    "OpenRouter": {"provider_name": "OpenRouter", "service_name": "OpenRouter", "region_id": None},
    "Google Cloud": {"provider_name": "Google Cloud", "service_name": "Vertex AI", "region_id": "us-east5"},
}
_UNITS = {"AWS": ("1K tokens", 1000), "Microsoft": ("1K tokens", 1000)}


def lines_for(model: str) -> list[tuple[str, Sold]]:
    """The SKUs that sell a family of models, whoever sells it."""
    return [(sku, sale) for sku, sale in sorted(SKUS.items()) if sale.model == model and sale.meter is not None]


def line_of_searches(call: Mapping[str, Any]) -> str | None:
    """The SKU of searches of the web, of whatever model, of the provider that a call names."""
    provider = called_provider(call.get("provider"), call["response_model"])
    return next((sku for sku, sale in sorted(SKUS.items()) if (sale.provider, sale.meter) == (provider, "web_searches")), None)


@st.composite
def line_for(draw: st.DrawFn, call: Mapping[str, Any], tier: str | None, senders: Sequence[Any]) -> tuple[str, Sold]:
    """A line of the bill for the model of a call: mostly what that call is billed as, else another release, place or seller."""
    meaning = LOG_MODELS[call["response_model"]]
    provider = called_provider(call.get("provider"), call["response_model"])
    lines = [(sku, sale) for sku, sale in lines_for(meaning.model) if sale.provider == "AWS" or senders is not AMAZON]
    if senders is AMAZON:
        lines = [(sku, sale) for sku, sale in lines if sale.variant.geography is None]
    lines = [(sku, sale) for sku, sale in lines if sale.tier in ("standard", tier)]
    if draw(st.integers(0, 3)):
        own = [(sku, sale) for sku, sale in lines if sale.provider == provider]
        exact = [(sku, sale) for sku, sale in own if sale.variant.release in (None, meaning.variant.release)]
        lines = exact or own or lines
    return draw(st.sampled_from(lines))


def biller(provider: str) -> Mapping[str, Any]:
    """The columns that name a provider on its bill."""
    return _BILLERS[provider]


def billed_by(sale: Sold, account: str, tokens: Decimal) -> dict[str, Any]:
    """The columns of a charge for so many tokens, as their seller writes it."""
    unit, size = _UNITS.get(sale.provider, ("tokens", 1))
    columns = {**_BILLERS[sale.provider], "consumed_unit": unit, "consumed_quantity": (tokens / size).quantize(Decimal("1e-12"))}
    return (
        columns
        if sale.provider in ("AWS", "Microsoft")
        else columns | {"sub_account_id": {"1111": "proj-a", "2222": None}[account]}
    )
