"""`make source`: what it writes passes ruff, mypy and its own test at once, in a copy of the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import new_source
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a source stands on: the ledger, ingest, and the helpers of the tests."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("ledger", "ingest", "tests/support"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py", "tests/ingest/__init__.py", "tests/ingest/sources/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_scaffolded_sources_pass_ruff_mypy_and_their_own_tests(copy: Path) -> None:
    assert new_source.main(["acme-bill", "bill", "--root", str(copy)]) == 0
    assert new_source.main(["acme-log", "log", "--folder", "--root", str(copy)]) == 0
    paths = [
        "ingest/sources/acme_bill.py",
        "ingest/sources/acme_log",
        "tests/ingest/sources/test_acme_bill.py",
        "tests/ingest/sources/test_acme_log.py",
    ]
    run(copy, "ruff", "check", "--no-cache", *paths)
    run(copy, "ruff", "format", "--no-cache", "--check", *paths)
    types = ("--config-file", "mypy.ini", "--no-incremental", "--follow-imports", "silent")
    (copy / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    run(copy, "mypy", *types, "ingest/sources/acme_bill.py", "ingest/sources/acme_log/source.py")
    run(copy, "pytest", "-q", "-p", "no:cacheprovider", *paths[2:])
    for name in ("acme-bill", "acme-log"):
        page = (copy / f"docs/sources/{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {name}\n") and f"rootcost ingest {name} " in page


def test_a_name_that_is_taken_or_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_source.main(["Acme", "--root", str(tmp_path)]) == 2
    assert new_source.main(["acme", "--root", str(tmp_path)]) == 0
    assert new_source.main(["acme", "bill", "--root", str(tmp_path)]) == 2
    assert "there is ingest/sources/acme.py already" in capsys.readouterr().err
