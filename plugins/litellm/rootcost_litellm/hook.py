"""The plug-in of a LiteLLM proxy: ``litellm_settings: {callbacks: [rootcost_litellm.budget]}``.

A call is committed from `async_log_success_event` and released from `async_post_call_failure_hook` alone: the log of a failed attempt says
nothing about the call, since the router goes on. Streams that a client leaves are seen by the iterator's `finally`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import litellm
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException

from rootcost_litellm.amounts import to_nanos
from rootcost_litellm.budgets import AUTHENTICATED, Caller
from rootcost_litellm.gate import Call, Gate, RefusedError
from rootcost_litellm.setup import gate_of_file

logger = logging.getLogger("rootcost_litellm")

CALL: ContextVar[Call | None] = ContextVar("rootcost_call", default=None)
"""The call of this request: what is set in the first hook is seen by every later one, where ids and metadata get lost."""

_UNKNOWN_END = frozenset({"408", "499", "504"})
_LATE_SECONDS = 5.0
"""How long after a client left its log may still come."""
BATCH = "batch"
"""The name under which `bounds` says what a batch may cost: its cost is known hours later."""
_UNPRICED = frozenset(
    {
        "acreate_file",
        "afile_list",
        "afile_content",
        "afile_delete",
        "afile_retrieve",
        "alist_batches",
        "aretrieve_batch",
        "acancel_batch",
    }
)


class BudgetHook(CustomLogger):
    """Holds each call's worst case before it starts."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Admits a call or refuses it with 402."""
        earlier = CALL.get()
        if earlier is not None:  # the proxy tries a fallback after another hook refused: the first call was never sent
            self.gate.leave(earlier) if earlier.sent else self.gate.release(earlier)
            CALL.set(None)
        model = BATCH if str(call_type) == "acreate_batch" else str(data.get("model") or "")
        if str(call_type) in _UNPRICED or not model:
            return data
        try:
            CALL.set(await self.gate.admit(caller_of(user_api_key_dict, data), model, data, str(call_type)))
        except RefusedError as refusal:
            raise _refused(refusal) from refusal
        return data

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        """Before each attempt, retries and fallbacks included, with the provider's model."""
        call = CALL.get()
        if call is None:
            return None
        model = str(kwargs.get("model") or "")
        try:
            await self.gate.attempt(call, model if self.gate.book.entry(model) else "", kwargs)
        except RefusedError as refusal:
            raise HTTPException(refusal.status, refusal.message) from refusal
        return None

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """After a failed attempt: the router may go on."""
        call = CALL.get()
        if call is not None:
            self.gate.attempt_failed(call, may_be_billed=_may_be_billed(exception))

    async def async_log_success_event(self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Books what a call cost. Comes after the client has its answer, also for streams and for answers from a cache."""
        call = CALL.get()
        if call is None:
            return
        payload = kwargs.get("standard_logging_object") or {}
        cost = payload.get("response_cost") if payload else kwargs.get("response_cost")
        if (payload.get("metadata") or {}).get("client_disconnected") or _client_left(kwargs):
            self.gate.leave(call)  # the cost is a guess at what was delivered; the provider bills what it generated
        elif cost:
            self.gate.commit(call, to_nanos(cost))
        elif payload.get("cache_hit") or kwargs.get("cache_hit"):
            self.gate.commit(call, 0)
        elif (
            call.worst.output_tokens == 0
            and call.worst.input_tokens == 0
            and call.worst.nanos
            and call.worst.nanos == call.worst.input_nanos
        ):
            self.gate.commit(call, call.worst.nanos)  # images: sold by the piece, and LiteLLM says nothing
        else:
            self.gate.leave(call) if call.worst.nanos else self.gate.commit(call, 0)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """The end of a call that failed, after all attempts."""
        call = CALL.get()
        if call is None:
            return
        cost = (request_data.get("standard_logging_object") or {}).get("response_cost")
        if cost:
            self.gate.commit(call, to_nanos(cost))
        elif call.sent and (call.streams or _may_be_billed(original_exception)):
            self.gate.leave(call)
        else:
            self.gate.release(call)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Passes a stream on; if the client leaves it and no log comes, what it cost is uncertain."""
        call, whole = CALL.get(), False
        if call is not None:
            call.streams = True
        try:
            async for chunk in response:
                yield chunk
            whole = True
        finally:
            if call is not None and not whole:
                asyncio.get_running_loop().call_later(_LATE_SECONDS, self.gate.leave, call)

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **_: Any
    ) -> dict[str, str] | None:
        """Tells the client what a budget changed."""
        call = CALL.get()
        return dict(call.notes) if call is not None and call.notes else None


