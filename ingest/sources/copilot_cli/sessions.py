"""Session files of Copilot CLI as rows of `spans`: one for the session, and one for each model in each of its runs.

Format of the files, ``<session>/events.jsonl``:

* Each line is an event: ``type``, ``timestamp`` and ``data``. A session that is resumed goes on in the same file.
* Tokens are told when a run ends, in ``session.shutdown``: ``modelMetrics`` by model. ``inputTokens`` include what was read from and written to
  a cache, ``outputTokens`` reasoning. Most versions count each run for itself, some go on from the run before. The answers' own
  ``outputTokens`` say which: they add up to the run's, or to the session's.
* Cost is in premium requests and AI units, which are no money.
* A run that ended without a shutdown tells no tokens but those of its answers' output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ingest.logs.json_fields import FieldError, count, instant, text
from ingest.logs.rows import Row, trace_position
from ingest.logs.session_files import raise_error
from ingest.otel.trace_stores import mapping

CHANNEL = "copilot-cli"
AGENT = "copilot-cli"
_REMEDY = "leave the session's file as Copilot CLI writes it"


class Counts(NamedTuple):
    """Token counts of a model; an absent one is null."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None

    @classmethod
    def parse(cls, usage: Mapping[str, Any], model: str) -> Counts:
        """The counts of a model's ``usage``. Raises `FieldError` for an invalid one."""
        names = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "reasoningTokens")
        return cls(*(count(usage.get(name), f"modelMetrics.{model[:64]}.usage.{name}") for name in names))

    def since(self, before: Counts) -> Counts | None:
        """The difference to an earlier total; None where a count is lower than before: then counting began anew.

        >>> Counts(120, 26, 90, 9, 5).since(Counts(100, 20, 60, 9, 5))
        Counts(input_tokens=20, output_tokens=6, cache_read_tokens=30, cache_write_tokens=0, reasoning_tokens=0)
        """
        parts = [None if part is None else part - (earlier or 0) for part, earlier in zip(self, before, strict=True)]
        return None if any(part is not None and part < 0 for part in parts) else Counts(*parts)


@dataclass(slots=True)
class _Run:
    """What the lines since the last shutdown tell."""

    start: int | None = None
    answers: int = 0
    output: int = 0


@dataclass(slots=True)
class Session:
    """Collects the lines of one file. `name` is the session's id where no line has it."""

    name: str
    _start: int | None = None
    _meta: Mapping[str, Any] = field(default_factory=dict)
    _run: _Run = field(default_factory=_Run)
    _output: int = 0
    _totals: dict[str, Counts] = field(default_factory=dict)
    _rows: list[tuple[str, int, int, str, int, Counts, Mapping[str, Any]]] = field(default_factory=list)
    _runs: int = 0

    def add(self, value: object, place: str) -> bool:
        """Adds a line; False for a line of another program. Raises `FieldError` for a shutdown without time or with invalid counts."""
        line = mapping(value)
        kind, data = text(line.get("type")), mapping(line.get("data"))
        if kind is None or "data" not in line or "timestamp" not in line or "id" not in line:
            return False
        moment = instant(line.get("timestamp"), "timestamp")
        if moment is None:
            if kind == "session.shutdown":
                raise FieldError("timestamp", "is missing", _REMEDY)
            return True
        self._start = moment if self._start is None else min(self._start, moment)
        if kind == "session.start" and not self._meta:
            self._meta = data
        elif kind == "assistant.message":
            output_tokens = count(data.get("outputTokens"), "outputTokens") or 0
            self._run.start = moment if self._run.start is None else self._run.start
            self._run.answers += 1
            self._run.output += output_tokens
        elif kind == "session.shutdown":
            self._shutdown(data, place, moment)
        return True

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it."""
        if self._start is None:
            return
        row = self._row()
        session = str(row["conversation_id"])
        about = {"start_time": self._start, "name": "session", "operation": "invoke_agent", "agent_name": AGENT}
        yield "", partial(dict, row | trace_position(session, session) | about)
        for place, start, end, model, number, used, metric in self._rows:
            position = trace_position(session, f"{session}/{number}/{model}", session)
            yield place, partial(_usage, row | position, start, end, model, used, metric)
        if self._run.answers:
            reason = f"{self._run.answers} answers were followed by no shutdown: their tokens are told nowhere"
            yield (
                "end of file",
                partial(raise_error, FieldError("session.shutdown", reason, "end the session, and read its file again")),
            )

    def _shutdown(self, data: Mapping[str, Any], place: str, moment: int) -> None:
        run, self._run = self._run, _Run()
        self._output += run.output
        metrics = {model: mapping(metric) for model, metric in mapping(data.get("modelMetrics")).items()}
        totals = {model: Counts.parse(mapping(metric.get("usage")), model) for model, metric in metrics.items()}
        before, self._totals = self._totals, totals
        goes_on = self._goes_on(totals, before, run.output)
        self._runs += 1
        for model, total in totals.items():
            used = total.since(before[model]) if goes_on and model in before else total
            if used is not None and any(used):
                self._rows.append((place, run.start or moment, moment, model, self._runs, used, metrics[model]))

    def _goes_on(self, totals: Mapping[str, Counts], before: Mapping[str, Counts], run_output: int) -> bool:
        """Whether totals count on from the run before: no count fell, and the answers' output fits the session rather than the run."""
        if not before or any(model not in totals or totals[model].since(earlier) is None for model, earlier in before.items()):
            return False
        output = sum(total.output_tokens or 0 for total in totals.values())
        return not self._output or abs(output - self._output) < abs(output - run_output)

    def _row(self) -> Row:
        context = mapping(self._meta.get("context"))
        more = {
            "agent_version": text(self._meta.get("copilotVersion")),
            "vcs_branch": text(context.get("branch")),
            "vcs_repository": text(context.get("repository")),
        }
        return {
            "channel": CHANNEL,
            "source": "copilot-cli",
            "emitter": "copilot-cli",
            "service_name": "copilot-cli",
            "conversation_id": text(self._meta.get("sessionId")) or self.name,
            "status": "ok",
            "attributes": json.dumps({k: v for k, v in more.items() if v}, sort_keys=True) if any(more.values()) else None,
        }


def _usage(row: Row, start: int, end: int, model: str, used: Counts, metric: Mapping[str, Any]) -> Row:
    requests = text(mapping(metric.get("requests")).get("count"))
    attributes = json.loads(row["attributes"] or "{}") | ({"requests": requests} if requests else {})
    cached_tokens = (used.cache_read_tokens or 0) + (used.cache_write_tokens or 0)
    is_inclusive = used.input_tokens is not None and cached_tokens <= used.input_tokens
    return row | {
        "start_time": start,
        "end_time": max(start, end),
        "name": f"requests to {model}",
        "operation": "chat",
        "usage_scope": "leaf",
        "provider": "github-copilot",
        "request_model": model,
        **used._asdict(),
        "input_includes_cache": True if is_inclusive else None,
        "output_includes_reasoning": None if used.output_tokens is None else True,
        "attributes": json.dumps(attributes, sort_keys=True) if attributes else None,
    }


def session_name(uri: str) -> str:
    """The session's id: the folder of its events, or the name of a file that has another.

    >>> session_name("/x/session-state/0f1e/events.jsonl"), session_name("s3://b/0f1e.jsonl.gz")
    ('0f1e', '0f1e')
    """
    folder, _, name = uri.rpartition("/")
    stem = name.split(".jsonl", 1)[0]
    return folder.rpartition("/")[2] if stem == "events" and folder else stem
