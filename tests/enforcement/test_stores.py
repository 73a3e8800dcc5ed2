"""PostgreSQL and Redis do what the state machine does: the same random schedules, the same slow model, kills."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.enforcement.run import run_schedules
from tests.proxy.process import venv, why_absent
from tests.support.paths import ROOT
from tests.support.postgres_server import postgres_server
from tests.support.redis_server import redis_server


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql_comes_to_the_same_as_the_slow_model() -> None:
    with postgres_server() as url:
        address = url.replace("postgresql+psycopg://", "postgresql://")
        assert asyncio.run(run_schedules(address, 1, 30, 60)) >= 30 * 60


@pytest.mark.slow
@pytest.mark.proxy
@pytest.mark.skipif(why_absent() is not None, reason=why_absent() or "")
def test_redis_comes_to_the_same_as_the_slow_model_and_survives_kills(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        process = subprocess.run(
            [
                venv() / "bin" / "python",
                "-m",
                "tests.enforcement.run",
                "--store",
                server.url,
                "--schedules",
                "60",
                "--steps",
                "60",
                "--kills",
                "6",
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'plugins' / 'litellm'}:{ROOT}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    assert "60 schedules" in process.stdout
    assert "6 kills" in process.stdout
