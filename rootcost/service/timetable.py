"""The scheduler's jobs of the configured sources, stored in the database, so that no tick is lost or repeated by a restart.

Only the leader has the timetable open. It looks every second at what people configured, so that a source that is added, paused, resumed or
removed at the command line is on the timetable, or off it, at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ledger import sources
from ledger.db import ConfiguredSource
from ledger.periods import now
from rootcost.operations.cron import trigger

if TYPE_CHECKING:
    from apscheduler.job import Job
    from apscheduler.schedulers.background import BackgroundScheduler

    from ledger.books import Books

STORE: Final = "sources"
"""The scheduler's name of the persistent job store, and of the executor its jobs run on."""
TABLE: Final = "source_jobs"
GRACE: Final = timedelta(days=1)
"""A tick missed within this time is made up for, once; older ones are skipped."""


class Timetable:
    """The jobs of the configured sources. `work` is an importable function of a source's name: the database keeps its address."""

    def __init__(self, books: Books, scheduler: BackgroundScheduler, work: Callable[[str], None]) -> None:
        self._books = books
        self._scheduler = scheduler
        self._work = work

    def open(self) -> None:
        """Attaches the stored jobs to the scheduler."""
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        self._scheduler.add_jobstore(SQLAlchemyJobStore(engine=self._books.database.engine, tablename=TABLE), STORE)
        self.follow()

    def close(self) -> None:
        """Detaches the stored jobs, so that another process can run them."""
        with contextlib.suppress(KeyError):
            self._scheduler.remove_jobstore(STORE, shutdown=False)

    def follow(self) -> None:
        """Synchronises the jobs with the configured sources, and stores when each source is due."""
        jobs = {job.id: job for job in self._scheduler.get_jobs(STORE)}
        configured = {source.name: source for source in sources.list_sources(self._books) if source.uris}
        for name in jobs.keys() - configured.keys():
            self._scheduler.remove_job(name, STORE)
        due_times = {name: self._follow(source, jobs.get(name)) for name, source in configured.items()}
        changed_times = {name: at for name, at in due_times.items() if at != configured[name].due_at}
        if changed_times:
            with self._books.database.session() as session:
                for name, at in changed_times.items():
                    stored_source = session.get(ConfiguredSource, name)
                    if stored_source is not None:
                        stored_source.due_at = at

    def due(self, name: str, at: datetime) -> None:
        """Reads a source at this time instead of its next tick; does nothing if it has no job."""
        from apscheduler.jobstores.base import JobLookupError

        with contextlib.suppress(JobLookupError, KeyError):
            self._scheduler.modify_job(name, STORE, next_run_time=at)

    def _follow(self, source: ConfiguredSource, job: Job | None) -> datetime | None:
        ticks = trigger(source.cron)
        following = None if source.paused else ticks.get_next_fire_time(None, now())
        if job is None:
            settings: dict[str, Any] = {
                "args": [source.name],
                "id": source.name,
                "name": source.cron,
                "jobstore": STORE,
                "executor": STORE,
            }
            self._scheduler.add_job(
                self._work, ticks, **settings, next_run_time=following, coalesce=True, max_instances=1,
                misfire_grace_time=int(GRACE.total_seconds()), replace_existing=True,
            )  # fmt: skip
            return following
        planned_at: datetime | None = job.next_run_time
        if job.name != source.cron:
            self._scheduler.modify_job(source.name, STORE, trigger=ticks, name=source.cron, next_run_time=following)
            return following
        # A source that was fixed and run by hand must not wait for the end of its backoff.
        late = following is not None and planned_at is not None and not source.failures and planned_at > following
        if late or (planned_at is None) != (following is None):
            self._scheduler.modify_job(source.name, STORE, next_run_time=following)
            return following
        return planned_at
