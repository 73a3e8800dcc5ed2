"""Slices drawn on other machines: the same kernel over the same orders, on a Dask cluster. (The extra ``cluster``.)

An order names a slice, it does not carry it: workers read spans from the store and stage what they draw beside its tables, and only the
names of the staged files come back. Nothing they stage is visible before the driver commits it, so a worker that dies is asked again on
another machine, and a driver that dies has published nothing. All machines must see the same store: S3, or a folder they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

from attribution.usage.build import BuildContext, Task, TaskResult, run_task
from ledger.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

REMEDY = "install the extra: pip install 'rootcost[cluster]'"


class DaskExecutor:
    """The workers behind a Dask scheduler. Close it, or use it in a `with`."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as fault:
            raise UsageError("dask.distributed is not installed", where="--cluster", remedy=REMEDY) from fault
        try:
            self.client: Client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as fault:
            raise UsageError(
                f"no Dask scheduler answers at {address}: {fault}",
                where="--cluster",
                remedy="start one with `dask scheduler`, workers with `dask worker tcp://127.0.0.1:8786`, and name its tcp:// address",
            ) from fault

    def deliver(self, ground: BuildContext, orders: Sequence[Task]) -> Iterator[TaskResult]:
        """Draws the orders wherever there is room; the ground is sent to each worker once, past the scheduler."""
        from distributed import as_completed

        if not orders:
            return
        shared = self.client.scatter(ground, broadcast=True, direct=True, hash=False)
        due = [self.client.submit(run_task, shared, order, pure=False, retries=3) for order in orders]
        try:
            for done in as_completed(due, loop=self.client.loop):
                yield done.result()
        finally:
            self.client.cancel(due)

    def close(self) -> None:
        """Lets go of the scheduler; its workers stay."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()
