"""Sessions of OpenCode as rows of `spans`: one for the session, and one for each request to a model.

What OpenCode writes, in any of its forms (see `records`):

* A session names the one that started it (``parentID``), if it is a sub-agent's.
* An assistant's message has model, provider, agent, and the tokens of its last request; its ``cost`` is the sum over its requests. Each
  request is a part of the message, ``step-finish``, with tokens and cost of its own. The last of them is the message itself, however it is read.
* ``input`` leaves out what was read from and written to a cache. ``output`` has reasoning in it in older versions and not in newer: the total
  says which, where there is one; else that is unknown.
* A fork begins with copies of the messages before it, under new ids, older than itself.
* ``cost`` is OpenCode's own estimate from a public price list, 0 where it has no price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ingest.logs.json_fields import FieldError, count, decimal, instant, rate, text
from ingest.logs.rows import Row, trace_position
from ingest.logs.session_files import raise_error
from ingest.otel.trace_stores import mapping, sequence
from ledger import ids

CHANNEL = "opencode"
AGENT = "opencode"
_REMEDY = "leave the session as OpenCode writes it"
_OVERHEAD = frozenset({"title", "summary", "compaction"})
"""Agents of OpenCode that work for the session and not for its user."""


@dataclass(slots=True)
class Sessions:
    """Collects what one file holds: sessions, messages, and the requests within messages."""

    _sessions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _messages: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    _steps: dict[str, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)

    def add(self, value: object, place: str) -> bool:
        """Adds a session, a message, a part, or an export of all three; False for anything else."""
        record = mapping(value)
        key = text(record.get("id"))
        if isinstance(record.get("messages"), list) and "info" in record:
            self.add(record.get("info"), place)
            for number, inner in enumerate(record["messages"], 1):
                message_place = f"{place}, message {number}"
                self.add(mapping(inner).get("info"), message_place)
                for part in sequence(mapping(inner).get("parts")):
                    self.add(part, message_place)
        elif key and text(record.get("messageID")):
            if record.get("type") == "step-finish":
                self._steps.setdefault(str(text(record["messageID"])), []).append((key, record))
        elif key and text(record.get("sessionID")) and "role" in record:
            self._messages[key] = (place, record)
        elif key and "time" in record and ("projectID" in record or "directory" in record):
            self._sessions[key] = record
        else:
            return False
        return True

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it, which raises `FieldError` where a count is invalid."""
        agents = {str(text(m.get("sessionID"))): text(m.get("agent")) or text(m.get("mode")) for _, m in self._messages.values()}
        for session, record in self._sessions.items():
            yield f"session {session}", partial(_session, session, record, agents.get(session))
        for key, (place, message) in self._messages.items():
            if message.get("role") == "assistant" and not self._is_copy(message):
                yield from self._requests(key, place, message)

    def _is_copy(self, message: Mapping[str, Any]) -> bool:
        """Whether a message is older than its session: a fork begins with copies, which count in the original."""
        message_created = decimal(mapping(message.get("time")).get("created"))
        session = self._sessions.get(str(text(message.get("sessionID"))), {})
        session_created = decimal(mapping(session.get("time")).get("created"))
        return message_created is not None and session_created is not None and message_created < session_created

    def _requests(self, key: str, place: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The requests of a message: its steps in their order, of which the last is the message; without steps the message alone."""
        try:
            row = _message(key, message)
        except FieldError as error:
            yield place, partial(raise_error, error)
            return
        *earlier, last = [step for _, step in sorted(self._steps.get(key, []), key=lambda step: step[0])] or [message]
        session = str(row["conversation_id"])
        for number, step in enumerate(earlier, 1):
            yield place, partial(_usage, row | trace_position(session, f"{session}/{key}/{number}", session), step)
        yield place, partial(_usage, row, last)


def _session(session: str, record: Mapping[str, Any], agent: str | None) -> Row:
    parent = text(record.get("parentID"))
    start = _moment(mapping(record.get("time")).get("created"), "time.created")
    if start is None:
        raise FieldError("time.created", "is missing", _REMEDY)
    row = _row(session) | trace_position(session, session)
    row |= {
        "start_time": start,
        "name": "session",
        "operation": "invoke_agent",
        "agent_name": (text(record.get("agent")) or agent) if parent else AGENT,
    }
    if parent:
        row |= {"link_trace_key": ids.trace_key(parent), "link_span_key": ids.span_key(parent)}
    return row


def _row(session: str) -> Row:
    return {
        "channel": CHANNEL,
        "source": "opencode",
        "emitter": "opencode",
        "service_name": "opencode",
        "conversation_id": session,
        "status": "ok",
    }


def _message(key: str, message: Mapping[str, Any]) -> Row:
    """The row of a message without its usage."""
    session, time = str(text(message.get("sessionID"))), mapping(message.get("time"))
    start, end = _moment(time.get("created"), "time.created"), _moment(time.get("completed"), "time.completed")
    if start is None:
        raise FieldError("time.created", "is missing", _REMEDY)
    model, agent = text(message.get("modelID")), text(message.get("agent")) or text(message.get("mode"))
    is_overhead = message.get("summary") is True or agent in _OVERHEAD
    return (
        _row(session)
        | trace_position(session, f"{session}/{key}", session)
        | {
            "start_time": start,
            "end_time": end if end is not None and end >= start else start,
            "name": f"message {model}" if model else "message",
            "operation": "chat",
            "usage_scope": "leaf",
            "status": "error" if message.get("error") else "ok",
            "provider": text(message.get("providerID")),
            "request_model": model,
            "phase": "overhead" if is_overhead else None,
        }
    )


def _usage(row: Row, holder: Mapping[str, Any]) -> Row:
    """The row with the tokens and cost of a step or message. Zeros in all of them stand where nothing is known."""
    tokens, cache = mapping(holder.get("tokens")), mapping(mapping(holder.get("tokens")).get("cache"))
    counts = {
        "input_tokens": count(tokens.get("input"), "tokens.input"),
        "output_tokens": count(tokens.get("output"), "tokens.output"),
        "reasoning_tokens": count(tokens.get("reasoning"), "tokens.reasoning"),
        "cache_read_tokens": count(cache.get("read"), "tokens.cache.read"),
        "cache_write_tokens": count(cache.get("write"), "tokens.cache.write"),
        "total_tokens": count(tokens.get("total"), "tokens.total"),
    }
    if not any(counts.values()):
        return row
    cost = rate(holder.get("cost"), "cost")
    return row | {
        **counts,
        "input_includes_cache": None if counts["input_tokens"] is None else False,
        "output_includes_reasoning": _includes_reasoning(counts),
        "reported_cost": cost or None,
    }


def _includes_reasoning(counts: Mapping[str, int | None]) -> bool | None:
    """Whether output includes reasoning, by the total; None where it does not say.

    >>> parts = {"input_tokens": 10, "cache_read_tokens": 90, "cache_write_tokens": 0, "output_tokens": 50, "reasoning_tokens": 30}
    >>> [_includes_reasoning(parts | {"total_tokens": total}) for total in (150, 180, 200, None)]
    [True, False, None, None]
    """
    if counts["output_tokens"] is None:
        return None
    if not counts["reasoning_tokens"]:
        return True
    without_reasoning = sum(
        counts[name] or 0 for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    )
    return {without_reasoning: True, without_reasoning + counts["reasoning_tokens"]: False}.get(counts["total_tokens"] or -1)


def _moment(value: object, name: str) -> int | None:
    """A time in milliseconds, in microseconds."""
    milliseconds = decimal(value)
    return instant(value if milliseconds is None else milliseconds / 1000, name)
