"""SKU classification: model, meter, tier, context size, region and unit of a bill row, from its text. (RA-1, RA-2, RA-3)

The patterns are data (`attribution/classification/*.csv`): `skus.csv` holds a pattern for each family of SKUs, in the order they are
tried; `meters.csv` and `tiers.csv` the words for meters and tiers; `units.csv` the units; `regions.csv` and `spellings.csv` what precedes
and surrounds a model's name. Rules of the settings (`attribution.skus`) are tried first. A SKU that no rule matches stays unknown: it is
counted, listed (`rootcost sources unclassified`), and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import NamedTuple

from attribution.classification.names import table, variant
from ledger.meters import METERS, TOKEN_METERS
from ledger.patterns import Pattern
from ledger.settings import SkuRule

UNGROUPED = "ungrouped"
"""The rule for what a provider counts in a day or month and puts in none of its parts. It names no product, so no rule of one's own is suggested for it."""


class SkuText(NamedTuple):
    """The texts of a bill row that classification uses."""

    provider: str | None = None
    """As classified: AWS, Google Cloud, Microsoft, OpenAI, …"""
    service: str | None = None
    product: str | None = None
    sku: str | None = None
    description: str | None = None
    unit: str | None = None
    model_arn: str | None = None
    """The model that the resource's ARN names, if it names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuClass:
    """What a bill row sells, as far as its texts say.

    `factor` turns the billed quantity into the meter's unit (tokens, seconds, requests); None: not comparable. `sku_rule` names the rule
    that matched; None: none did.
    """

    model: str | None = None
    release: str | None = None
    model_version: str | None = None
    geography: str | None = None
    meter: str | None = None
    service_tier: str = "standard"
    context_above: int = 0
    kind: str | None = None
    factor: Decimal | None = None
    provisioned: bool = False
    sku_region: str | None = None
    sku_rule: str | None = None


_QUANTITY = re.compile(r"^(?:per )?(?P<n>[\d,.]+)? ?(?P<scale>[kmb]|thousand|million|billion)? ?(?P<noun>.*)$")
_SCALES = {"k": 1000, "thousand": 1000, "m": 1_000_000, "million": 1_000_000, "b": 1_000_000_000, "billion": 1_000_000_000}


@cache
def unit(unit_text: str | None) -> tuple[str, Decimal] | None:
    """The kind of meter a unit counts, and how many base units one of it is.

    >>> unit("1K tokens"), unit("Hrs"), unit("LCU-Hours"), unit("1M")
    (('tokens', Decimal('1000')), ('seconds', Decimal('3600')), None, ('tokens', Decimal('1000000')))
    """
    text = " ".join((unit_text or "").lower().split())
    nouns = {row["unit"]: (row["meter_kind"], Decimal(row["factor"])) for row in table("units")}
    if text in nouns:
        return nouns[text]
    match = _QUANTITY.match(text)
    if not text or match is None:
        return None
    number, scale, noun = match.group("n", "scale", "noun")
    count = _number(number) * _SCALES.get(scale or "", 1)
    if not noun and scale and number and scale in "kmb":
        return "tokens", count  # Azure's price sheet: 1K and 1M of the tokens that the meter's name says
    kind = nouns.get(noun)
    return None if kind is None or not count else (kind[0], kind[1] * count)


def _number(text: str | None) -> Decimal:
    digits = (text or "1").replace(",", "")
    return Decimal(digits) if re.fullmatch(r"\d+(?:\.\d+)?", digits) else Decimal(0)


def normalize(text: str) -> str:
    """Words in lower case, separated by spaces.

    >>> normalize("CacheWrite1hInputTokenCount_Global-Units"), normalize("gpt 4o mini0718 BatchOutp DataZone Tokens")
    ('cache write1h input token count global units', 'gpt 4o mini0718 batch outp data zone tokens')
    """
    spaced_text = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", " ", text)
    return " ".join(re.sub(r"[^A-Za-z0-9+]+", " ", spaced_text).lower().split())


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    """An expression of the tables, compiled when it is first looked for: a bill needs those of its own provider."""
    return re.compile(expression, re.IGNORECASE)


def _first_named(name: str, key: str, words: str) -> str | None:
    """The `key` of the first row of a table whose pattern occurs in the words."""
    return next((row[key] for row in table(name) if _compiled(row["pattern"]).search(words)), None)


def meter_of(text: str) -> str | None:
    """The meter that a text names.

    >>> [meter_of(t) for t in ("Input Tokens, Cache Write", "uncached_input_tokens", "cchd Inp glbl", "Thinking Text Output", "LCU")]
    ['cache_write_5m_tokens', 'input_tokens', 'cache_read_tokens', 'reasoning_tokens', None]
    """
    return _first_named("meters", "meter", normalize(text))


def tier_of(text: str) -> str | None:
    """The service tier that a text names, or None.

    >>> tier_of("USE1-Nova2Lite-output-tokens-flex"), tier_of("gpt 4o 0806 BatchInp glbl"), tier_of("NovaPro-input-tokens")
    ('flex', 'batch', None)
    """
    return _first_named("tiers", "service_tier", normalize(text))


_CONTEXT = re.compile(r"(?:above|over|>)[-_ ]?(\d+)[-_ ]?k|\(long\)|\blong\b|\blongco\b|\bl ?ctx\b|\b200k 1m\b", re.IGNORECASE)
_LONG = 200_000


def _context(text: str, default: int) -> int:
    """The prompt size, in tokens, above which this rate applies."""
    match = _CONTEXT.search(text) or _CONTEXT.search(normalize(text))
    if match is None:
        return 0
    return int(match[1]) * 1000 if match[1] else default


_REGION = r"(?:(?-i:(?P<region>[A-Z]{2,4}\d|EU))-)?"


class _Family(NamedTuple):
    rule: str
    provider: str
    service: str
    pattern: str
    model: str
    meter: str
    service_tier: str
    context_above: int
    unit: str
    provisioned: bool


@cache
def _families() -> tuple[_Family, ...]:
    return tuple(
        _Family(
            row["rule"],
            row["provider"],
            row["service"],
            row["pattern"].replace("{region}", _REGION),
            row["model"],
            row["meter"],
            row["service_tier"],
            int(row["context_above"] or _LONG),
            row["unit"],
            bool(row["provisioned"]),
        )
        for row in table("skus")
    )


def model_name(raw_name: str | None, provider: str | None = None, product: str = "") -> str | None:
    """A model's name on a bill without vendor, edition, release and place; with the family that only its product names.

    >>> model_name("Claude Sonnet 4.6 (Amazon Bedrock Edition)"), model_name("gpt 4o mini0718", "Microsoft")
    ('Claude Sonnet 4.6', 'gpt 4o mini')
    >>> [model_name("4.3", "Microsoft", product) for product in ("Azure Grok Models", "Azure OpenAI GPT5", "Foundry Models")]
    ['grok-4.3', 'gpt-4.3', None]
    """
    name = (raw_name or "").strip(" -_,:|")
    for spelling in table("spellings"):
        if spelling["provider"] in ("", provider) and _compiled(spelling["product"]).search(product):
            name = _compiled(spelling["pattern"]).sub(spelling["replacement"], name).strip(" -_,")
    return name or None


class Classifier:
    """Classifies bill rows; `own_rules` of the settings come before all others."""

    def __init__(self, own_rules: Sequence[SkuRule] = ()) -> None:
        self._own = [(rule, Pattern(rule.pattern) if rule.pattern else None) for rule in own_rules]

    def sold(self, words: SkuText) -> SkuClass:
        """Model, meter and tier from a usage type, a meter's name, a line item or a sentence.

        >>> classify = Classifier().sold
        >>> s = classify(SkuText("AWS", "Amazon Bedrock", sku="USE1-Claude4.6Sonnet-input-tokens", unit="1K tokens"))
        >>> s.model, s.meter, s.factor, s.service_tier, s.sku_region
        ('Claude4.6Sonnet', 'input_tokens', Decimal('1000'), 'standard', 'us-east-1')
        >>> s = classify(SkuText("AWS", "Claude Opus 5 (Amazon Bedrock Edition)", sku="USW2-MP:USW2_cache_read_tokens_global_standard-Units"))
        >>> s.model, s.meter, s.factor
        ('Claude Opus 5', 'cache_read_tokens', None)
        >>> s = classify(SkuText("OpenAI", sku="priority | gpt-5.6-sol, output, long context", unit="Tokens"))
        >>> s.model, s.meter, s.service_tier, s.context_above
        ('gpt-5.6-sol', 'output_tokens', 'priority', 272000)
        """
        for rule, pattern in self._own:
            sku_class = _match_own_rule(rule, pattern, words)
            if sku_class is not None:
                return sku_class
        nameless: SkuClass | None = None
        for text in filter(None, (words.sku, words.description)):
            for family in _families():
                sku_class = _match_family(family, text, words)
                if sku_class is not None and sku_class.sku_rule is not None:
                    return sku_class
                nameless = nameless or sku_class
        return nameless or _match_unit(words)


def _match_own_rule(rule: SkuRule, pattern: Pattern | None, words: SkuText) -> SkuClass | None:
    text = words.sku or words.description or ""
    if (rule.provider and rule.provider != words.provider) or (rule.service and rule.service != words.service):
        return None
    if rule.sku and rule.sku != text:
        return None
    groups = pattern.search(text) if pattern is not None else {}
    if groups is None:
        return None
    meter = rule.meter or meter_of(groups.get("meter") or "")
    unit_factor = unit(rule.unit) if rule.unit else _unit_factor(meter, words.unit, "")
    model = rule.model or groups.get("model") or None
    return SkuClass(
        model=model,
        **_variant(model, text, words),
        meter=meter,
        service_tier=rule.service_tier or tier_of(text) or "standard",
        context_above=rule.context_above,
        kind=unit_factor[0] if unit_factor else None,
        factor=unit_factor[1] if unit_factor else None,
        provisioned=rule.provisioned,
        sku_region=rule.region or _region(groups.get("region")),
        sku_rule=f"attribution.skus {rule.sku or rule.pattern}",
    )


def _match_family(family: _Family, text: str, words: SkuText) -> SkuClass | None:
    if family.provider and family.provider != words.provider:
        return None
    if family.service and not _compiled(family.service).search(f"{words.service or ''} {words.product or ''}"):
        return None
    match = _compiled(family.pattern).search(text)
    if match is None:
        return None
    groups = match.groupdict()
    if family.meter:
        meter = None if family.meter == "-" else family.meter
    else:
        meter = meter_of(" ".join(filter(None, (groups.get("meter"), groups.get("meter_of")))))
        if meter is None:
            return None
    model = next(_model_candidates(family, groups, words), None)
    # Tokens without a model: the SKU counts as unknown.
    nameless = model is None and meter in TOKEN_METERS and family.model != "-"
    unit_factor = _unit_factor(meter, words.unit, family.unit)
    tier = family.service_tier or groups.get("tier") or tier_of(text)
    return SkuClass(
        model=model,
        **(_variant(groups.get("model"), text, words) if model else {}),
        meter=meter,
        service_tier=tier.lower() if tier else "standard",
        context_above=_context(text, family.context_above) if model else 0,
        kind=unit_factor[0] if unit_factor else None,
        factor=unit_factor[1] if unit_factor else None,
        provisioned=family.provisioned,
        sku_region=_region(groups.get("region")),
        sku_rule=None if nameless else family.rule,
    )


_GLOBAL = re.compile(r"\bglobal\b")


def _variant(raw_model: str | None, text: str, words: SkuText) -> dict[str, str | None]:
    """Release, version and inference geography of a SKU: of its model's name, of the ARN's, of the SKU's own words. (RA-1c)

    >>> _variant("Claude3.5Sonnetv2", "USE1-Claude3.5Sonnetv2-input-tokens-cross-region-global", SkuText("AWS"))
    {'release': None, 'model_version': '2', 'geography': 'global'}
    """
    of_sku, of_arn = variant(raw_model), variant(words.model_arn)
    parts = {key: getattr(of_sku, key) or getattr(of_arn, key) for key in of_sku._fields}
    if words.provider == "AWS" and _GLOBAL.search(normalize(text)):
        parts["geography"] = "global"
    return parts


_EDITION = re.compile(r"^(?P<model>.+?)\s*\((?:Amazon Bedrock|Bedrock)[^)]*\)", re.IGNORECASE)
_NAMED = re.compile(
    r"\b((?:claude|gpt|llama|mistral|command|jamba|nova|titan|embed|rerank|palmyra|gemini|grok|qwen|kimi|glm|deepseek)\b[\w .+-]*\d[\w.-]*"
    r"(?: (?:sonnet|opus|haiku|mini|nano|pro|lite|large|small))?)",
    re.IGNORECASE,
)


def _model_candidates(family: _Family, groups: dict[str, str | None], words: SkuText) -> Iterator[str]:
    """Names of the model, the best first: in the SKU, in the product's name, in the ARN, in the description."""
    if family.model == "-":
        return
    if family.model and not family.model.startswith("@"):
        yield family.model
    product = " ".join(filter(None, (words.service, words.product, words.description)))
    if name := model_name(groups.get("model"), words.provider, product):
        yield name
    if family.model != "@service":
        return
    edition = _EDITION.match(words.service or "")
    if edition is not None and (name := model_name(edition["model"], words.provider)):
        yield name
    if words.model_arn:
        yield words.model_arn
    for text in (words.service, words.description):
        match = _NAMED.search(text or "")
        if match is not None and (name := model_name(match[1], words.provider)):
            yield name


