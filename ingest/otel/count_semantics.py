"""How an emitter counts: whether its input includes cached tokens and its output reasoning tokens. (CA-5)

What the record carries decides before the emitter table does: the provider's own usage beside the emitter's; then a total that the
emitter passes on from the provider. The table, by version, decides what is left; where the counts contradict it, nothing does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ingest.otel.emitters import PROVIDER_USAGE, Emitter, Target

Chosen = Mapping[str, tuple[Any, Target | None]]
"""The value of each column, and the attribute it was read from."""
PROVIDER = "provider"
"""The value of `spans.count_evidence` where the provider's own usage decided."""


class CountSemantics(NamedTuple):
    """Columns of one span: see `spans.input_includes_cache` and its neighbours in `ledger.tables`."""

    input_includes_cache: bool | None
    output_includes_reasoning: bool | None
    count_evidence: str | None
    count_contradiction: bool | None


def count_semantics(emitter: Emitter, chosen: Chosen, model: str | None) -> CountSemantics:
    """How the counts of one span are read. (CA-5)"""
    tokens = {slot: value for slot, (value, _) in chosen.items() if isinstance(value, int)}
    cached_tokens = tokens.get("cache_read_tokens", 0) + max(
        tokens.get("cache_write_tokens", 0), tokens.get("cache_write_5m_tokens", 0) + tokens.get("cache_write_1h_tokens", 0)
    )
    reasoning = tokens.get("reasoning_tokens", 0)
    table_input = _table_claim(chosen.get("input_tokens"), emitter.includes_cache(model))
    table_output = _table_claim(chosen.get("output_tokens"), emitter.output_includes_reasoning)
    provider_input = provider_reading(tokens, "input", cached_tokens) if cached_tokens else None
    provider_output = provider_reading(tokens, "output", reasoning) if reasoning else None
    if emitter.passes_on_total and _is_plain_total(tokens):
        table_input = True if 0 < cached_tokens <= tokens.get("input_tokens", 0) else table_input
        table_output = True if 0 < reasoning <= tokens.get("output_tokens", 0) else table_output
    includes_cache = table_input if provider_input is None else provider_input
    includes_reasoning = table_output if provider_output is None else provider_output
    if includes_cache and tokens.get("input_tokens", 0) < cached_tokens:
        includes_cache = None
    if includes_reasoning and tokens.get("output_tokens", 0) < reasoning:
        includes_reasoning = None
    contradiction = (table_input is not None and includes_cache is (not table_input)) or (
        table_output is not None and includes_reasoning is (not table_output)
    )
    open_sides = {
        "input": cached_tokens > 0 and "input_tokens" in tokens and provider_input is None,
        "output": reasoning > 0 and "output_tokens" in tokens and provider_output is None,
    }
    evidence = _evidence(provider_input is not None, provider_output is not None, open_sides)
    return CountSemantics(
        includes_cache if "input_tokens" in tokens else None,
        includes_reasoning if "output_tokens" in tokens else None,
        evidence,
        True if contradiction else None,
    )


def _evidence(decides_input: bool, decides_output: bool, open_sides: Mapping[str, bool]) -> str | None:
    """`spans.count_evidence`: provider, with the side where the other one has parts that the provider's usage does not decide.

    >>> _evidence(True, False, {"input": False, "output": True}), _evidence(True, False, {"input": False, "output": False})
    ('provider_input', 'provider')
    """
    if not (decides_input or decides_output):
        return None
    if decides_input and open_sides["output"]:
        return f"{PROVIDER}_input"
    return f"{PROVIDER}_output" if open_sides["input"] else PROVIDER


def provider_reading(tokens: Mapping[str, int], side: str, part: int) -> bool | None:
    """Whether the emitter's count of a side includes its part, by the provider's own count; None where that does not say.

    Anthropic's own 12 tokens beside 5 000 from the cache, and an emitter that writes 5 012; then one that writes another number:

    >>> provider_reading({"input_tokens": 5012, "provider.input_exclusive": 12}, "input", 5000)
    True
    >>> provider_reading({"input_tokens": 700, "provider.input_exclusive": 12}, "input", 5000) is None
    True
    """
    count = tokens.get(f"{side}_tokens")
    exclusive = tokens.get(f"{PROVIDER_USAGE}{side}_exclusive")
    inclusive = tokens.get(f"{PROVIDER_USAGE}{side}_inclusive")
    if count is None or (exclusive is None and inclusive is None):
        return None
    if exclusive is None:
        exclusive = (inclusive or 0) - part
    return {exclusive: False, exclusive + part: True}.get(count)


def _table_claim(entry: tuple[Any, Target | None] | None, default: bool | None) -> bool | None:
    if entry is None or entry[1] is None:
        return None
    return default if entry[1].by_default else entry[1].includes


def _is_plain_total(tokens: Mapping[str, int]) -> bool:
    total = tokens.get("total_tokens")
    return total is not None and total == tokens.get("input_tokens", 0) + tokens.get("output_tokens", 0)
