"""Session files of Claude Code as rows of `spans`: one for the session, each sub-agent, and each message of a model.

Format of the files:

* A streamed message is written once per part, each time with the same message id and cumulative usage: the line with the highest usage
  counts.
* ``input_tokens`` excludes tokens read from or written to the cache; ``cache_creation`` has the writes by lifetime.
* Lines of a sub-agent are side chains: in the session's own file (identified by their first line), or in a file of their own
  (``agent-ID.jsonl``) with the agent id on every line. The session that started it names its type.
* A resumed session repeats earlier messages under a new session id: the same request id, so the same call.
* Prompts, answers, and arguments and results of tools are not kept. The hash of a sub-agent's prompt matches it with the task that started it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ingest.logs.json_fields import FieldError, count, flag, instant, rate, text
from ingest.logs.request_ids import id_list
from ingest.logs.rows import PROGRESS, Row, trace_position
from ingest.otel.attribute_values import geography, tier
from ingest.otel.trace_stores import mapping, sequence

CHANNEL = "claude-code"
AGENT = "claude-code"
_SPAWNS = frozenset({"Task", "Agent"})
_PLACEHOLDER = "<synthetic>"
"""Model name of messages that Claude Code adds itself, such as errors of the API."""
_PROVIDERS = (("msg_bdrk_", "aws.bedrock"), ("msg_vrtx_", "vertex_ai"))
_MAX_ITERATIONS = 1000
_REMEDY = "leave the session's file as Claude Code writes it"


@dataclass(slots=True, kw_only=True)
class _Message:
    """A message of a model: its place, its times, and the line with the highest usage."""

    line: Mapping[str, Any]
    place: str
    start: int
    end: int
    reach: tuple[int, int] = (-1, -1)


@dataclass(slots=True)
class _Task:
    """The tool call that started a sub-agent: the agent's type, the caller's span id, and the time."""

    kind: str | None
    asker: str
    start: int


@dataclass(slots=True)
class Sessions:
    """Collects the lines of one file. Add lines with `add`; `rows` returns the rows."""

    _messages: dict[str, _Message] = field(default_factory=dict)
    _sessions: dict[str, int] = field(default_factory=dict)
    _chains: dict[str, str] = field(default_factory=dict)
    """Agent of each line of a side chain, by line id."""
    _agents: dict[str, tuple[Row, str]] = field(default_factory=dict)
    """Sub-agents: the row, and the key of the task that started it."""
    _tasks: dict[str, _Task] = field(default_factory=dict)
    """Tasks by id of the tool call, and by hash of the prompt."""

    def add(self, value: object, place: str) -> bool:
        """Adds a line; False for a line of another program. Raises `FieldError` for a message without session or time."""
        line = mapping(value)
        if "sessionId" not in line and "leafUuid" not in line and "message" not in line and line.get("type") != "summary":
            return False
        message, session = mapping(line.get("message")), text(line.get("sessionId"))
        usage = message.get("usage") if isinstance(message.get("usage"), Mapping) else None
        bears = usage is not None and text(message.get("model")) != _PLACEHOLDER
        if session is None:
            if bears:
                raise FieldError("sessionId", "is missing", _REMEDY)
            return True
        moment = instant(line.get("timestamp"), "timestamp")
        if moment is None:
            if bears:
                raise FieldError("timestamp", "is missing", _REMEDY)
            return True
        agent = self._agent_of(line, message, session, moment)
        if agent == session:
            self._sessions[session] = min(moment, self._sessions.get(session, moment))
        self._record_tasks(line, message, agent, session, moment)
        if bears:
            self._message(line, message, agent, place, moment)
        return True

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it, which raises `FieldError` where a count is invalid."""
        for session, start in sorted(self._sessions.items()):
            whole = _row(session, session) | _agent_row(start, "session") | {"agent_name": AGENT}
            yield "", partial(dict, whole)
        for agent, (row, task_key) in sorted(self._agents.items()):
            task = self._tasks.get(task_key)
            has_asker = task is not None and task.asker != agent
            by = trace_position(row["trace_id"], agent, task.asker) | {"agent_name": task.kind} if task and has_asker else {}
            yield "", partial(dict, row | by)
        for message in self._messages.values():
            yield message.place, partial(_call, message)
            for number, iteration in _foreign_iterations(message):
                yield message.place, partial(_call, message, number, iteration)

    def _agent_of(self, line: Mapping[str, Any], message: Mapping[str, Any], session: str, moment: int) -> str:
        """The span a line belongs to: the session, or a sub-agent within it."""
        own, parent, agent_id = text(line.get("uuid")) or "", text(line.get("parentUuid")), text(line.get("agentId"))
        if flag(line.get("isSidechain")) is not True and not agent_id:
            return session
        chain_agent = agent_id or (self._chains.get(parent) if parent else None)
        agent = f"{session}/{agent_id}" if agent_id else chain_agent or f"{session}/{own}"
        self._chains[own] = agent
        row = _row(session, agent, session) | _agent_row(moment, "sub-agent")
        row, _ = self._agents.setdefault(agent, (row, agent_id or _digest(message.get("content"))))
        row["start_time"] = min(row["start_time"], moment)
        return agent

    def _record_tasks(self, line: Mapping[str, Any], message: Mapping[str, Any], agent: str, session: str, moment: int) -> None:
        """Records which span started which sub-agent: by hash of the prompt, and by the sub-agent's id once a result names it."""
        result = mapping(line.get("toolUseResult"))
        for part in sequence(message.get("content")):
            block = mapping(part)
            if block.get("type") == "tool_use" and text(block.get("name")) in _SPAWNS:
                tool_input = mapping(block.get("input"))
                task = _Task(text(tool_input.get("subagent_type")), agent, moment)
                self._tasks[_digest(tool_input.get("prompt"))] = task
                self._tasks[f"call {text(block.get('id'))}"] = task
            elif block.get("type") == "tool_result" and (agent_id := text(result.get("agentId"))):
                asker = self._tasks.get(f"call {text(block.get('tool_use_id'))}")
                if asker is not None:
                    self._tasks[agent_id] = asker
                    row = _row(session, f"{session}/{agent_id}", agent) | _agent_row(asker.start, "sub-agent")
                    self._agents.setdefault(f"{session}/{agent_id}", (row, agent_id))

    def _message(self, line: Mapping[str, Any], message: Mapping[str, Any], agent: str, place: str, moment: int) -> None:
        key = "/".join(filter(None, (text(message.get("id")), text(line.get("requestId"))))) or text(line.get("uuid"))
        if key is None:
            raise FieldError("message.id", "is missing", _REMEDY)
        usage = mapping(message.get("usage"))
        output_tokens = count(usage.get("output_tokens"), "usage.output_tokens")
        entry = self._messages.setdefault(key, _Message(line={}, place=place, start=moment, end=moment))
        entry.start, entry.end = min(entry.start, moment), max(entry.end, moment)
        if (reach := (-1 if output_tokens is None else output_tokens, moment)) >= entry.reach:
            entry.line, entry.place, entry.reach = {**line, "__agent": agent, "__key": key}, place, reach