def _unit_factor(meter: str | None, billed_unit: str | None, default: str) -> tuple[str, Decimal] | None:
    """Kind and factor of the billed unit, where it counts what the meter counts; else of the rule's unit."""
    kind = _kind(meter)
    for unit_text in (billed_unit, default):
        factor = unit(unit_text)
        if factor is not None and (kind is None or factor[0] == kind):
            return factor
    return None


_UNIT_KINDS = {
    **dict.fromkeys((m for m in METERS if m.endswith("_tokens")), "tokens"),
    **dict.fromkeys((m for m in METERS if m.endswith("_seconds") and m not in ("gb_seconds", "vcpu_seconds")), "seconds"),
    **dict.fromkeys(("seconds", "gb_seconds", "vcpu_seconds"), ""),
    **dict.fromkeys(
        ("requests", "queries", "web_searches", "grounded_prompts", "grounded_map_prompts", "file_searches", "code_sessions"),
        "requests",
    ),
    **dict.fromkeys((m for m in METERS if m.startswith("output_images")), "images"),
}
"""The kind of unit that a meter is counted in, as in `units.csv`; empty: the meter itself."""


def _kind(meter: str | None) -> str | None:
    return None if meter is None else _UNIT_KINDS.get(meter, meter) or meter


def _region(prefix: str | None) -> str | None:
    return next((row["region"] for row in table("regions") if row["prefix"] == prefix), None)


@cache
def _machines() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(row["pattern"], re.IGNORECASE) for row in table("provisioned"))


def _match_unit(words: SkuText) -> SkuClass:
    """What an unknown SKU's unit says: whether it is a machine, and whether it counts time or requests."""
    unit_factor = unit(words.unit)
    kind, factor = unit_factor or (None, None)
    return SkuClass(
        kind=kind,
        factor=factor,
        provisioned=any(pattern.search(words.sku or "") for pattern in _machines()),
        meter=kind if kind in ("seconds", "requests", "gb_seconds", "vcpu_seconds") else None,
    )
