"""What LiteLLM itself says a case costs: its own functions, asked one call at a time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tests.support.pricing_cases import Case

litellm: Any = import_module("litellm")
cost_calculator: Any = import_module("litellm.cost_calculator")
cost_utils: Any = import_module("litellm.litellm_core_utils.llm_cost_calc.utils")
tools: Any = import_module("litellm.litellm_core_utils.llm_cost_calc.tool_call_cost_tracking")
ocr: Any = import_module("litellm.llms.base_llm.ocr.transformation")
search: Any = import_module("litellm.search.cost_calculator")
responses: Any = import_module("litellm.types.llms.openai")
types: Any = import_module("litellm.types.utils")
litellm.suppress_debug_info = True
_ASKS_THE_NETWORK = {"github_copilot", "chatgpt"}
"""Naming these providers would sign in to them."""


def provider(model: str, entry: Mapping[str, Any]) -> str:
    """The provider LiteLLM would call for a model; where it knows none, the one the map names."""
    listed = str(entry["litellm_provider"])
    if listed in _ASKS_THE_NETWORK:
        return listed
    try:
        return str(litellm.get_llm_provider(model=model)[1])
    except litellm.BadRequestError:
        return listed


_UNITS = {
    "input_characters": "character_count",
    "input_images": "image_count",
    "input_video_seconds": "video_length_seconds",
    "input_audio_seconds": "audio_length_seconds",
}


def usage(case: Case) -> Any:
    """The case's tokens as LiteLLM carries them: input with what was cached, output with reasoning."""
    call, other = case.call, case.call.get("other", {})
    hour, short = call.get("cache_write_1h_tokens", 0), call.get("cache_write_5m_tokens", 0)
    details: dict[str, Any] = {
        "cached_tokens": call.get("cache_read_tokens", 0),
        "audio_tokens": call.get("input_audio_tokens", 0),
        "image_tokens": call.get("input_image_tokens", 0),
        "video_tokens": other.get("input_video_tokens", 0),
    }
    for meter, name in _UNITS.items():
        if meter in other:
            details |= {name: other[meter], "text_tokens": call.get("input_tokens", 0)}
    if hour or short:
        details["cache_creation_tokens"] = hour + short
        details["cache_creation_token_details"] = types.CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=short, ephemeral_1h_input_tokens=hour
        )
    if "searches" in case.asked:
        details["web_search_requests"] = case.asked["searches"]
    if "maps" in case.asked:
        details["google_maps_grounding_requests"] = case.asked["maps"]
    prompt, made = call.get("input_tokens", 0), call.get("output_tokens", 0)
    told = types.Usage(
        prompt_tokens=prompt,
        completion_tokens=made,
        total_tokens=prompt + made,
        prompt_tokens_details=types.PromptTokensDetailsWrapper(**details),
        completion_tokens_details=types.CompletionTokensDetailsWrapper(
            reasoning_tokens=call.get("reasoning_tokens", 0),
            audio_tokens=call.get("output_audio_tokens", 0),
            image_tokens=call.get("output_image_tokens", 0),
        ),
    )
    for name, key in (("inference_geo", "inference_geo"), ("speed", "speed"), ("citation_tokens", "citations")):
        if key in case.asked:
            setattr(told, name, case.asked[key])
    if "searches" in case.asked:
        told.server_tool_use = types.ServerToolUse(web_search_requests=case.asked["searches"])
        told.server_side_tool_usage_details = {"web_search_calls": case.asked["searches"]}
    return told


def cost(case: Case, custom_provider: str, entry: dict[str, Any]) -> float:
    """Dollars."""
    return float(_cost(case, custom_provider, entry))


