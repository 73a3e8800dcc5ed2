"""A command imports only what it runs: `--help` is instant, and litellm is never imported."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {
    "polars",
    "deltalake",
    "pyarrow",
    "fastapi",
    "uvicorn",
    "boto3",
    "streamlit",
    "sqlalchemy",
    "pydantic",
    "httpx",
    "rich",
    "litellm",
    "pandas",
    "numpy",
}


def loaded_by(code: str, home: Path) -> set[str]:
    """Top-level names in sys.modules after running `code` in a fresh interpreter."""
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nsys.stderr.write('\\n@' + ' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=_environment(home), check=False
    )
    assert "@" in done.stderr, done.stderr
    return set(done.stderr.rsplit("@", 1)[1].split())


def _environment(home: Path) -> dict[str, str]:
    import os

    return {**os.environ, "ROOTCOST_HOME": str(home)}


def command(*arguments: str) -> str:
    return f"sys.argv = ['rootcost', *{arguments!r}]; from rootcost.cli import main; main()"


def test_help_loads_nothing_heavy(home: Path) -> None:
    assert not loaded_by(command("--help"), home) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ("costs",),
        ("balance", "--format", "json"),
        ("problems",),
        ("agents", "list"),
        ("budgets", "list"),
        ("config", "show"),
        ("sources", "list"),
    ],
    ids=" ".join,
)
def test_no_command_imports_litellm_or_the_servers(arguments: tuple[str, ...], home: Path) -> None:
    assert not loaded_by(command(*arguments), home) & {"litellm", "streamlit", "uvicorn", "boto3", "moto"}


@pytest.mark.slow
def test_nor_do_the_prices_the_api_and_the_scheduler(home: Path) -> None:
    assert "litellm" not in loaded_by(command("prices", "import"), home)
    assert "litellm" not in loaded_by(
        "import api.app, rootcost.service.serve, rootcost.schedule, ingest.run, attribution.run", home
    )


def test_help_takes_less_than_half_a_second() -> None:
    """The best of five: other tests may keep the machine busy."""
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rootcost.cli", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5, seconds
