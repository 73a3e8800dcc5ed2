"""A provider on loopback: OpenAI's and Anthropic's wire formats, with the usage a real one would report."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OPENAI_USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 80,
    "total_tokens": 1280,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 32, "audio_tokens": 0},
}
"""At gpt-4o's list price: 176 x 0.0000025 + 1024 x 0.00000125 + 80 x 0.00001 = 0.00252."""
ANTHROPIC_USAGE = {
    "input_tokens": 50,
    "output_tokens": 20,
    "cache_read_input_tokens": 1500,
    "cache_creation_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1200, "ephemeral_1h_input_tokens": 800},
}
"""At claude-sonnet-4-5's: 50 x 0.000003 + 1500 x 0.0000003 + 1200 x 0.00000375 + 800 x 0.000006 + 20 x 0.000015 = 0.0102."""
EMBEDDING_USAGE = {"prompt_tokens": 7, "total_tokens": 7}


class Upstream:
    """The provider, listening until it is closed. A prompt that holds REFUSE is answered with HTTP 429."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if "REFUSE" in json.dumps(asked):
                    self._say(429, {"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}})
                elif asked["model"] == "flaky":
                    self._say(503, {"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}})
                elif self.path.endswith("/embeddings"):
                    answer = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]}
                    self._say(200, answer | {"model": asked["model"], "usage": EMBEDDING_USAGE})
                elif self.path.endswith("/messages"):
                    if asked.get("stream"):
                        self._stream(upstream.events(asked), named=True)
                    else:
                        self._say(200, upstream.message(asked))
                elif asked.get("stream"):
                    self._stream(upstream.chunks(asked))
                else:
                    self._say(200, upstream.completion(asked))

            def _say(self, status: int, answer: dict[str, Any]) -> None:
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, chunks: Iterator[dict[str, Any]], *, named: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for chunk in chunks:
                    name = f"event: {chunk['type']}\n" if named else ""
                    self.wfile.write(f"{name}data: {json.dumps(chunk)}\n\n".encode())
                if not named:
                    self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One OpenAI chat completion."""
        return {
            "id": f"chatcmpl-up{next(self._numbers):04d}",
            "object": "chat.completion",
            "created": 1795361507,
            "model": asked["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "an answer to keep private"}}
            ],
            "usage": OPENAI_USAGE,
            "service_tier": "default",
        }

    def chunks(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The same, streamed; usage comes last, if it was asked for."""
        base = {
            "id": f"chatcmpl-up{next(self._numbers):04d}",
            "object": "chat.completion.chunk",
            "created": 1795361507,
            "model": asked["model"],
        }
        yield base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "an answer"}, "finish_reason": None}]}
        yield base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield base | {"choices": [], "usage": OPENAI_USAGE}

    def message(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One Anthropic message."""
        return {
            "id": f"msg_up{next(self._numbers):04d}",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [{"type": "text", "text": "an answer to keep private"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": ANTHROPIC_USAGE,
        }

    def events(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The same, streamed: usage comes first, the output's count last."""
        begun = self.message(asked) | {"content": [], "stop_reason": None, "usage": ANTHROPIC_USAGE | {"output_tokens": 1}}
        yield {"type": "message_start", "message": begun}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "an answer"}}
        yield {"type": "content_block_stop", "index": 0}
        output = {"output_tokens": ANTHROPIC_USAGE["output_tokens"]}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": output}
        yield {"type": "message_stop"}

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
