"""Arguments of tools: dropped as content, but for two bytes of their hash, which show a tool called with the same ones again and again."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

ARGUMENTS: Final = frozenset(
    {"gen_ai.tool.call.arguments", "gcp.vertex.agent.tool_call_args", "tool.parameters", "tool_arguments", "ai.toolCall.args"}
)
"""Attributes that hold what a tool was called with; `attributes.csv` calls them content."""
DIGEST: Final = "rootcost.tool.arguments_digest"
"""The attribute that takes their place."""
_BYTES: Final = 2
"""Few, so that nobody learns arguments by trying which ones have this hash: one in 65,536 of all texts has it."""


def arguments_digest(arguments: Any) -> str:
    """Short hash of a value as protobuf or JSON gives it.

    >>> arguments_digest('{"city": "Oslo"}') == arguments_digest('{"city": "Oslo"}'), len(arguments_digest({"city": "Oslo"}))
    (True, 4)
    """
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_BYTES).hexdigest()
