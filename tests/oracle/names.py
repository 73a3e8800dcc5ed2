"""What the names in the oracle's worlds mean. Classification is data (RA-1): here it is a list, so that the oracle needs no classifier."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Variant:
    """What a name may state of a model beside its family. (RA-1c)"""

    release: str | None = None
    model_version: str | None = None
    geography: str | None = None


@dataclass(frozen=True)
class Sold:
    """What a SKU sells: a meter of a model or of whatever model, a model whatever of it is used, or the time of a resource."""

    provider: str
    model: str | None
    meter: str | None
    tier: str = "standard"
    provisioned: bool = False
    variant: Variant = Variant()


@dataclass(frozen=True)
class Called:
    """What a model's name in a log means: its family, what it states beside that, and the provider that writes names in this form. (RA-1b)"""

    model: str
    variant: Variant = Variant()
    provider: str | None = None


AWS_MODELS = {"Claude4.6Sonnet": "claude-sonnet-4-6", "NovaPro": "nova-pro"}
"""Models as Amazon's bill writes them."""

METER_WORDS = {
    "input-tokens": "input_tokens",
    "cache-read-input-token-count": "cache_read_tokens",
    "cache-write-input-token-count": "cache_write_5m_tokens",
    "output-tokens": "output_tokens",
}

_OPENAI_WORDS = {"input": "input_tokens", "cached input": "cache_read_tokens", "output": "output_tokens"}
_AZURE_WORDS = {"Inp": "input_tokens", "cchd Inp": "cache_read_tokens", "Outp": "output_tokens"}
_ANTHROPIC_WORDS = {
    "Input Tokens": "input_tokens",
    "Input Tokens, Cache Read": "cache_read_tokens",
    "Input Tokens, Cache Write": "cache_write_5m_tokens",
    "Output Tokens": "output_tokens",
}
_GOOGLE_WORDS = {
    "Input Tokens": "input_tokens",
    "Cache Read Input Tokens": "cache_read_tokens",
    "Output Tokens": "output_tokens",
}

SKUS = (
    {
        f"USE1-{word}-{words}{suffix}{place}": Sold("AWS", model, meter, tier, variant=Variant(geography=geography))
        for word, model in AWS_MODELS.items()
        for words, meter in METER_WORDS.items()
        for suffix, tier in (("", "standard"), ("-batch", "batch"), ("-flex", "flex"))
        for place, geography in (("", None), ("-cross-region-global", "global"))
    }
    | {
        "USE1-BoxUsage:g5.xlarge": Sold("AWS", None, "seconds", provisioned=True),
        "USE1-Runtime:Consumption-based:vCPU": Sold("AWS", None, "seconds"),
    }
    | {
        f"gpt-4o{date}, {words}": Sold("OpenAI", "gpt-4o", meter, variant=Variant(release))
        for date, release in (("", None), ("-2024-08-06", "0806"), ("-2024-11-20", "1120"))
        for words, meter in _OPENAI_WORDS.items()
    }
    | {
        f"gpt 4o {release} {words} glbl Tokens": Sold("Microsoft", "gpt-4o", meter, variant=Variant(release))
        for release in ("0806", "1120")
        for words, meter in _AZURE_WORDS.items()
    }
    | {
        f"Claude Sonnet 4.6 Usage - {words}": Sold("Anthropic", "claude-sonnet-4-6", meter)
        for words, meter in _ANTHROPIC_WORDS.items()
    }
    | {
        "USE1-WebSearch:Requests": Sold("AWS", None, "web_searches"),
        "web_search": Sold("Anthropic", None, "web_searches"),
        "web search": Sold("OpenAI", None, "web_searches"),
        "anthropic/claude-sonnet-4-6": Sold("OpenRouter", "claude-sonnet-4-6", None),
    }
    | {f"Claude Sonnet 4.6 {words}": Sold("Google Cloud", "claude-sonnet-4-6", meter) for words, meter in _GOOGLE_WORDS.items()}
)

UNITS = {
    "tokens": Fraction(1),
    "1K tokens": Fraction(1000),
    "1M tokens": Fraction(1_000_000),
    "Hrs": Fraction(3600),
    "vCPU-Hours": None,
    "requests": Fraction(1),
}
"""How many of the meter one unit of the bill is; None where it is another thing than the meter. (RA-2, RA-3)"""

PROVIDERS = {
    "bedrock": "AWS",
    "aws.bedrock": "AWS",
    "bedrock_converse": "AWS",
    "AWS": "AWS",
    "openai": "OpenAI",
    "OpenAI": "OpenAI",
    "azure": "Microsoft",
    "az.ai.openai": "Microsoft",
    "Microsoft": "Microsoft",
    "anthropic": "Anthropic",
    "Anthropic": "Anthropic",
    "vertex_ai": "Google Cloud",
    "Google Cloud": "Google Cloud",
    "openrouter": "OpenRouter",
    "OpenRouter": "OpenRouter",
}
FRAMEWORKS = {"strands-agents", "langchain"}
"""Names that logs give as a provider's and that are none. (RA-1b)"""

LOG_MODELS = {
    "anthropic.claude-sonnet-4-6-v1:0": Called("claude-sonnet-4-6", Variant(model_version="1"), "AWS"),
    "global.anthropic.claude-sonnet-4-6-v1:0": Called("claude-sonnet-4-6", Variant(None, "1", "global"), "AWS"),
    "us.anthropic.claude-sonnet-4-6-v1:0": Called("claude-sonnet-4-6", Variant(None, "1", "us"), "AWS"),
    "amazon.nova-pro-v1:0": Called("nova-pro", Variant(model_version="1"), "AWS"),
    "claude-sonnet-4-6": Called("claude-sonnet-4-6"),
    "anthropic/claude-sonnet-4-6": Called("claude-sonnet-4-6"),
    "gpt-4o": Called("gpt-4o"),
    "gpt-4o-2024-08-06": Called("gpt-4o", Variant("0806")),
    "gpt-4o-2024-11-20": Called("gpt-4o", Variant("1120")),
}
PRICE_MODELS = {
    "anthropic.claude-sonnet-4-6": "claude-sonnet-4-6",
    "amazon.nova-pro-v1:0": "nova-pro",
    "claude-sonnet-4-6": "claude-sonnet-4-6",
    "anthropic/claude-sonnet-4-6": "claude-sonnet-4-6",
    "gpt-4o": "gpt-4o",
}
"""Models as logs and price lists write them."""


def called_provider(told: str | None, model: str | None) -> str | None:
    """The provider of a call as its record has it: as sent, else by the form of the model's name; None: nobody says. (RA-1b)

    >>> called_provider("aws.bedrock", "claude-sonnet-4-6"), called_provider("langchain", "us.anthropic.claude-sonnet-4-6-v1:0")
    ('AWS', 'AWS')
    >>> called_provider(None, "gpt-4o"), called_provider("opnai", "gpt-4o")
    (None, 'opnai')
    """
    if told and told not in FRAMEWORKS:
        return PROVIDERS.get(told, told)
    called = LOG_MODELS.get(model or "")
    return called.provider if called else None
