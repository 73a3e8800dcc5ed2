"""Purge: nothing stays on disk but what the newest version of a table, or a row of the database, consists of.

Unlike `ledger.vacuum`, which leaves earlier versions to readers and explanations for a while, it is for what must be gone: facts of a person.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import sqlalchemy as sa

from ledger import table_log
from ledger.books import Books
from ledger.db import Base
from ledger.locations import location
from ledger.store import Store
from ledger.table_files import table_files
from ledger.tables import TABLES, Table
from ledger.vacuum import vacuum


def purge(books: Books) -> None:
    """Removes earlier versions of the tables with their logs, and the free pages of the database.

    The caller holds the locks for backups, for attributing and for writing. Whoever reads an earlier version meanwhile fails.
    """
    for table in TABLES.values():
        if books.store.delta(table) is not None:
            _forget_earlier_versions(books.store, table)
            if "://" in books.store.root:
                _remove_other_objects(books.store, table)
            else:
                vacuum(books.store, table, timedelta(0))
                shutil.rmtree(Path(books.store.uri(table)) / "_damaged", ignore_errors=True)
    _shrink_database(books)


def _forget_earlier_versions(store: Store, table: Table) -> None:
    """Leaves a table's log with one commit without content, and a checkpoint: commits hold texts of the files that they add."""
    store.replace_actions(table, [], note="earlier versions were erased")
    store.sync()
    delta = store.delta(table)
    if delta is None:
        return
    delta.create_checkpoint()
    folder = location(store.uri(table), store.storage_options)
    for path in folder.sizes(table_log.LOG):
        version = table_log.version_of(path.rsplit("/", 1)[-1])
        if version is not None and version < delta.version():
            folder.remove(path)
    folder.sync()


def _remove_other_objects(store: Store, table: Table) -> None:
    """Removes every object of a table on S3 but its log and the files of its newest version."""
    needed_paths = {unquote(file.path) for file in table_files(store, table)}
    folder = location(store.uri(table), store.storage_options)
    for path in folder.sizes():
        if path not in needed_paths and not path.startswith(f"{table_log.LOG}/"):
            folder.remove(path)


def _shrink_database(books: Books) -> None:
    engine = books.database.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(sa.text("VACUUM"))
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
            return
        for name in Base.metadata.tables:
            connection.execute(sa.text(f'VACUUM FULL "{name}"'))
