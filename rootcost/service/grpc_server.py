"""OTLP over gRPC: accepted by the same code as over HTTP, and acknowledged once the export is on disk.

A sender that should retry gets RESOURCE_EXHAUSTED (the spool is full) or UNAVAILABLE (the disk fails), both with
RetryInfo: by OTLP's rules only that makes it keep what it has. Messages are read by the threads that handle them, so that memory is
bounded by their number, and HTTP/2 holds back the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from api.errors import RETRY_SECONDS
from api.otlp_answers import PROTOBUF, encode_response
from api.receivers import ReceivedBatch, Receivers, Signal
from ledger.access.principals import Principal
from ledger.access.roles import Permission
from ledger.errors import DeniedError, FormatError, PortTakenError, SpoolFull, StoreUnreachable

log = logging.getLogger("rootcost.grpc")

_SERVICES: dict[str, Signal] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
_THREADS = 4


class GrpcReceiver:
    """A gRPC server on loopback with the three export services."""

    def __init__(
        self,
        receivers: Receivers,
        keep: Callable[[ReceivedBatch, str], ReceivedBatch],
        *,
        address: str,
        identify: Callable[[str], Principal | None],
        max_body_mb: int,
    ) -> None:
        self._receivers, self._keep, self._identify = receivers, keep, identify
        self.address = address
        self._max_bytes = max_body_mb << 20
        self._server: Any = None

    def start(self) -> None:
        """Starts listening; raises `PortTakenError` if the port is in use."""
        import grpc  # type: ignore[import-untyped]

        options = [("grpc.max_receive_message_length", self._max_bytes), ("grpc.so_reuseport", 0)]
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"), options=options)
        for service, signal in _SERVICES.items():
            export = grpc.unary_unary_rpc_method_handler(self._exporting(signal))  # bytes in, bytes out
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        try:
            server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise PortTakenError(
                "the port cannot be used",
                where=self.address,
                remedy="stop what listens there, or choose another: setting serve.grpc_port",
            ) from error
        server.start()
        self._server = server

    def stop(self, *, patience_seconds: float = 2.0) -> None:
        """Stops accepting calls and lets running ones finish."""
        if self._server is not None:
            self._server.stop(patience_seconds).wait(patience_seconds + 1)
            self._server = None

    def _exporting(self, signal: Signal) -> Callable[[bytes, Any], bytes]:
        receiver = "otlp" if signal == "traces" else f"otlp-{signal}"

        def export(body: bytes, context: Any) -> bytes:
            self._authenticate(context)
            try:
                receipt = self._keep(self._receivers.otlp(signal, body, PROTOBUF), receiver)
            except FormatError as error:
                _abort(context, "INVALID_ARGUMENT", str(error))
            except SpoolFull as error:
                _abort(context, "RESOURCE_EXHAUSTED", str(error), retry=True)
            except StoreUnreachable as error:
                _abort(context, "UNAVAILABLE", str(error), retry=True)
            return encode_response(receipt, signal, PROTOBUF)

        return export

    def _authenticate(self, context: Any) -> None:
        header = dict(context.invocation_metadata()).get("authorization", "")
        principal = self._identify(str(header))
        if principal is None:
            _abort(
                context, "UNAUTHENTICATED", "send the metadata `authorization: Bearer <key>`; `rootcost keys create` makes one"
            )
        try:
            principal.need(Permission.TELEMETRY_WRITE, whole=True)
        except DeniedError as error:
            _abort(context, "PERMISSION_DENIED", str(error))


def _abort(context: Any, code: str, message: str, *, retry: bool = False) -> NoReturn:
    import grpc

    status = grpc.StatusCode[code]
    if retry:
        from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]
        from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
        from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

        info = RetryInfo()
        info.retry_delay.seconds = RETRY_SECONDS
        detail = AnyMessage()
        detail.Pack(info)
        status_bytes = Status(code=status.value[0], message=message, details=[detail]).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", status_bytes),))
    context.abort(status, message)
    raise AssertionError("unreachable")
