"""The bound of a call: never below what it can cost, and a clear answer where there is none."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rootcost_litellm.amounts import from_nanos, money, to_nanos
from rootcost_litellm.worst_case import PriceBook, UnboundedError

MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "mode": "chat",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        "output_cost_per_token_priority": 8e-06,
        "max_input_tokens": 1000,
        "max_output_tokens": 500,
    },
    "cached": {
        "mode": "chat",
        "input_cost_per_token": 1e-06,
        "cache_creation_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_1hr": 2e-06,
        "input_cost_per_token_above_200k_tokens": 5e-06,
        "output_cost_per_token": 0.0,
        "max_tokens": 10,
        "max_input_tokens": 1_000_000,
    },
    "openai/embedding": {"mode": "embedding", "input_cost_per_token": 1e-07, "max_input_tokens": 8191},
    "picture": {"mode": "image_generation", "output_cost_per_image": 0.04},
    "voice": {"mode": "audio_speech", "input_cost_per_character": 1e-05},
    "endless": {"mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
}
BOOK = PriceBook(MODELS, {"voice-with-bound": to_nanos("0.5")})


def chat(content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


def dollars(model: str, body: dict[str, Any], call_type: str = "") -> Decimal:
    return from_nanos(BOOK.worst_case(model, body, call_type).nanos)


def test_output_is_bound_by_the_request_or_by_the_model() -> None:
    assert BOOK.worst_case("small", chat(max_tokens=100)).output_tokens == 100
    assert BOOK.worst_case("small", chat()).output_tokens == 500
    assert BOOK.worst_case("small", chat(max_tokens=10, max_completion_tokens=90)).output_tokens == 90
    assert BOOK.worst_case("small", chat(max_tokens=9000)).output_tokens == 500
    assert dollars("small", chat(max_tokens=100, n=3)) - dollars("small", chat(max_tokens=100)) == Decimal("0.0004")


@pytest.mark.parametrize("lie", [0, -5, "7", 1.5, True, None])
def test_a_limit_that_is_none_is_not_believed(lie: Any) -> None:
    assert BOOK.worst_case("small", chat(max_tokens=lie)).output_tokens == 500


def test_input_is_bound_by_bytes_and_by_what_the_model_takes() -> None:
    empty = BOOK.worst_case("small", chat("")).input_tokens
    assert BOOK.worst_case("small", chat("a" * 200)).input_tokens == empty + 200
    assert BOOK.worst_case("small", chat("ü" * 100)).input_tokens == empty + 200
    assert BOOK.worst_case("small", chat("a" * 10_000)).input_tokens == 1000


def test_media_and_context_that_the_provider_keeps_count_as_all_that_the_model_takes() -> None:
    picture = chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
    assert BOOK.worst_case("small", picture).input_tokens == 1000
    assert BOOK.worst_case("small", {"input": "x", "previous_response_id": "resp_1"}).input_tokens == 1000
    with pytest.raises(UnboundedError, match="not all in the request"):
        BOOK.worst_case("endless", {"input": "x", "previous_response_id": "resp_1", "max_output_tokens": 5})


def test_the_highest_rate_that_can_apply_is_taken() -> None:
    tokens = BOOK.worst_case("cached", chat("a" * 1000)).input_tokens
    assert dollars("cached", chat("a" * 1000)) == Decimal("0.00000125") * tokens
    marked_chat = chat([{"type": "text", "text": "a" * 1000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    assert dollars("cached", marked_chat) == Decimal("0.000002") * BOOK.worst_case("cached", marked_chat).input_tokens
    long = BOOK.worst_case("cached", chat("a" * 300_000))
    assert from_nanos(long.nanos) == Decimal("0.000005") * long.input_tokens
    assert dollars("small", chat(max_tokens=100, service_tier="priority")) - dollars("small", chat(max_tokens=100)) == Decimal(
        "0.0006"
    )


def test_images_embeddings_and_bounds_of_ones_own() -> None:
    assert dollars("picture", {"prompt": "x", "n": 3}, "image_generation") == Decimal("0.12")
    assert BOOK.worst_case("openai/small", chat()) == BOOK.worst_case("small", chat())
    assert BOOK.worst_case("openai/embedding", {"input": "abc"}).output_tokens == 0
    assert dollars("voice-with-bound", {"input": "x"}) == Decimal("0.5")


@pytest.mark.parametrize(
    ("model", "reason"), [("unheard", "has no price"), ("voice", "not sold by the token"), ("endless", "no known limit")]
)
def test_what_has_no_bound_says_so(model: str, reason: str) -> None:
    with pytest.raises(UnboundedError, match=reason):
        BOOK.worst_case(model, chat())


def test_how_many_tokens_an_amount_pays_for() -> None:
    worst = BOOK.worst_case("small", chat(max_tokens=100))
    assert worst.tokens_for(worst.nanos) == 100
    assert worst.tokens_for(worst.nanos - 1) == 99
    assert worst.tokens_for(0) == 0


def test_amounts_are_rounded_up_and_shown_with_their_currency() -> None:
    assert (to_nanos(1e-10), to_nanos("12.5"), to_nanos(0.0025)) == (1, 12_500_000_000, 2_500_000)
    assert money(to_nanos("1234.5"), "EUR") == "EUR 1,234.50"
    for wrong in ("a lot", "NaN", "Infinity"):
        with pytest.raises(ValueError, match="is not an amount"):
            to_nanos(wrong)
