"""The jobs of `rootcost serve` without their schedule: each call does what is due and returns what it did (see `rootcost.service.schedule`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ledger.alerts import alert_id
from ledger.periods import now

if TYPE_CHECKING:
    from ledger.books import Books
    from ledger.spool import Spool

Detail = Mapping[str, Any]
"""What a round did, as it is kept in `job_runs`; empty: nothing."""


class Jobs:
    """The jobs without their schedule: each call does what is due and returns what it did."""

    def __init__(self, books: Books, spool: Spool) -> None:
        from attribution.monitoring.runaway_chains import RunawayWatch
        from rootcost.alerting.dispatch import Dispatcher

        self.books = books
        self.spool = spool
        self.turn = threading.Lock()
        """Held while attributing."""
        self._draining = threading.Lock()
        self._dispatcher = Dispatcher(books)
        self._runaway_watch = RunawayWatch(books)
        self._seen: dict[str, str] = {}
        self._seen_budgets: str | None = None
        self._outdated_removed_on: date | None = None

    def drain(self) -> Detail:
        """Moves received telemetry from the spool to the ledger; also while a run attributes, which reads a snapshot."""
        from ledger.locks import write_lock

        waiting = len(self.spool.pending())
        if not waiting:
            return {}
        with self._draining, write_lock(self.books):
            return {"deliveries": waiting, "rows": self.spool.drain(self.books.store)}

    def attribute(self) -> Detail:
        """Attributes the months that changed since the last round, evaluates budgets and decides about alerts."""
        from ledger.published import runs_in_force
        from rootcost.service.changed_months import budget_fingerprint, input_fingerprints, months_to_check

        before, budget_state = input_fingerprints(self.books), budget_fingerprint(self.books)
        months = months_to_check(self._seen, before)
        has_new_budgets = self._seen_budgets not in (None, budget_state)
        self._seen_budgets = budget_state
        # A month without facts is attributed only where it is published: its facts were withdrawn, and its figures must follow.
        published_months = runs_in_force(self.books.database)
        months = [month for month in months if month in before or month in published_months]
        if not months:
            self._seen = before
            return self._evaluate_budgets() if has_new_budgets else {}
        from attribution.monitoring import anomalies, budgets
        from attribution.run import LIVE, attribute
        from ledger.locks import attribution_lock, write_lock
        from rootcost.pricebook import at_hand

        with self.turn, attribution_lock(self.books):
            with write_lock(self.books):
                at_hand(self.books)
            report = attribute(self.books, months, cause=LIVE)
            attributed_months, other_code = report.months, report.other_code
            if report.stale:
                report = attribute(self.books, report.stale, cause=LIVE)
                attributed_months, other_code = [*attributed_months, *report.months], [*other_code, *report.other_code]
            alerts = budgets.evaluate(self.books)
            anomalies.detect(self.books, attributed_months)
        # Facts that arrived during the run differ from `before`, so the next run processes them.
        self._seen = before
        if not attributed_months and not alerts:
            return {}
        detail = {"run_id": report.run_id, "months": attributed_months, "published": report.published, "alerts": len(alerts)}
        return detail | ({"other_code": other_code} if other_code else {})

    def _evaluate_budgets(self) -> Detail:
        """Evaluates budgets that were set up or changed while no month did."""
        from attribution.monitoring import budgets
        from ledger.locks import attribution_lock

        with self.turn, attribution_lock(self.books):
            alerts = budgets.evaluate(self.books)
        return {"alerts": len(alerts)}

    def maintain(self) -> Detail:
        """Removes what nobody needs any more from the disk, and merges small files; once a day, what is older than its retention."""
        from ledger.locks import attribution_lock, write_lock
        from ledger.maintenance import maintain
        from rootcost.operations.retention import RetentionCounts, remove_outdated

        with self.turn, attribution_lock(self.books), write_lock(self.books):
            counts: Detail = maintain(self.books).counts()
            today = now().date()
            removals = remove_outdated(self.books) if today != self._outdated_removed_on else RetentionCounts()
            self._outdated_removed_on = today
        return {**counts, **removals.counts, **({"settled": removals.settled} if removals.settled else {})}

    def keep_head(self) -> Detail:
        """Writes the head of the audit log where `audit.heads_uri` says."""
        from ledger.audit_heads import keep_head

        head = keep_head(self.books)
        return {} if head is None else {"sequence": head.sequence, "hash": head.hash}

    def watch(self) -> Detail:
        """Raises alerts for sources that have become stale."""
        from rootcost.service.staleness import raise_alerts

        rung = raise_alerts(self.books)
        return {"stale": [alert.subject for alert in rung]} if rung else {}

    def deliver(self) -> Detail:
        """Decides about digests, and sends the alerts that are due."""
        from rootcost.alerting.digests import decide_due

        decide_due(self.books, now())
        result = self._dispatcher.dispatch()
        sent = [alert for alert in result.sent if alert != alert_id("watchdog")]
        return {"sent": sent, "failed": result.failed} if sent or result.failed else {}

    def find_runaways(self) -> Detail:
        """Raises alerts for chains that run away, by the spans that have arrived."""
        new_alerts = self._runaway_watch.look()
        return {"runaway": [alert.subject for alert in new_alerts]} if new_alerts else {}

    def beat(self) -> Detail:
        """A heartbeat: the evaluator works, and so does the way to the receivers."""
        self._dispatcher.beat()
        return {}
