"""Session files of Gemini CLI as rows of `spans`: one for the session, and one for each answer that has token counts.

Format of the files:

* Lines of a ``.jsonl``: first the session, then messages, ``$set`` (changed fields, the whole list of messages among them) and ``$rewindTo``.
  Until 2026 one document, ``.json``, with all messages.
* A message is written again when its tokens or tools are known: the last version that has tokens counts. What was rewound or
  compressed was answered all the same, and counts.
* ``tokens`` are Gemini's own counts: ``input`` includes ``cached``; ``tool`` is added to the prompt; ``output`` are the candidates, and
  ``thoughts`` lie beside them. Counts that are missing are written as 0.
* A sub-agent's file lies in a folder that has the id of the session that started it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ingest.logs.answers import sum_known
from ingest.logs.json_fields import FieldError, count, instant, text
from ingest.logs.rows import Row, trace_position
from ingest.logs.session_files import raise_error
from ingest.otel.trace_stores import mapping, sequence
from ledger import ids

CHANNEL = "gemini-cli"
AGENT = "gemini-cli"
_REMEDY = "leave the session's file as Gemini CLI writes it"
_COUNTS = ("input", "output", "cached", "thoughts", "tool", "total")


@dataclass(slots=True)
class Session:
    """Collects the lines of one file. `name` is the session's id where no line has it, `parent` the session that started it."""

    name: str
    parent: str | None = None
    _meta: dict[str, Any] = field(default_factory=dict)
    _start: int | None = None
    _answers: dict[str, tuple[str, int, str | None, dict[str, int]]] = field(default_factory=dict)
    _errors: list[tuple[str, FieldError]] = field(default_factory=list)

    def add(self, value: object, place: str) -> bool:
        """Adds a line; False for a line of another program. Raises `FieldError` for an answer without time or with invalid counts."""
        line = mapping(value)
        changes = mapping(line.get("$set"))
        if changes or "$rewindTo" in line:
            self._about(changes, place)
        elif text(line.get("sessionId")) and ("projectHash" in line or "messages" in line):
            self._about(line, place)
        elif text(line.get("id")) and "type" in line and "timestamp" in line:
            self._message(line, place)
        else:
            return False
        return True

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it."""
        for place, error in self._errors:
            yield place, partial(raise_error, error)
        if self._start is None:
            return
        session = text(self._meta.get("sessionId")) or self.name
        row: Row = {
            "channel": CHANNEL,
            "source": "gemini-cli",
            "emitter": "gemini-cli",
            "service_name": "gemini-cli",
            "conversation_id": session,
            "status": "ok",
        }
        about = (
            row | trace_position(session, session) | {"start_time": self._start, "name": "session", "operation": "invoke_agent"}
        )
        if self.parent is None:
            about["agent_name"] = AGENT
        else:
            about |= {"link_trace_key": ids.trace_key(self.parent), "link_span_key": ids.span_key(self.parent)}
        yield "", partial(dict, about)
        for key, (place, moment, model, counts) in self._answers.items():
            yield place, partial(_answer, row | trace_position(session, f"{session}/{key}", session), moment, model, counts)

    def _about(self, fields: Mapping[str, Any], place: str) -> None:
        self._meta |= {name: fields[name] for name in ("sessionId",) if fields.get(name) is not None and name not in self._meta}
        start = instant(fields.get("startTime"), "startTime")
        if start is not None:
            self._start = start if self._start is None else min(self._start, start)
        for number, message in enumerate(sequence(fields.get("messages")), 1):
            message_place = f"{place}, message {number}"
            try:
                self._message(mapping(message), message_place)
            except FieldError as error:  # the other messages of the document are read
                self._errors.append((message_place, error))

    def _message(self, message: Mapping[str, Any], place: str) -> None:
        tokens = mapping(message.get("tokens"))
        moment = instant(message.get("timestamp"), "timestamp")
        if moment is not None:
            self._start = moment if self._start is None else min(self._start, moment)
        counts = {name: number for name in _COUNTS if (number := count(tokens.get(name), f"tokens.{name}")) is not None}
        if message.get("type") != "gemini" or not any(counts.values()):
            return
        key = text(message.get("id"))
        if key is None or moment is None:
            raise FieldError("timestamp" if key else "id", "is missing", _REMEDY)
        self._answers[key] = (place, moment, text(message.get("model")), counts)


def _answer(row: Row, moment: int, model: str | None, counts: Mapping[str, int]) -> Row:
    """The row of an answer.

    >>> row = _answer({}, 0, "gemini-2.5-pro", {"input": 1000, "output": 20, "cached": 800, "thoughts": 30, "tool": 5, "total": 1055})
    >>> row["input_tokens"], row["cache_read_tokens"], row["output_tokens"], row["reasoning_tokens"], row["output_includes_reasoning"]
    (1005, 800, 20, 30, False)
    """
    input_tokens, output_tokens = sum_known(counts.get("input"), counts.get("tool")), counts.get("output")
    return row | {
        "start_time": moment,
        "end_time": moment,
        "name": f"answer {model}" if model else "answer",
        "operation": "chat",
        "usage_scope": "leaf",
        "response_model": model,
        "input_tokens": input_tokens,
        "input_includes_cache": None if input_tokens is None else True,
        "cache_read_tokens": counts.get("cached"),
        "output_tokens": output_tokens,
        "output_includes_reasoning": None if output_tokens is None else False,
        "reasoning_tokens": counts.get("thoughts"),
        "total_tokens": counts.get("total"),
    }


def names(uri: str) -> tuple[str, str | None]:
    """The session's id as the file's name has it, and that of the session that started it, where the folder has it.

    >>> names("/x/.gemini/tmp/shop/chats/session-2026-10-05T09-00-0f1e2d3c.jsonl")
    ('session-2026-10-05T09-00-0f1e2d3c', None)
    >>> names("s3://b/chats/0f1e2d3c-0000-7000-8000-000000000001/9a8b.jsonl.gz")
    ('9a8b', '0f1e2d3c-0000-7000-8000-000000000001')
    """
    folder, _, name = uri.rpartition("/")
    parent_folder, _, parent = folder.rpartition("/")
    is_nested = parent_folder.rpartition("/")[2] == "chats"
    return name.split(".json", 1)[0], parent if is_nested and parent else None
