"""The scheduler of `rootcost serve`: reads sources, stores telemetry, attributes months, sends alerts.

    lead       every second                    whether this process is the one that does what is marked * below
    drain      every serve.drain_seconds       spool → ledger; when something came, attribute is due at once
    sources *  each at its own cron            bills and logs → ledger (see `rootcost.service.timetable`)
    watch *    every half minute               sources whose newest row is older than it should be
    attribute* every serve.attribute_seconds   months whose facts, owners, prices or settings changed; then budgets, also where only they did
    runaway *  every serve.attribute_seconds   chains that run away, by the spans that have arrived
    maintain * every maintenance.every_seconds  small files are merged, and what nobody needs is removed
    backup *   at each tick of backup.cron     a backup is made, and old ones are removed (see `rootcost.service.backups`)
    deliver *  every serve.attribute_seconds   messages about alerts that are due (see `rootcost.alerting.dispatch`)

An idle round reads a few file names and writes nothing. A round that did something, or failed, is a row in `job_runs`, and the reading of a
source one in `source_runs`. Jobs are idempotent: one that was cut off is simply done again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ledger import disk
from ledger.addresses import masked
from ledger.errors import DiskFull, RootCostError, SettingsError, StoreUnreachable
from ledger.periods import now
from rootcost.service.jobs import Detail, Jobs

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

    from ledger.books import Books
    from ledger.spool import Spool

log = logging.getLogger("rootcost.schedule")


HEAD_SECONDS = 60.0
"""How often the head of the audit log is written outside of the database, if there is a new one."""

BEAT_SECONDS = 60.0
"""How often heartbeats are sent at most, each after an evaluation."""

WATCH_SECONDS = 30.0
"""How often sources are checked for staleness."""

_serving: Schedule | None = None
"""The schedule of this process. The database stores a job as a function's address and a name, so the object is found here."""


def run_scheduled(name: str) -> None:
    """Reads a configured source because it is due."""
    if _serving is not None:
        _serving.read(name)


