"""What happens by itself while RootCost serves: telemetry is booked, months are attributed, alerts are sent.

    drain      every serve.drain_seconds       spool → ledger; when something came, attribute is due at once
    attribute  every serve.attribute_seconds   months whose facts, owners, prices or settings changed; then budgets
    deliver    every serve.attribute_seconds   alerts that have not reached their address

An idle round reads a few file names and writes nothing. A round that did something, or failed, is a row in `job_runs`. Jobs
are idempotent: one that was cut off is simply done again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ledger.errors import RootCostError
from ledger.periods import now

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

    from ledger.books import Books
    from ledger.spool import Spool

log = logging.getLogger("rootcost.schedule")

Detail = Mapping[str, Any]
"""What a round did, as it is kept in `job_runs`; empty: nothing."""


class Jobs:
    """The jobs themselves, free of clocks: each is one call that does what is due and tells what it did."""

    def __init__(self, books: Books, spool: Spool) -> None:
        from rootcost.deliver import Outbox

        self.books = books
        self.spool = spool
        self.turn = threading.Lock()
        self._outbox = Outbox(books)
        self._seen: dict[str, str] = {}

    def drain(self) -> Detail:
        """Moves received telemetry from the spool to the ledger."""
        from rootcost.lock import writing

        waiting = len(self.spool.pending())
        if not waiting:
            return {}
        with self.turn, writing(self.books.home):
            return {"deliveries": waiting, "rows": self.spool.drain(self.books.store)}

    def attribute(self) -> Detail:
        """Attributes the months that changed since the last round, evaluates budgets and sends new alerts."""
        from rootcost.months import changed, state

        before = state(self.books)
        months = changed(self._seen, before)
        if not months:
            self._seen = before
            return {}
        from attribution import anomalies, budgets
        from attribution.run import LIVE, attribute
        from rootcost.lock import writing
        from rootcost.pricebook import at_hand

        with self.turn, writing(self.books.home):
            at_hand(self.books)
            report = attribute(self.books, months, cause=LIVE)
            alerts = budgets.evaluate(self.books)
            anomalies.detect(self.books, report.months)
        # Facts that arrived meanwhile differ from `before`, so the next round sees them.
        self._seen = before
        self.deliver()
        if not report.months and not alerts:
            return {}
        return {"run_id": report.run_id, "months": report.months, "published": report.published, "alerts": len(alerts)}

    def deliver(self) -> Detail:
        """Sends the alerts that are due."""
        done = self._outbox.deliver()
        return {"sent": done.sent, "failed": done.failed} if done.sent or done.failed else {}


class Schedule:
    """The jobs on a clock."""

    def __init__(self, books: Books, spool: Spool) -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        self.jobs = Jobs(books, spool)
        self._books = books
        self._due_at = float("-inf")
        serve = books.settings.serve
        self._scheduler: BackgroundScheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(3)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
        )
        self._add("drain", self._drain, serve.drain_seconds)
        self._add("attribute", self._attribute, serve.attribute_seconds)
        self._add("deliver", self.jobs.deliver, serve.attribute_seconds)

    def _add(self, name: str, work: Callable[[], Detail], seconds: float) -> None:
        self._scheduler.add_job(lambda: self.run(name, work), "interval", id=name, seconds=seconds, next_run_time=now())

    def start(self) -> None:
        """Starts the clock; every job runs once at once."""
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler.start()

    def stop(self, *, patience_seconds: float) -> bool:
        """Stops the clock, lets the round in hand end, and books what is still in the spool; false if that took too long.

        What is left in the spool is safe there: the next start books it.
        """
        if not self._scheduler.running:
            return True
        self._scheduler.pause()
        deadline = time.monotonic() + patience_seconds
        if not self.jobs.turn.acquire(timeout=patience_seconds):
            self._scheduler.shutdown(wait=False)
            return False
        self.jobs.turn.release()
        self.run("drain", self.jobs.drain)
        self._scheduler.shutdown(wait=False)
        return time.monotonic() <= deadline

    def run(self, name: str, work: Callable[[], Detail]) -> Detail:
        """One round of a job, with its history. A failure is written down, not raised: the next round comes anyway."""
        started = now()
        try:
            detail, status = work(), "done"
        except RootCostError as fault:
            log.warning("%s: %s", name, fault)
            detail, status = {"error": str(fault)}, "failed"
        except Exception as fault:  # the scheduler must survive; the log has the traceback
            log.exception("%s failed", name)
            detail, status = {"error": f"{type(fault).__name__}: {fault}"}, "failed"
        if detail:
            self._note(name, started, status, detail)
        return detail if status == "done" else {}

    def _drain(self) -> Detail:
        detail = self.jobs.drain()
        if detail and time.monotonic() >= self._due_at:
            self._scheduler.modify_job("attribute", next_run_time=now())
        return detail

    def _attribute(self) -> Detail:
        """Not more often than the setting says, and never more than a third of the time, however large the month."""
        if time.monotonic() < self._due_at:
            return {}
        started = time.monotonic()
        detail = self.jobs.attribute()
        if detail:
            ended = time.monotonic()
            self._due_at = ended + max(self._books.settings.serve.attribute_seconds - 0.5, 2 * (ended - started))
        return detail

    def _note(self, name: str, started: datetime, status: str, detail: Detail) -> None:
        from ledger.db import JobRun

        try:
            with self._books.database.session() as session:
                session.add(JobRun(job=name, started_at=started, finished_at=now(), status=status, detail=dict(detail)))
        except Exception:  # history is not worth stopping for
            log.exception("the history of %s could not be kept", name)