def _digest(content: object) -> str:
    """A hash of the prompt of a task."""
    parts = [content] if isinstance(content, str) else [mapping(part).get("text") for part in sequence(content)]
    task_text = "\n".join(part for part in parts if isinstance(part, str))
    return hashlib.blake2b(task_text.encode("utf-8", "replace"), digest_size=16).hexdigest() if task_text else ""


def _row(session: str, own: str, parent: str | None = None) -> Row:
    return trace_position(session, own, parent) | {
        "channel": CHANNEL,
        "source": "claude-code",
        "emitter": "claude-code",
        "service_name": "claude-code",
        "conversation_id": session,
        "status": "ok",
    }


def _agent_row(start: int, name: str) -> Row:
    return {"start_time": start, "name": name, "operation": "invoke_agent"}


def _foreign_iterations(message: _Message) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Iterations by another model than the message's (an advisor), numbered: requests of their own, which the message's usage leaves out."""
    payload = mapping(message.line.get("message"))
    for number, part in enumerate(sequence(mapping(payload.get("usage")).get("iterations"))[:_MAX_ITERATIONS], 1):
        model = text(mapping(part).get("model"))
        if model and model != text(payload.get("model")):
            yield number, mapping(part)


def _call(message: _Message, number: int = 0, iteration: Mapping[str, Any] | None = None) -> Row:
    """The row of a message, or of an iteration within it by a model of its own. Raises `FieldError` where a count is invalid."""
    line = message.line
    payload, session = mapping(line.get("message")), str(text(line.get("sessionId")))
    own, key = payload, f"{session}/{line['__key']}"
    if iteration is not None:
        # Speed and tier are told for the message as a whole.
        parts = {k: v for k, v in mapping(payload.get("usage")).items() if k in ("speed", "service_tier", "inference_geo")}
        own, key = {"model": iteration.get("model"), "usage": parts | dict(iteration)}, f"{key}/iteration {number}"
    usage = mapping(own.get("usage"))
    lifetimes = mapping(usage.get("cache_creation"))
    searches = count(
        mapping(usage.get("server_tool_use")).get("web_search_requests"), "usage.server_tool_use.web_search_requests"
    )
    model, name = text(own.get("model")), text(payload.get("id")) or ""
    counts = {
        "input_tokens": count(usage.get("input_tokens"), "usage.input_tokens"),
        "cache_read_tokens": count(usage.get("cache_read_input_tokens"), "usage.cache_read_input_tokens"),
        "cache_write_tokens": count(usage.get("cache_creation_input_tokens"), "usage.cache_creation_input_tokens"),
        "cache_write_5m_tokens": count(
            lifetimes.get("ephemeral_5m_input_tokens"), "usage.cache_creation.ephemeral_5m_input_tokens"
        ),
        "cache_write_1h_tokens": count(
            lifetimes.get("ephemeral_1h_input_tokens"), "usage.cache_creation.ephemeral_1h_input_tokens"
        ),
        "output_tokens": count(usage.get("output_tokens"), "usage.output_tokens"),
    }
    request_id = text(line.get("requestId")) or name or None
    more = {"agent_version": text(line.get("version")), "vcs_branch": text(line.get("gitBranch"))}
    return (
        _row(session, key, line["__agent"])
        | counts
        | {
            "start_time": message.start,
            "end_time": message.end,
            "name": f"message {model}" if model else "message",
            "operation": "chat",
            "usage_scope": "leaf",
            "provider": next((provider for start, provider in _PROVIDERS if name.startswith(start)), "anthropic"),
            "response_model": model,
            "provider_request_id": None if iteration else request_id,
            "request_ids": None if iteration else id_list([name], besides=[request_id]),
            "region": geography(usage.get("inference_geo")),
            "service_tier": tier(usage.get("speed")) or tier(usage.get("service_tier")),
            "input_includes_cache": None if counts["input_tokens"] is None else False,
            "output_includes_reasoning": None if counts["output_tokens"] is None else True,
            "other_usage": json.dumps({"web_searches": str(searches)}) if searches else None,
            "reported_cost": None if iteration else rate(line.get("costUSD"), "costUSD"),
            "attributes": json.dumps({k: v for k, v in more.items() if v}, sort_keys=True) if any(more.values()) else None,
            PROGRESS: min(counts["output_tokens"] or 0, 2**30),
        }
    )
