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
        except ImportError as error:
            raise UsageError("dask.distributed is not installed", where="--cluster", remedy=REMEDY) from error
        try:
            self.client: Client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {address}: {error}",
                where="--cluster",
                remedy="start one with `dask scheduler`, workers with `dask worker tcp://127.0.0.1:8786`, and name its tcp:// address",
            ) from error

    def run(self, context: BuildContext, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        """Draws the orders wherever there is room; the ground is sent to each worker once, past the scheduler."""
        from distributed import as_completed

        if not tasks:
            return
        context_future = self.client.scatter(context, broadcast=True, direct=True, hash=False)
        futures = [self.client.submit(run_task, context_future, task, pure=False, retries=3) for task in tasks]
        try:
            for future in as_completed(futures, loop=self.client.loop):
                yield future.result()
        finally:
            self.client.cancel(futures)

    def close(self) -> None:
        """Lets go of the scheduler; its workers stay."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