class Schedule:
    """Runs the jobs at their times. `address` is the URL this process serves, for display."""

    def __init__(self, books: Books, spool: Spool, *, address: str = "") -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        from rootcost.service import backups
        from rootcost.service.leader import POLL_SECONDS, Leadership
        from rootcost.service.timetable import STORE, Timetable

        self.backups = backups.ScheduledBackups(books)
        self.jobs = Jobs(books, spool)
        self.leadership = Leadership(books, address)
        self.error: RootCostError | None = None
        self._books = books
        self._due_at = self._beat_at = float("-inf")
        self._evaluated_at = float("-inf")
        self._led = False
        self._quiet = False
        self._reading = 0
        self._count = threading.Lock()
        self._last_errors: dict[str, str] = {}
        serve = books.settings.serve
        self._scheduler: BackgroundScheduler = BackgroundScheduler(
            timezone="UTC",
            # A thread per job, so that none waits for another: leadership must be renewed in time.
            executors={"default": ThreadPoolExecutor(8), STORE: ThreadPoolExecutor(2)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
        )
        self.timetable = Timetable(books, self._scheduler, run_scheduled)
        self._scheduler.add_job(self._lead, "interval", id="lead", seconds=POLL_SECONDS)
        self._add("drain", self._drain, serve.drain_seconds)
        self._add("attribute", self._led_only(self._attribute), serve.attribute_seconds)
        self._add("runaway", self._led_only(self.jobs.find_runaways), serve.attribute_seconds)
        self._add("deliver", self._led_only(self.jobs.deliver), serve.attribute_seconds)
        self._add("watch", self._led_only(self._watch), WATCH_SECONDS)
        if books.settings.audit.heads_uri:
            self._add("audit", self._led_only(self.jobs.keep_head), HEAD_SECONDS)
        self._add(backups.JOB, self._led_only(self.backups.make_if_due), backups.POLL_SECONDS)
        pause = timedelta(seconds=books.settings.maintenance.every_seconds)
        self._add("maintain", self._led_only(self.jobs.maintain), pause.total_seconds(), first_at=now() + pause)

    def _add(self, name: str, work: Callable[[], Detail], seconds: float, *, first_at: datetime | None = None) -> None:
        self._scheduler.add_job(
            lambda: self.run(name, work), "interval", id=name, seconds=seconds, next_run_time=first_at or now()
        )

    def _led_only(self, work: Callable[[], Detail]) -> Callable[[], Detail]:
        return lambda: work() if self.leadership.leads else {}

    def start(self) -> None:
        """Starts the scheduler; every job runs once immediately."""
        global _serving
        _serving = self
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler.start(paused=True)
        self._lead()
        self._scheduler.resume()

    def stop(self, *, patience_seconds: float) -> bool:
        """Stops the scheduler, waits for running jobs, and drains the spool; false if that took too long.

        Telemetry still in the spool is stored at the next start, and an interrupted source is read again then.
        """
        if not self._scheduler.running:
            return True
        self._scheduler.pause()
        self.backups.stop()
        # Before the scheduler ends, which processes due jobs once more: a tick would be lost.
        self.timetable.close()
        deadline = time.monotonic() + patience_seconds
        while self._reading and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._reading or not self.jobs.turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._scheduler.shutdown(wait=False)
            return False
        self.jobs.turn.release()
        self.run("drain", self.jobs.drain)
        self._scheduler.shutdown(wait=False)
        self.leadership.resign()
        return time.monotonic() <= deadline

    def evaluator_delay(self) -> str:
        """That alerts have not been evaluated for two periods longer than they should; empty while they are, and where another process leads."""
        if not self._led:
            return ""
        period = max(BEAT_SECONDS, self._books.settings.serve.attribute_seconds)
        age_seconds = time.monotonic() - self._evaluated_at
        if age_seconds - max(self._due_at - self._evaluated_at, 0.0) <= 2 * period:
            return ""
        return f"alerts were evaluated last {age_seconds:.0f} seconds ago; see rootcost.log for the last error of attribute"

    def read(self, name: str) -> None:
        """Reads a source now, and schedules a retry if that failed."""
        from ledger import sources
        from rootcost.operations.source_runs import BY_CLOCK, backoff, read_source

        source = next((s for s in sources.list_sources(self._books) if s.name == name), None)
        if source is None or source.paused:
            return
        try:
            disk.require_room(self._books.folders)
        except DiskFull as error:
            log.warning("%s is not read now: %s", name, error)
            self.timetable.due(name, now() + backoff(source.failures + 1))
            return
        with self._count:
            self._reading += 1
        try:
            finished_run = read_source(self._books, source, cause=BY_CLOCK)
        finally:
            with self._count:
                self._reading -= 1
        if finished_run.run.status == "failed":
            self.timetable.due(name, now() + backoff(source.failures + 1))
        if finished_run.run.rows_changed and time.monotonic() >= self._due_at:
            self._scheduler.modify_job("attribute", next_run_time=now())

    def _lead(self) -> None:
        """Becomes, stays or stops being the leader, and opens or closes the sources' timetable accordingly."""
        try:
            leads = self.leadership.keep()
            if leads and not self._led:
                self._take_over()
            elif leads:
                self.timetable.follow()
            self._quiet = False
        except SettingsError as error:
            self.error, leads = error, False
        except Exception as error:  # noqa: BLE001 - without a database nobody leads; it is said once, not every second
            leads = False
            if not self._quiet:
                log.warning("no lead: %s", error)
            self._quiet = True
        if not leads:
            self.leadership.resign()
            self.timetable.close()
        if leads and not self._led:
            self._evaluated_at = time.monotonic()  # what another process did before is not this one's delay
        self._led = leads

    def _take_over(self) -> None:
        """Takes over the work of the previous leader."""
        from ledger.recovery import recover
        from ledger.sources import process

        recover(self._books)
        self.timetable.open()
        self._mend()
        self._note("lead", now(), "done", {"process": process()})

    def _watch(self) -> Detail:
        self._mend()
        return self.jobs.watch()

    def _mend(self) -> None:
        """Closes the runs of processes that died, and makes scheduled ones due at once."""
        from ledger import sources
        from ledger.locks import lock_of
        from rootcost.operations.source_runs import BY_CLOCK

        for run in sources.unfinished(self._books):
            lock = lock_of(self._books, f"source-{run.source}")
            if not lock.acquire():
                continue  # another process is still running it
            lock.release()
            if sources.cut_off(self._books, run.id) and run.cause == BY_CLOCK:
                self.timetable.due(run.name, now())

    def run(self, name: str, work: Callable[[], Detail]) -> Detail:
        """Runs a job once and records it. An error is recorded, not raised: the job runs again at its next time.

        An error that lasts, such as a full disk, is recorded when it begins. Without room on the disk no job is begun.
        """
        started_at = now()
        try:
            if name != "maintain":  # which makes room
                disk.require_room(self._books.folders)
            detail, status = work(), "done"
        except RootCostError as error:
            detail, status = {"error": str(error)}, "failed"
        except Exception as error:  # the scheduler must go on; the log has the traceback
            disk_error = disk.error_of(error, self._books.home)
            if disk_error is None:
                log.exception("%s failed", name)
            detail, status = {"error": masked(str(disk_error or f"{type(error).__name__}: {error}"))}, "failed"
        if self._is_news(name, status, detail) and detail:
            self._note(name, started_at, status, detail)
        return detail if status == "done" else {}

    def _is_news(self, name: str, status: str, detail: Detail) -> bool:
        """Whether this is not the error that the job ended with last time. Errors that begin or end are logged."""
        error = str(detail["error"]) if status == "failed" else ""
        last_error = self._last_errors.get(name, "")
        self._last_errors[name] = error
        if error and error != last_error:
            log.warning("%s: %s", name, error)
        elif last_error and not error:
            log.info("%s: goes on after: %s", name, last_error)
        return not error or error != last_error

    def _drain(self) -> Detail:
        detail = self.jobs.drain()
        if detail and time.monotonic() >= self._due_at:
            self._scheduler.modify_job("attribute", next_run_time=now())
        return detail

    def _attribute(self) -> Detail:
        """Attributes at most as often as the setting says, for at most a third of the time, and without filling the disk."""
        if time.monotonic() < self._due_at:
            return {}
        from ledger.maintenance import pause_seconds

        started_at, started_seconds = now(), time.monotonic()
        detail = self.jobs.attribute()
        self._evaluated_at = time.monotonic()
        if self._evaluated_at >= self._beat_at:
            self._beat_at = self._evaluated_at + BEAT_SECONDS
            self.jobs.beat()
        if detail:
            ended_seconds = time.monotonic()
            self._due_at = ended_seconds + max(
                self._books.settings.serve.attribute_seconds - 0.5,
                2 * (ended_seconds - started_seconds),
                pause_seconds(self._books, started_at),
            )
        return detail

    def _note(self, name: str, started_at: datetime, status: str, detail: Detail) -> None:
        from ledger.db import JobRun

        try:
            with self._books.database.session() as session:
                session.add(JobRun(job=name, started_at=started_at, finished_at=now(), status=status, detail=dict(detail)))
        except StoreUnreachable as error:  # a lost row of history must not stop the scheduler
            log.warning("the history of %s could not be kept: %s", name, error)
        except Exception:
            log.exception("the history of %s could not be kept", name)
