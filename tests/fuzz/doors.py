"""The doors of the service: request bodies, spoilt, as the receivers take them."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from typing import NamedTuple

from api.errors import RequestError
from api.receivers import ReceivedBatch
from api.routes.receive import inflate
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from rootcost.service.receivers import Parsers, TraceReader
from tests.fuzz.mutations import WHOLE
from tests.fuzz.samples import samples

_LIMIT_BYTES = 4 << 20
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_SETTINGS = IngestSettings(max_past_years=16)
_PARSERS, _READER = Parsers(_SETTINGS), TraceReader(_SETTINGS)


class Door(NamedTuple):
    """A receiver: what it is called, the names of its samples, and how it takes a body."""

    name: str
    samples: tuple[str, ...]
    take: Callable[[bytes], ReceivedBatch]

    def answer(self, chance: random.Random) -> str:
        """What becomes of a spoilt body: it is taken, taken in part, or refused as the sender's fault."""
        sound = chance.choice([sample.content for sample in samples() if sample.name in self.samples])
        body = chance.choice(WHOLE)(chance, sound)
        if not chance.randrange(4):
            compressed_body = gzip.compress(body, 1)
            compressed_body = compressed_body if chance.randrange(2) else chance.choice(WHOLE)(chance, compressed_body)
            try:
                body = inflate(compressed_body, "gzip", _LIMIT_BYTES)
            except RequestError as error:
                return _refusal(error, is_allowed=error.status in (400, 413))
        try:
            batch = self.take(body)
        except FormatError as error:
            return _refusal(error, is_allowed="cannot be read: " not in error.what)
        if batch.bodies:
            _, problems = _READER(batch.bodies)
            unknown = [problem.reason for problem in problems if "cannot be read: " in problem.reason]
            assert not unknown, unknown
        return "body taken in part" if batch.rejected else "body taken"


def _refusal(error: Exception, *, is_allowed: bool) -> str:
    if not is_allowed:
        raise AssertionError(f"refused by mistake: {error}") from error
    return "body refused"


DOORS = (
    Door("POST /v1/traces protobuf", ("export.bin", "gateway.bin"), lambda body: _PARSERS.otlp("traces", body, _PROTOBUF)),
    Door("POST /v1/traces JSON", ("export.json",), lambda body: _PARSERS.otlp("traces", body, _JSON)),
    Door(
        "POST /v1/logs",
        ("export.bin", "export.json"),
        lambda body: _PARSERS.otlp("logs", body, _JSON if body[:1] == b"{" else _PROTOBUF),
    ),
    Door(
        "POST /v1/metrics",
        ("export.bin", "export.json"),
        lambda body: _PARSERS.otlp("metrics", body, _JSON if body[:1] == b"{" else _PROTOBUF),
    ),
    Door("POST /v1/litellm", ("cost_cases.jsonl", "003-litellm_generic.json"), _PARSERS.litellm),
)
