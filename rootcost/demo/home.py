"""The home folder of a demo: created, or replaced if a demo created it; any other ledger is never touched."""

from __future__ import annotations

import shutil
from pathlib import Path

from ledger import settings as ledger_settings
from ledger.errors import UsageError
from ledger.private import make_private
from ledger.settings import Settings
from rootcost.demo.write import MARKER

COMPANY_FOLDER = "demo"
"""Below the home: the generated company's files."""

_OURS = ("tables", "raw", "spool", COMPANY_FOLDER, "rootcost.toml", "rootcost.db", "rootcost.db-wal", "rootcost.db-shm")
_ANYBODYS = ("tables", "raw", "spool", "rootcost.db", "rootcost.toml")


def is_demo(home: Path) -> bool:
    """Whether a demo created this home."""
    return (home / COMPANY_FOLDER / MARKER).is_file()


def clear(home: Path) -> Path:
    """Removes the files of an earlier demo and returns the folder for the company's files.

    Raises `UsageError` on a home with other data.
    """
    foreign_files = [name for name in _ANYBODYS if (home / name).exists()]
    if foreign_files and not is_demo(home):
        raise UsageError(
            f"this home holds data that no demo made ({', '.join(foreign_files)})",
            where=str(home),
            remedy="the demo goes to a home of its own: rootcost demo --home .rootcost-demo",
        )
    make_private(home)
    company = home / COMPANY_FOLDER
    company.mkdir(parents=True, exist_ok=True)
    # The marker goes last and comes first: a demo that was cut off can still be made again.
    for name in _OURS:
        path = home / name
        if name != COMPANY_FOLDER and path.is_dir():
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    (company / MARKER).touch()
    return company


def put_in_force(home: Path, demo_settings: Path) -> Settings:
    """Installs the company's rootcost.toml and returns the settings.

    Raises `UsageError` if another one, or the environment, stands before it.
    """
    shutil.copyfile(demo_settings, home / "rootcost.toml")
    config_file = ledger_settings.config_path(home)
    if config_file is None or config_file.resolve() != (home / "rootcost.toml").resolve():
        raise UsageError(
            f"{config_file} would be read instead of the demo's own settings",
            where=str(home),
            remedy="run the demo from another folder, and without ROOTCOST_CONFIG",
        )
    settings = ledger_settings.load(home)
    if settings.store.uri or settings.store.database_url:
        raise UsageError(
            "the environment names a store, and the demo only writes to its own folder",
            where="ROOTCOST_STORE__URI, ROOTCOST_STORE__DATABASE_URL",
            remedy="unset them for the demo",
        )
    return settings
