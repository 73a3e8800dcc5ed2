"""The error classes of RootCost.

    RootCostError
    ├── UsageError             the command or request cannot mean anything              exit 2
    │   ├── SettingsError      rootcost.toml or the environment is wrong
    │   └── PortTakenError     another process already listens on the port
    ├── DeniedError            the principal may not see or do that
    ├── SourceError            a whole input cannot be used; other inputs are unaffected
    │   ├── ObjectMissingError a manifest or a command names something that is not there
    │   ├── FormatError        the bytes are not the format they claim to be
    │   └── StoreUnreachable   S3, a database or a disk does not answer
    │       ├── SpoolFull      received telemetry waits on disk up to its limit; the sender must try again later
    │       └── DiskFull       a disk has no room; everything goes on by itself when it has
    ├── LedgerDamagedError     the ledger's own files or tables are damaged, and not in a way that is repaired by itself
    ├── LedgerVersionError     a newer version of RootCost wrote the ledger
    ├── TableError             a frame does not fit the table it is written to (a defect of RootCost)
    └── BalanceError           charges in and costs out differ: nothing is published      exit 3

A bad *row* is not an exception: it becomes a `Problem` (see `ledger.problems`), and the other rows are processed.
"""

from __future__ import annotations

from ledger.addresses import masked


class RootCostError(Exception):
    """An error a user can act on: `what` went wrong, `where`, and the `remedy`. Secrets of addresses are not in it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = masked(what), masked(where), remedy
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.remedy:
            parts.append(self.remedy)
        return " — ".join(parts)


class UsageError(RootCostError):
    """The command or request cannot mean anything."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown or has a value it cannot have."""


class PortTakenError(UsageError):
    """Another process already listens on the port."""


class DeniedError(RootCostError):
    """The principal may not see or do that."""


class SourceError(RootCostError):
    """A whole input cannot be used; other inputs are unaffected."""


class ObjectMissingError(SourceError):
    """A manifest or a command names an object that is not there."""


class FormatError(SourceError):
    """The bytes are not the format they claim to be."""


class StoreUnreachable(SourceError):
    """S3, a database or a disk does not answer."""


class SpoolFull(StoreUnreachable):
    """Received telemetry waits on disk up to its limit; the sender must try again later."""


class DiskFull(StoreUnreachable):
    """A disk has no room for what must be written; everything goes on by itself when it has."""


class LedgerDamagedError(RootCostError):
    """The ledger's own files or tables are damaged, and not in a way that is repaired by itself."""


class LedgerVersionError(RootCostError):
    """A newer version of RootCost wrote the ledger."""


class TableError(RootCostError):
    """A frame does not fit the table it is written to."""


class BalanceError(RootCostError):
    """Charges in and costs out differ; the run is not published."""

    exit_code = 3
