"""The most that a call can cost, before it starts: input by bytes, output by its limit, each at the highest rate that can apply.

A byte-level tokenizer never makes more tokens than there are bytes, so bytes bound the input without counting tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rootcost_litellm.amounts import NANOS, to_nanos

REQUEST_TOKENS, MESSAGE_TOKENS, TOOL_TOKENS, TOOLS_TOKENS = 64, 16, 64, 1024
"""What providers add to a request, to each message, to each tool, and to a request with tools."""
_INPUT_FIELDS = (
    "messages", "prompt", "input", "system", "instructions", "tools", "functions", "response_format", "text", "tool_choice", "documents", "query",
)  # fmt: skip
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_MEDIA = frozenset(
    [
        "image",
        "image_url",
        "input_image",
        "input_audio",
        "audio",
        "file",
        "input_file",
        "document",
        "video",
        "video_url",
        "media",
        "image_file",
    ]
)
_STORED_CONTEXT = ("previous_response_id", "conversation", "container", "context_management", "assistant_id", "thread_id")
_ABOVE_TOKENS = re.compile(r"_above_(\d+)k_tokens")
_CHAT = frozenset({"chat", "completion", "responses", "embedding", "rerank", "moderation", ""})


class UnboundedError(ValueError):
    """Nobody can say what the call costs at most."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The bound of a call, and what of it is input (which a provider bills even if it answers nothing)."""

    nanos: int
    input_nanos: int
    input_tokens: int = 0
    output_tokens: int = 0
    output_rate: Decimal = Decimal(0)
    """Amount of one output token, times the answers asked for."""

    def tokens_for(self, nanos: int) -> int:
        """How many output tokens an amount pays for beside the input; 0 if not even one."""
        if self.output_rate <= 0:
            return self.output_tokens
        return max(0, int((Decimal(nanos - self.input_nanos) / NANOS) / self.output_rate))


@dataclass(frozen=True)
class PriceBook:
    """Rates by model: `models` are entries of LiteLLM's cost map, `bounds` amounts for one call where nothing else can be known."""

    models: Mapping[str, Mapping[str, Any]]
    bounds: Mapping[str, int] = field(default_factory=dict)

    def entry(self, model: str) -> Mapping[str, Any] | None:
        """The entry of a model, with or without its provider's name in front."""
        for name in (model, model.partition("/")[2], model.rpartition("/")[2]):
            if name and name in self.models:
                return self.models[name]
        return None

    def worst_case(self, model: str, body: Mapping[str, Any], call_type: str = "") -> WorstCase:
        """The bound of one call of a model. Raises `UnboundedError` if there is none."""
        if model in self.bounds:
            return WorstCase(self.bounds[model], 0)
        entry = self.entry(model)
        mode = str((entry or {}).get("mode", ""))
        if mode == "image_generation" or "image" in call_type:
            return self._images(model, entry, body)
        if entry is None:
            raise UnboundedError(
                f"the model {model!r} has no price: add one to the proxy's cost map, or a bound for it to the budget file"
            )
        if mode not in _CHAT:
            raise UnboundedError(f"calls of {model!r} ({mode}) are not sold by the token: add a bound for it to the budget file")
        return _tokens(model, entry, body, mode)

    def _images(self, model: str, entry: Mapping[str, Any] | None, body: Mapping[str, Any]) -> WorstCase:
        """Images by the dearest size and quality that the map has for the model."""
        suffix = f"/{model.rpartition('/')[2]}"
        entries = [*([entry] if entry else []), *(value for name, value in self.models.items() if name.endswith(suffix))]
        pixels = Decimal(4096 * 4096 if not isinstance(body.get("size"), str) else _pixels(body["size"]))
        rates = [
            _decimal(e[key])
            for e in entries
            for key in e
            if key.startswith(("output_cost_per_image", "input_cost_per_image")) and not key.endswith("token")
        ]
        rates += [
            _decimal(e[key]) * pixels for e in entries for key in ("input_cost_per_pixel", "output_cost_per_pixel") if key in e
        ]
        if not any(rates):
            raise UnboundedError(f"images of {model!r} have no price by image or pixel: add a bound for it to the budget file")
        nanos = to_nanos(max(rates) * _count(body.get("n")))
        return WorstCase(nanos, nanos)


