"""Records a day of traffic twice: as the signals services send, and as the true usage.

The truth (who started it, which tokens were really used) goes to the bill and to `truth.json`; the signals go to files. Neither
is derived from the other, so that a mistake in reading the signals cannot hide in the bill.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from rootcost.demo.company import METERS, Agent, Model
from rootcost.demo.gateway import GatewayCall, Usage, payload
from rootcost.demo.shapes import Dice
from rootcost.demo.wire import CLIENT, Attribute, Origin, Span

SECOND = 1_000_000_000
"""Nanoseconds."""


@dataclass(frozen=True, slots=True)
class Person:
    """Person truly started a piece of work, or did it."""

    agent: str
    team: str

    @classmethod
    def of(cls, agent: Agent, day: int) -> Person:
        """An agent with the team it belongs to on that day."""
        return cls(agent.name, agent.team_on(day))


NOBODY = Person("", "")
"""Work whose initiator no signal names."""

TRUTH_SCHEMA = {
    "hour": pl.Int64,
    "model": pl.String,
    "principal": pl.String,
    "initiator_agent": pl.String,
    "initiator_team": pl.String,
    "executor_agent": pl.String,
    "executor_team": pl.String,
    **dict.fromkeys(METERS, pl.Int64),
}


@dataclass(slots=True)
class Recorder:
    """One day's signals and truth. `day` is the day of the month, from 1."""

    dice: Dice
    day: int
    spans: list[Span] = field(default_factory=list)
    plain_spans: list[Span] = field(default_factory=list)
    """Spans of services that write files with the collector's exporter instead of sending protobuf."""
    payloads: list[str] = field(default_factory=list)
    truth: list[tuple[object, ...]] = field(default_factory=list)
    resource_seconds: list[tuple[int, str, float]] = field(default_factory=list)
    """(hour, resource, seconds) of work on things that are not billed by token."""
    calls: int = 0
    trees: int = 0

    def used(self, model: Model, principal: str, initiator: Person, executor: Person, start_ns: int, usage: Usage) -> None:
        """Notes what one provider request truly consumed."""
        self.calls += 1
        hour = start_ns // (3600 * SECOND)
        self.truth.append((hour, model.name, principal, initiator.agent, initiator.team, executor.agent, executor.team, *usage))

    def span(
        self,
        origin: Origin,
        place: tuple[bytes, bytes],
        name: str,
        kind: int,
        times: tuple[int, int],
        constant_attributes: tuple[Attribute, ...] = (),
        own: tuple[Attribute, ...] = (),
        *,
        link: tuple[bytes, bytes] | None = None,
        error: str = "",
        span: bytes | None = None,
        plain: bool = False,
        is_lost: bool = False,
    ) -> bytes:
        """Sends a span and returns its id.

        `place` is its trace and parent, `times` its start and end (ns). `plain` goes to the file exporter; `is_lost` never arrives.
        """
        own_id = span or self.dice.octets(8)
        if not is_lost:
            sent = Span(origin, place[0], own_id, place[1], name, kind, times[0], times[1], constant_attributes, own, link, error)
            (self.plain_spans if plain else self.spans).append(sent)
        return own_id

    def chat_span(
        self,
        origin: Origin,
        place: tuple[bytes, bytes],
        model: Model,
        usage: Usage | None,
        times: tuple[int, int],
        extra: tuple[Attribute, ...] = (),
        *,
        response_id: str = "",
        error: str = "",
        plain: bool = False,
        operation: str = "chat",
        inclusive: bool = True,
    ) -> bytes:
        """A model call as an OpenTelemetry-conformant client tells it. `inclusive`: its input counts cached tokens."""
        own: tuple[Attribute, ...] = ()
        if usage is not None:
            own = (("gen_ai.usage.input_tokens", usage.prompt_tokens if inclusive else usage.input_tokens),)
            if operation == "chat":
                own += (("gen_ai.usage.output_tokens", usage.output_tokens),)
            if model.caches:
                own += (("gen_ai.usage.cache_read.input_tokens", usage.cache_read_tokens),)
                if model.on_aws:
                    own += (("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_5m_tokens),)
        if response_id:
            own += (("gen_ai.response.id", response_id),)
        if error:
            own += (("error.type", error),)
        constant_attributes = _model_attributes(model, operation)
        return self.span(
            origin, place, f"{operation} {model.name}", CLIENT, times, constant_attributes, own + extra, error=error, plain=plain
        )

    def logged(self, call: GatewayCall) -> None:
        """Sends a gateway payload."""
        self.payloads.append(payload(call))

    def truth_frame(self) -> pl.DataFrame:
        """What truly happened, one row a call."""
        return pl.DataFrame(self.truth, schema=TRUTH_SCHEMA, orient="row")


_ATTRIBUTES: dict[tuple[str, str], tuple[Attribute, ...]] = {}


def _model_attributes(model: Model, operation: str) -> tuple[Attribute, ...]:
    attributes = _ATTRIBUTES.get((model.name, operation))
    if attributes is None:
        attributes = (
            ("gen_ai.operation.name", operation),
            ("gen_ai.provider.name", model.provider),
            ("gen_ai.request.model", model.name),
            ("gen_ai.response.model", model.name),
        )
        if model.region:
            attributes += (("cloud.region", model.region),)
        _ATTRIBUTES[model.name, operation] = attributes
    return attributes


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of several calls, as a wrapper span repeats it."""
    sums = [sum(column) for column in zip(*usages, strict=True)] or [0, 0, 0, 0]
    return Usage(*sums)
