"""The socket of the API: what is accepted on it is sent at once."""

from __future__ import annotations

import socket
from collections.abc import Callable

from rootcost.service.serve import _bound


def test_answers_do_not_wait_for_acknowledgements(free_port: Callable[[], int]) -> None:
    """Headers and body leave as two packets; with Nagle's algorithm the second one waited 40 ms."""
    with _bound("127.0.0.1", free_port(), flag="--port", setting="serve.port") as listening:
        with socket.create_connection(listening.getsockname()):
            connection, _ = listening.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP  # asyncio looks at it
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