def _tokens(model: str, entry: Mapping[str, Any], body: Mapping[str, Any], mode: str) -> WorstCase:
    text = _Text()
    for name in _INPUT_FIELDS:
        if body.get(name) is not None:
            text.add(body[name])
    tools = [*(body.get("tools") or ()), *(body.get("functions") or ())]
    tokens = (
        text.bytes
        + REQUEST_TOKENS
        + MESSAGE_TOKENS * len(_list(body.get("messages")))
        + TOOL_TOKENS * len(tools)
        + (TOOLS_TOKENS if tools else 0)
    )
    served = [tool for tool in tools if isinstance(tool, Mapping) and tool.get("type") not in (None, "function", "custom")]
    unseen = text.media or served or body.get("web_search_options") or any(body.get(name) for name in _STORED_CONTEXT)
    largest = int(entry.get("max_input_tokens") or entry.get("max_tokens") or 0)
    if unseen and not largest:
        raise UnboundedError(
            f"the input of this call is not all in the request, and {model!r} has no known limit: add a bound for it"
        )
    input_tokens = largest if unseen else min(tokens, largest or tokens)
    answers = _count(body.get("n")) * max(1, _count(body.get("best_of")))
    output_tokens = 0 if mode in ("embedding", "rerank", "moderation") else _output_limit(model, entry, body)
    input_rate = _highest(entry, "input", input_tokens, body, text)
    output_rate = _highest(entry, "output", input_tokens, body, text) * answers
    fees = (
        sum(_fees(entry, served, body), Decimal(0))
        + _decimal(entry.get("input_cost_per_request") or 0)
        + _decimal(entry.get("input_cost_per_query") or 0)
    )
    input_cost = input_rate * input_tokens + fees
    return WorstCase(
        to_nanos(input_cost + output_rate * output_tokens), to_nanos(input_cost), input_tokens, output_tokens, output_rate
    )


@dataclass
class _Text:
    """What a request says: its bytes, and whether it holds media whose tokens are no text."""

    bytes: int = 0
    media: bool = False
    audio: bool = False
    cached_hour: bool = False

    def add(self, value: Any) -> None:
        """Counts a value and what is in it."""
        if isinstance(value, str):
            self.bytes += len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        elif isinstance(value, Mapping):
            kind = value.get("type")
            if isinstance(kind, str) and kind in _MEDIA and kind != "text":
                self.media = True
                self.audio = self.audio or "audio" in kind
                return
            self.cached_hour = self.cached_hour or value.get("ttl") == "1h"
            for name, item in value.items():
                self.bytes += len(str(name)) + 4
                self.add(item)
        elif isinstance(value, Sequence):
            for item in value:
                self.bytes += 2
                self.add(item)
        else:
            self.bytes += len(str(value))


def _output_limit(model: str, entry: Mapping[str, Any], body: Mapping[str, Any]) -> int:
    """The largest answer: the highest limit that the request states, else the model's own. What is no positive integer states nothing."""
    stated = [
        limit
        for limit in (body.get(name) for name in _LIMITS)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    ]
    own = entry.get("max_output_tokens") or entry.get("max_tokens")
    if stated:
        return min(max(stated), int(own)) if own else max(stated)
    if not own:
        raise UnboundedError(
            f"{model!r} has no known limit of its answers: state max_tokens, or add a bound for it to the budget file"
        )
    return int(own)


def _highest(entry: Mapping[str, Any], direction: str, tokens: int, body: Mapping[str, Any], text: _Text) -> Decimal:
    """The highest rate of a token that can apply to this request."""
    tables = [entry, *(tier for tier in entry.get("tiered_pricing") or () if isinstance(tier, Mapping))]
    tier = str(body.get("service_tier") or "default")
    rates = [
        _decimal(value)
        for table in tables
        for name, value in table.items()
        if isinstance(value, int | float) and _applies(name, direction, tokens, tier, text)
    ]
    return max(rates, default=Decimal(0))


def _applies(name: str, direction: str, tokens: int, tier: str, text: _Text) -> bool:
    prefixes = (
        ("output_cost_per_",) if direction == "output" else ("input_cost_per_", "cache_creation_input_", "cache_read_input_")
    )
    if not name.startswith(prefixes) or "token" not in name or name.endswith(("_batches", "_flex")):
        return False
    if ("audio" in name and not text.audio) or ("image" in name and not text.media) or "video" in name:
        return False
    if "_above_1hr" in name and not text.cached_hour:
        return False
    if name.endswith(("_priority", "_ultrafast", "_balanced", "_decisions")) and tier in (
        "default",
        "standard",
        "flex",
        "standard_only",
    ):
        return False
    above = _ABOVE_TOKENS.search(name)
    return above is None or tokens > int(above.group(1)) * 1000


def _fees(entry: Mapping[str, Any], served: Sequence[Any], body: Mapping[str, Any]) -> Iterator[Decimal]:
    """What tools of the provider cost beside tokens."""
    by_size = entry.get("search_context_cost_per_query")
    search = (
        max((_decimal(rate) for rate in by_size.values()), default=Decimal(0))
        if isinstance(by_size, Mapping)
        else Decimal("0.05")
    )
    for tool in served:
        uses = tool.get("max_uses")
        yield search * (uses if isinstance(uses, int) and uses > 0 else 10)
    if body.get("web_search_options") is not None:
        yield search * 10


def _pixels(size: str) -> int:
    sides = [int(side) for side in re.findall(r"\d+", size)[:2]]
    return sides[0] * sides[1] if len(sides) == 2 and all(sides) else 4096 * 4096


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _decimal(value: Any) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(str(value))
