"""A model provider on loopback that does what a prompt tells it to: be slow, fail, fall silent, cut a stream."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class Provider:
    """Listens until it is closed. Words in the prompt: SLOW, FAIL-ALL, FAIL-TWICE, FAIL-MINI, HANG, SILENT, CUT, LONG."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls = 0
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    provider.answer(self, json.loads(body), body.decode())
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], text: str) -> None:
        with self._lock:
            self.calls += 1
            self._attempts[text] += 1
            attempt = self._attempts[text]
        if "HANG" in text:
            time.sleep(4)
        time.sleep(0.6 if "SLOW" in text else self.seconds)
        if (
            "FAIL-ALL" in text
            or ("FAIL-TWICE" in text and attempt <= 2)
            or ("FAIL-MINI" in text and body.get("model") == "gpt-4o-mini")
        ):
            _say(handler, 500, {"error": {"message": "broken", "type": "server_error", "code": "broken"}})
        elif handler.path.endswith("/embeddings"):
            _say(handler, 200, {"object": "list", "model": body["model"], "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
                                "usage": {"prompt_tokens": 7, "total_tokens": 7}})  # fmt: skip
        elif "/images/" in handler.path:
            _say(handler, 200, {"created": 1, "data": [{"url": "http://127.0.0.1/picture.png"}]})
        elif body.get("stream"):
            self._stream(handler, body, text)
        else:
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "an answer"}}
            _say(handler, 200, {"id": f"chatcmpl-{self.calls}", "object": "chat.completion", "created": 1795361507, "model": body["model"],
                                "choices": [choice], "usage": USAGE})  # fmt: skip

    def _stream(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], text: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        if "SILENT" in text:
            time.sleep(3)
        base = {"id": f"chatcmpl-{self.calls}", "object": "chat.completion.chunk", "created": 1795361507, "model": body["model"]}
        for number in range(200 if "LONG" in text else 5):
            if "CUT" in text and number == 3:
                handler.connection.close()
                return
            _chunk(handler, base | {"choices": [{"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}]})
            if "LONG" in text:
                time.sleep(0.05)
        _chunk(handler, base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            _chunk(handler, base | {"choices": [], "usage": USAGE})
        handler.wfile.write(b"data: [DONE]\n\n")

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


def _say(handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
    content = json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _chunk(handler: BaseHTTPRequestHandler, chunk: dict[str, Any]) -> None:
    handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
    handler.wfile.flush()
