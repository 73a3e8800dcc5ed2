"""Session files of Codex as rows of `spans`: one for the session, and one for each answer of a model.

Format of the files:

* A ``token_count`` event reports an answer: the session's total so far, and the usage of the last answer. A repeated total is no answer.
* ``input_tokens`` includes cached ones. Whether ``output_tokens`` includes reasoning follows from the total.
* A sub-agent has a file of its own, whose first line names the session that started it.
* A forked or spawned session begins with a copy of the earlier lines, counts included, written at once. Those answers are counted in the
  original session and skipped here; only their total is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ingest.logs.json_fields import FieldError, count, instant, text
from ingest.logs.rows import Row, trace_position
from ingest.otel.attribute_values import tier
from ingest.otel.trace_stores import mapping
from ledger import ids

CHANNEL = "codex"
AGENT = "codex"
_KINDS = frozenset({"session_meta", "turn_context", "event_msg", "response_item", "compacted"})
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_REMEDY = "leave the session's file as Codex writes it"
_COPYING_US = 1_000_000
"""Time in which a forked session writes the copy of its origin. No model answers that quickly."""


class Counts(NamedTuple):
    """Token counts of Codex; None where a count is absent."""

    input: int | None
    cached_input: int | None
    output: int | None
    reasoning: int | None
    total: int | None
    cache_write: int | None

    @classmethod
    def parse(cls, value: object, name: str) -> Counts | None:
        """The counts of a ``token_count``; None where it is empty. Raises `FieldError` for an invalid count."""
        fields = mapping(value)
        if not fields:
            return None
        cached_tokens = fields.get("cached_input_tokens", fields.get("cache_read_input_tokens"))
        return cls(
            count(fields.get("input_tokens"), f"{name}.input_tokens"),
            count(cached_tokens, f"{name}.cached_input_tokens"),
            count(fields.get("output_tokens"), f"{name}.output_tokens"),
            count(fields.get("reasoning_output_tokens"), f"{name}.reasoning_output_tokens"),
            count(fields.get("total_tokens"), f"{name}.total_tokens"),
            count(fields.get("cache_write_input_tokens"), f"{name}.cache_write_input_tokens"),
        )

    def since(self, before: Counts) -> Counts | None:
        """The difference to an earlier total; None where a count is lower than before: then counting restarted.

        >>> Counts(3500, 750, 425, 275, 4200, None).since(Counts(1000, 250, 125, 75, 1200, None))
        Counts(input=2500, cached_input=500, output=300, reasoning=200, total=3000, cache_write=None)
        """
        differences = [
            None if current is None else current - (previous or 0) for current, previous in zip(self, before, strict=True)
        ]
        return None if any(part is not None and part < 0 for part in differences) else Counts(*differences)


@dataclass(slots=True)
class Session:
    """Collects the lines of one file. Add lines with `add`; `rows` returns the rows. `name` is the session id where no line has it."""

    name: str
    _start: int | None = None
    _meta: Mapping[str, Any] = field(default_factory=dict)
    _model: str | None = None
    _total: Counts | None = None
    _answers: list[tuple[str, int, str | None, str | None, Counts]] = field(default_factory=list)

    def add(self, value: object, place: str) -> bool:
        """Adds a line; False for a line of another program. Raises `FieldError` for an answer without time or with invalid counts."""
        line = mapping(value)
        kind, payload = text(line.get("type")), mapping(line.get("payload"))
        if kind not in _KINDS:
            return False
        counts = kind == "event_msg" and payload.get("type") == "token_count"
        moment = instant(line.get("timestamp"), "timestamp")
        if moment is None:
            if counts:
                raise FieldError("timestamp", "is missing", _REMEDY)
            return True
        self._start = moment if self._start is None else min(self._start, moment)
        if kind == "session_meta" and not self._meta:  # a second one belongs to the session this one was copied from
            self._meta = payload
        elif kind == "turn_context":
            self._model = text(payload.get("model")) or self._model
        elif counts:
            self._count(mapping(payload.get("info")), tier(payload.get("service_tier")), place, moment)
        return True

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it."""
        if self._start is None:
            return
        session, row = text(self._meta.get("id")) or self.name, self._row()
        about = (
            row | trace_position(session, session) | {"start_time": self._start, "name": "session", "operation": "invoke_agent"}
        )
        parent = self._parent()
        about["agent_name"] = self._role() if parent else AGENT
        if parent:
            about |= {"link_trace_key": ids.trace_key(parent), "link_span_key": ids.span_key(parent)}
        yield "", partial(dict, about)
        for place, moment, model, service_tier, used in self._answers:
            yield place, partial(self._answer, row | {"service_tier": service_tier}, session, moment, model, used)

    def _count(self, info: Mapping[str, Any], service_tier: str | None, place: str, moment: int) -> None:
        total, last = (
            Counts.parse(info.get("total_token_usage"), "total_token_usage"),
            Counts.parse(info.get("last_token_usage"), "last_token_usage"),
        )
        before, self._total = self._total, total or self._total
        if total is not None and total == before:
            return
        used = last if total is None or before is None else total.since(before) or last
        if used is None:
            used = total
        if used is None or not any(used) or self._is_copy(moment):
            return
        self._answers.append((place, moment, text(info.get("model")) or self._model, service_tier, used))

    def _is_copy(self, moment: int) -> bool:
        origin = self._meta.get("forked_from_id") or self._parent()
        began = instant(self._meta.get("timestamp"), "timestamp")
        began = self._start if began is None else began
        return bool(origin) and began is not None and moment < began + _COPYING_US

    def _spawn(self) -> Mapping[str, Any]:
        return mapping(mapping(mapping(self._meta.get("source")).get("subagent")).get("thread_spawn"))

    def _parent(self) -> str | None:
        """The session that started this one, if this is a sub-agent's."""
        return text(self._spawn().get("parent_thread_id")) or text(self._meta.get("parent_thread_id"))

    def _role(self) -> str | None:
        spawn = self._spawn()
        return text(spawn.get("agent_role")) or text(self._meta.get("agent_role"))

    def _row(self) -> Row:
        git = mapping(self._meta.get("git"))
        more = {
            "agent_version": text(self._meta.get("cli_version")),
            "vcs_branch": text(git.get("branch")),
            "vcs_commit": text(git.get("commit_hash")),
        }
        return {
            "channel": CHANNEL,
            "source": "codex",
            "emitter": "codex",
            "service_name": "codex",
            "conversation_id": text(self._meta.get("id")) or self.name,
            "status": "ok",
            "attributes": json.dumps({k: v for k, v in more.items() if v}, sort_keys=True) if any(more.values()) else None,
        }

    def _answer(self, row: Row, session: str, moment: int, model: str | None, used: Counts) -> Row:
        own = f"{session}/{moment}/{used.total if used.total is not None else ''}"
        return (
            row
            | trace_position(session, own, session)
            | {
                "start_time": moment,
                "end_time": moment,
                "name": f"answer {model}" if model else "answer",
                "operation": "chat",
                "usage_scope": "leaf",
                "provider": text(self._meta.get("model_provider")) or "openai",
                "response_model": model,
                "input_tokens": used.input,
                "input_includes_cache": None if used.input is None else True,
                "cache_read_tokens": used.cached_input,
                "cache_write_tokens": used.cache_write,
                "output_tokens": used.output,
                "output_includes_reasoning": _includes_reasoning(used),
                "reasoning_tokens": used.reasoning,
                "total_tokens": used.total,
            }
        )


def session_name(uri: str) -> str:
    """The session id in a file's name, else the name itself.

    >>> session_name("s3://b/2026/05/13/rollout-2026-05-13T09-00-00-0199a1b2-0000-7000-8000-00000000abcd.jsonl.gz"), session_name("/x/alpha.jsonl")
    ('0199a1b2-0000-7000-8000-00000000abcd', 'alpha')
    """
    name = uri.rsplit("/", 1)[-1]
    matches = _ID.findall(name)
    return str(matches[-1]) if matches else name.split(".jsonl", 1)[0]


def _includes_reasoning(used: Counts) -> bool | None:
    """Whether output includes reasoning: it does unless the total adds it separately.

    >>> [_includes_reasoning(Counts(1000, 0, 125, 75, total, None)) for total in (1125, 1200, None)]
    [True, False, True]
    """
    if used.output is None:
        return None
    separate_total = (used.input or 0) + used.output + (used.reasoning or 0)
    return not (used.reasoning and used.total == separate_total)
