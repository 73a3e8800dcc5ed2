"""Runs the tasks of `attribution.usage.build` on a Dask cluster. (The extra ``cluster``.)

A task names a partition and carries no data: workers read spans from the store and stage their rows there; only the names of the staged
files come back. Staged files are not visible before the driver commits them, so the task of a worker that dies is retried on another
machine, and a driver that dies has published nothing. All machines must see the same store: S3, or a shared folder.
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
    """A client of a Dask scheduler; a context manager that closes it."""

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
        """Submits the tasks to free workers; the context is sent to each worker once, without passing through the scheduler."""
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
        """Disconnects from the scheduler; its workers keep running."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
