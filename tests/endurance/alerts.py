"""Alerts through kills: every decision is delivered, at most once more for each kill, always with the same id and content.

Each round a process decides an incident in one transaction with the fact it is about, sends what is due, and is killed at a random file
operation or statement, or by the receiver right after it answered 200. The receiver also fails, hangs and asks for patience. At the end an
unharmed process sends what is left. `make alerts KILLS=1000 SEED=1`.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from ledger.alerts import add_new, alert_id, close
from ledger.books import Books
from ledger.db import Alert, JobRun
from ledger.periods import now
from rootcost.alerting import senders
from rootcost.alerting.dispatch import Dispatcher
from tests.support.alert_receiver import Receiver, receiving
from tests.support.kills import FORK, kill_self_at

MAX_OPERATIONS = 90
_BEHAVIOURS = ("ok",) * 10 + ("die",) * 4 + ("500",) * 3 + ("hang", "429")
_STEP = timedelta(minutes=10)
"""How much later each round is: leases and pauses are over."""


@dataclass(frozen=True, slots=True)
class AlertKills:
    """What was seen."""

    kills: int
    decided: int
    lost: int
    duplicates: int
    ids_changed: int
    bodies_changed: int
    without_fact: int

    @property
    def is_sound(self) -> bool:
        """Nothing lost, at most a duplicate a kill, ids and contents as they were."""
        return not (self.lost or self.ids_changed or self.bodies_changed or self.without_fact) and self.duplicates <= self.kills


def run(folder: Path, *, kills: int, seed: int) -> AlertKills:
    """Kills as many processes, then looks."""
    rng = random.Random(seed)
    with receiving() as receiver:
        os.environ["ROOTCOST_ALERTS__WEBHOOK_URL"] = receiver.url
        try:
            return _run(folder / "home", receiver, rng, kills)
        finally:
            del os.environ["ROOTCOST_ALERTS__WEBHOOK_URL"]


def _run(home: Path, receiver: Receiver, rng: random.Random, kills: int) -> AlertKills:
    Books.open(home).close()
    start, kill_count, number = now(), 0, 0
    receiver.behaviour = lambda: rng.choice(_BEHAVIOURS)
    while kill_count < kills:
        number += 1
        at = start + number * _STEP
        operation = rng.randrange(1, MAX_OPERATIONS)
        process = FORK.Process(target=_round, args=(home, number, at, operation))
        process.start()
        receiver.victim = process.pid or 0
        process.join()
        receiver.victim = 0
        kill_count += process.exitcode == -9
    receiver.behaviour = lambda: "ok"
    with Books.open(home) as books:
        for later in range(1, 40):
            if not Dispatcher(books, clock=_clock(start + (number + later * 20) * _STEP)).dispatch().sent and later > 2:
                break
    return _judge(home, receiver, kill_count)


def _clock(at: datetime) -> Callable[[], datetime]:
    return lambda: at


def _round(home: Path, number: int, at: datetime, operation: int) -> None:
    """Decides an incident and ends an earlier one, and sends."""
    senders.DEADLINE_SECONDS = 0.3  # type: ignore[misc]
    with Books.open(home) as books:
        kill_self_at(operation)
        _decide(books, number)
        Dispatcher(books, clock=_clock(at)).dispatch()
        os._exit(0)


def _decide(books: Books, number: int) -> None:
    with books.database.session() as session:
        session.add(JobRun(job=f"fact-{number}", started_at=now(), status="done", detail={}))
        alert = Alert(
            alert_id=alert_id(f"cause-{number}"), kind="budget", severity="critical", subject=f"incident {number}", text="It is over its budget.",
            payload={"number": number}, created_at=now(), attempts=0,
        )  # fmt: skip
        add_new(session, [alert])
        earlier_alert = session.get(Alert, alert_id(f"cause-{number - 3}"))
        if earlier_alert is not None:
            close(session, earlier_alert, "resolved", text="It is over.")


def _judge(home: Path, receiver: Receiver, kills: int) -> AlertKills:
    with Books.open(home) as books, books.database.session() as session:
        facts = {int(job.removeprefix("fact-")) for job in session.scalars(sa.select(JobRun.job)) if job.startswith("fact-")}
    counts: Counter[tuple[str, str]] = Counter()
    ids: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    for delivery in receiver.deliveries:
        document = delivery.document
        key = (document["alert_id"], document["type"])
        ids[key].add(delivery.headers["webhook-id"])
        bodies[delivery.headers["webhook-id"]].add(delivery.body)
        counts[key] += delivery.status == 200
    causes = {alert_id(f"cause-{number}") for number in facts}
    opened_ids = {alert for (alert, kind), count in counts.items() if kind == "alert.opened" and count}
    # One that was over before anybody was told is not told at all.
    silent = _ended_untold(home)
    return AlertKills(
        kills=kills,
        decided=len(causes),
        lost=len(causes - opened_ids - silent),
        duplicates=sum(count - 1 for count in counts.values() if count > 1),
        ids_changed=sum(len(values) > 1 for values in ids.values()),
        bodies_changed=sum(len(values) > 1 for values in bodies.values()),
        without_fact=len(opened_ids - causes),
    )


def _ended_untold(home: Path) -> set[str]:
    from ledger.alert_tables import AlertDelivery

    with Books.open(home) as books, books.database.session() as session:
        is_dropped = (AlertDelivery.state == "dropped") & (AlertDelivery.step == "opened") & (AlertDelivery.attempts == 0)
        return set(session.scalars(sa.select(AlertDelivery.alert_id).where(is_dropped)))


def main() -> None:
    """Runs it and prints what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), kills=options.kills, seed=options.seed)
    print(f"{result}, {time.monotonic() - began:.0f} s, seed {options.seed}: {'sound' if result.is_sound else 'NOT SOUND'}")
    raise SystemExit(not result.is_sound)


if __name__ == "__main__":
    main()
