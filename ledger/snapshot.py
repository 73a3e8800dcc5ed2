"""Tables as they are at one moment: what reads them for minutes keeps nobody from writing, and sees none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deltalake import DeltaTable

from ledger.schema import Table
from ledger.store import Store


class StoreSnapshot(Store):
    """A store in which some tables stay as they were after a commit, or (None) before their first. These are only read through it."""

    def __init__(self, root: str, storage_options: Mapping[str, str], versions: Mapping[str, int | None]) -> None:
        super().__init__(root, storage_options)
        self._versions = dict(versions)
        self._deltas: dict[str, DeltaTable] = {}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the snapshot as its address and versions, for other processes."""
        return StoreSnapshot, (self.root, self.storage_options, self._versions)

    def newest(self, table: Table) -> DeltaTable | None:
        """The Delta table, to be read only."""
        return self.delta(table) if table.name in self._versions else super().newest(table)

    def version(self, table: Table) -> int | None:
        """Number of the commit that is read, None where there was none yet."""
        return self._versions[table.name] if table.name in self._versions else super().version(table)

    def delta(self, table: Table, *, version: int | None = None) -> DeltaTable | None:
        """The Delta table, or None where it had no commit yet."""
        if version is None and table.name in self._versions:
            version = self._versions[table.name]
            if version is None:
                return None
            # A commit stays what it is, so it is opened once; two threads that open it at once open the same.
            if (delta := self._deltas.get(table.name)) is None and (delta := super().delta(table, version=version)) is not None:
                self._deltas[table.name] = delta
            return delta
        return super().delta(table, version=version)


def snapshot(store: Store, tables: Iterable[Table]) -> StoreSnapshot:
    """The store with these tables as they are now; it shares locks and pending syncs with the store."""
    same_store = StoreSnapshot(store.root, store.storage_options, {table.name: store.version(table) for table in tables})
    same_store._lock, same_store._table_sync = store._lock, store._table_sync
    return same_store
