"""Budgets that hold inside a LiteLLM proxy: ``callbacks: [rootcost_litellm.budget]`` in its configuration."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`budget` is the plug-in's instance; LiteLLM is imported when the proxy asks for it, and not before."""
    if name == "budget":
        from rootcost_litellm.hook import hook_of_environment

        globals()["budget"] = hook = hook_of_environment()
        return hook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
