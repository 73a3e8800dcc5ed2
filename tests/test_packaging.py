"""The wheel holds the six packages, and everything they read at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = {"ledger", "ingest", "attribution", "api", "ui", "rootcost"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("rootcost-*.whl")
    return zipfile.ZipFile(built)


def test_top_level_names_are_the_six_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == PACKAGES


def test_whatever_the_packages_read_is_inside(wheel: zipfile.ZipFile) -> None:
    """Every file of the packages that is no byte code is in the wheel: migrations, mapping tables, the dashboard's theme."""
    inside = set(wheel.namelist())
    on_disk = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert not on_disk - inside
    assert "ledger/migrations/env.py" in inside
    assert any(name.startswith("ledger/migrations/versions/v0001") for name in inside)
    assert "ledger/py.typed" in inside


def test_the_licence_and_the_command_come_along(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "rootcost = rootcost.cli:main" in wheel.read(points).decode()


def test_the_dashboards_files_are_where_serve_looks_for_them() -> None:
    spec = find_spec("ui")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert (Path(next(iter(spec.submodule_search_locations))) / "app.py").is_file()
