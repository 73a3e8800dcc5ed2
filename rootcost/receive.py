"""The receivers' knowledge of formats: what arrives over HTTP is read by the same code that reads files.

The API writes down what it is given and knows no format; ingestion knows formats and no HTTP. They meet here.
"""

from __future__ import annotations

import hashlib

from api.receivers import Received
from ingest.normalise.otlp_decode import decode_request
from ingest.sources import litellm, otlp
from ledger.settings import IngestSettings

TRACES, PAYLOADS = "/v1/traces", "/v1/litellm"
"""Where problems of received telemetry are said to come from."""


class Doors:
    """Turns request bodies into rows: an `api.receivers.Receivers`."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings

    def otlp(self, body: bytes, content_type: str, content_encoding: str) -> Received:
        """An OTLP trace export; raises `FormatError` where nothing in it is one."""
        export = decode_request(body, content_type)  # the API has undone the encoding
        reading = otlp.read_export(export, raw_id=_raw_id(body), uri=TRACES, settings=self._settings)
        return Received(reading.frame, tuple(reading.problems), otlp.rejected_spans(reading))

    def litellm(self, body: bytes) -> Received:
        """Payloads of LiteLLM's generic callback; a bad item is a problem, and its neighbours are kept."""
        reading = litellm.read_body(body, raw_id=_raw_id(body), uri=PAYLOADS, settings=self._settings)
        return Received(reading.frame, tuple(reading.problems), sum(p.rows for p in reading.problems if p.severity == "error"))


def _raw_id(body: bytes) -> str:
    """The delivery's own name: the same bytes have the same one, however often they come."""
    return f"received:{hashlib.sha256(body).hexdigest()}"