def caller_of(key: Any, data: Mapping[str, Any]) -> Caller:
    """Who calls. Names come from the key that the gateway authenticated; tags, customer and chain are what the request says."""
    metadata = getattr(key, "metadata", None) or {}
    fields = {
        "organisation": ("org_id", "organization_alias"),
        "team": ("team_id", "team_alias"),
        "agent": ("agent_id",),
        "key": ("api_key", "token", "key_alias", "key_name"),
        "user": ("user_id", "user_email"),
    }
    names = {kind: {str(value) for name in fields.get(kind, ()) if (value := getattr(key, name, None))} for kind in AUTHENTICATED}
    for kind in AUTHENTICATED:
        if isinstance(metadata.get(kind), str):
            names[kind].add(metadata[kind])
    request = data.get("metadata") or {}
    request = {**request, **(data.get("litellm_metadata") or {})} if isinstance(request, Mapping) else {}
    tags = request.get("tags")
    headers = (data.get("proxy_server_request") or {}).get("headers") or {}
    claimed = {
        "tag": frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset(),
        "customer": frozenset({str(end_user)} if (end_user := getattr(key, "end_user_id", None)) else ()),
    }
    chain = (
        request.get("session_id")
        or data.get("litellm_session_id")
        or str(headers.get("traceparent", "")).partition("-")[2].partition("-")[0]
    )
    models = {str(model) for model in getattr(key, "models", None) or ()} - {"all-proxy-models", "all-team-models", "*"}
    return Caller(
        {**{kind: frozenset(values) for kind, values in names.items()}, **claimed},
        str(chain or "")[:128],
        str(data.get("model") or ""),
        frozenset(models),
    )


def deployments(model: str) -> Sequence[str]:
    """What a name stands for in the proxy's router, as the cost map knows it: deployments with prices of their own by their id."""
    from litellm.proxy.proxy_server import llm_router

    names = []
    for deployment in (llm_router.get_model_list(model_name=model) or ()) if llm_router is not None else ():
        details = deployment.get("model_info") or {}
        own_price = any("cost_per" in name and value is not None for name, value in details.items())
        names.append(
            str(
                details["id"]
                if own_price and "id" in details
                else details.get("base_model") or deployment["litellm_params"]["model"]
            )
        )
    return tuple(dict.fromkeys(names)) or (model,)


def hook_of_environment() -> BudgetHook:
    """The plug-in with the budgets of the ledger at ROOTCOST_URL, of the file that ROOTCOST_BUDGETS names, or of both.

    Raises `BudgetFileError`, which ends the start of the proxy.
    """
    name = os.environ.get("ROOTCOST_BUDGETS") or ("" if os.environ.get("ROOTCOST_URL") else "rootcost-budgets.yaml")
    gate = gate_of_file(Path(name) if name else None, litellm.model_cost, os.environ)
    gate.models_of = deployments
    return BudgetHook(gate)


def _client_left(kwargs: Mapping[str, Any]) -> bool:
    parameters = kwargs.get("litellm_params") or {}
    return any((parameters.get(name) or {}).get("client_disconnected") for name in ("metadata", "litellm_metadata"))


def _may_be_billed(error: Exception) -> bool:
    code = str(getattr(error, "status_code", None) or getattr(error, "code", None) or "")
    return code in _UNKNOWN_END or isinstance(error, asyncio.CancelledError | TimeoutError) or "Timeout" in type(error).__name__


def _refused(refusal: RefusedError) -> ProxyException:
    headers = {"x-should-retry": "false"}
    return ProxyException(message=refusal.message, type=refusal.kind, param="budget", code=refusal.status, headers=headers)