def _cost(case: Case, custom_provider: str, entry: dict[str, Any]) -> Any:
    cost_utils.current_billing_time = lambda: case.call["start_time"]
    kind, asked = case.kind.split()[0], case.asked
    bare = case.model.removeprefix(f"{custom_provider}/")
    if kind == "pictures":
        return _pictures(case, custom_provider)
    if kind == "transcript":
        return sum(cost_calculator.transcription_cost(model=bare, custom_llm_provider=custom_provider, duration=asked["seconds"]))
    if kind == "speech":
        given = {"prompt_characters": asked["characters"], "call_type": "speech", "custom_llm_provider": custom_provider}
        return sum(litellm.cost_per_token(model=case.model, **given))
    if kind == "video":
        return cost_calculator.default_video_cost_calculator(
            model=case.model,
            duration_seconds=asked["seconds"],
            custom_llm_provider=custom_provider,
            video_resolution=asked["resolution"],
        )
    if kind == "queries" and entry["mode"] == "search":
        many = {"max_results": asked["results"]} if "results" in asked else None
        return sum(search.search_provider_cost_per_query(case.model, custom_provider, asked["queries"], many))
    if kind == "queries":
        return sum(
            cost_calculator.rerank_cost(
                model=case.model, custom_llm_provider=custom_provider, billed_units={"search_units": asked["queries"]}
            )
        )
    if kind in ("pages", "credits"):
        told = ocr.OCRUsageInfo(
            pages_processed=asked.get("pages"), pages_processed_annotation=asked.get("annotated"), credits=asked.get("credits")
        )
        if case.call.get("service_tier") == "batch":
            return sum(cost_calculator.ocr_batch_cost(model=bare, custom_llm_provider=custom_provider, usage_info=told))
        return sum(
            cost_calculator.ocr_cost(case.model, custom_provider, ocr.OCRResponse(pages=[], model=case.model, usage_info=told))
        )
    return _tokens(case, custom_provider, entry)


def _pictures(case: Case, custom_provider: str) -> Any:
    """Some names of the map say quality and size before the model; LiteLLM wants them apart."""
    asked, name = case.asked, case.model.removeprefix(f"{custom_provider}/")
    if custom_provider in ("vertex_ai", "gemini"):
        drawn = types.ImageResponse(data=[types.ImageObject(url="drawn")] * asked["pictures"])
        return cost_utils.CostCalculatorUtils.route_image_generation_cost_calculator(
            model=name, completion_response=drawn, custom_llm_provider=custom_provider, n=asked["pictures"]
        )
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if part == asked["size"]), 0)
    if at and custom_provider == "openai":
        return cost_calculator.default_image_cost_calculator(
            model="/".join(parts[at + 1 :]),
            custom_llm_provider=custom_provider,
            quality="/".join(parts[:at]),
            n=asked["pictures"],
            size=asked["size"],
        )
    return cost_calculator.default_image_cost_calculator(model=case.model, n=asked["pictures"], size=asked["size"])


def _routed(model: str, custom_provider: str) -> bool:
    if custom_provider in _ASKS_THE_NETWORK:
        return False
    try:
        litellm.get_model_info(model=model, custom_llm_provider=custom_provider)
        litellm.get_llm_provider(model=model, custom_llm_provider=custom_provider)
    except (litellm.ModelNotMappedError, litellm.BadRequestError):
        return False
    return True


def _tokens(case: Case, custom_provider: str, entry: dict[str, Any]) -> Any:
    tier = case.call.get("service_tier")
    told = usage(case)
    given: dict[str, Any] = {"service_tier": None if "speed" in case.asked or tier in ("batch", "default") else tier}
    given |= {name: case.asked[name] for name in ("data_residency", "vertex_location") if name in case.asked}
    call_type = "aretrieve_batch" if tier == "batch" else "aembedding" if entry.get("mode") == "embedding" else "acompletion"
    if _routed(case.model, custom_provider):
        total = sum(
            litellm.cost_per_token(
                model=case.model, custom_llm_provider=custom_provider, usage_object=told, call_type=call_type, **given
            )
        )
    else:  # In the map, but LiteLLM cannot route to it: its calculators take the entry itself.
        if tier == "batch":
            total = sum(cost_calculator.batch_cost_calculator(told, case.model, "openai", model_info=entry))
        else:
            total = sum(cost_utils.generic_cost_per_token(case.model, told, custom_provider, model_info=entry, **given))
    if "searches" in case.asked or "maps" in case.asked:
        # Where usage has no count of its own, LiteLLM counts the searches among the items of the answer.
        counted = custom_provider.startswith(("gemini", "vertex_ai", "anthropic", "xai", "groq"))
        searches = [{"type": "web_search_call"}] * case.asked.get("searches", 0)
        response = None if counted else responses.ResponsesAPIResponse.model_construct(output=searches)
        total += tools.StandardBuiltInToolCostTracking.get_cost_for_built_in_tools(
            model=case.model, response_object=response, usage=told, custom_llm_provider=custom_provider
        )
    return total
