"""A real LiteLLM proxy as a process on loopback, sending what it sees to a given receiver."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
KEY = "sk-of-the-proxy-under-test"


def venv() -> Path:
    """Where the proxy is installed: ROOTCOST_PROXY_VENV, else .venv-proxy beside the code."""
    return Path(os.environ.get("ROOTCOST_PROXY_VENV") or HERE.parents[1] / ".venv-proxy")


def why_absent() -> str | None:
    """Why the proxy cannot be started here; None if it can."""
    command = venv() / "bin" / "litellm"
    return None if command.is_file() else f"no LiteLLM proxy at {venv()}: install tests/proxy/requirements.lock there"


class Proxy:
    """The proxy: started when made, ready after `until_ready`, ended by `stop`."""

    def __init__(
        self,
        *,
        port: int,
        upstream: str,
        receiver: str,
        token: str,
        folder: Path,
        config: Path = HERE / "config.yaml",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "proxy.log"
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        environment = kept | {
            "HOME": str(folder),
            "UPSTREAM_OPENAI": f"{upstream}/v1",
            "UPSTREAM_ANTHROPIC": upstream,
            "PROXY_KEY": KEY,
            "ROOTCOST_PAYLOADS": f"{receiver}/v1/litellm",
            "ROOTCOST_AUTHORIZATION": f"Bearer {token}",
            "OTEL_EXPORTER": "otlp_http",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "otlp_http",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver,
            "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer {token}",
            "OTEL_BSP_SCHEDULE_DELAY": "300",
            "OTEL_SERVICE_NAME": "gateway",
            "USE_OTEL_LITELLM_REQUEST_SPAN": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
            "DEFAULT_S3_FLUSH_INTERVAL_SECONDS": "1",
            "LITELLM_LOG": "WARNING",
        }
        environment |= dict(more or {})
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    venv() / "bin" / "litellm",
                    "--config",
                    config,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                    "--telemetry",
                    "False",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def until_ready(self, seconds: float = 120) -> Proxy:
        """Waits until it answers."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/health/liveliness", timeout=5).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.3)

    def ask(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One request of a client of the gateway."""
        return httpx.post(
            f"{self.url}{path}", json=body, headers={"Authorization": f"Bearer {KEY}"} | dict(headers or {}), timeout=60
        )

    def chat(self, model: str = "gpt-4o", *, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
        """One chat completion."""
        asked = {"model": model, "messages": [{"role": "user", "content": "a prompt to keep private"}]} | body
        return self.ask("/v1/chat/completions", asked, headers)

    def stop(self) -> None:
        """Ends it and what it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(timeout=15)
