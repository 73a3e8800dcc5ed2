"""Two workers take messages out of one outbox on PostgreSQL: each message is held by one of them, and a lease that runs out passes on with its id."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger.alert_settings import AlertSettings
from ledger.alert_tables import AlertDelivery
from ledger.alerting import outbox
from ledger.alerting.routes import route_events
from ledger.alerts import add_new
from ledger.books import Books
from ledger.periods import now
from ledger.settings import StoreSettings
from tests.rootcost.alerting.test_delivery import an_alert
from tests.support.postgres_server import postgres_server

MESSAGES = 40


@pytest.fixture
def workers(books: Books, tmp_path: Path) -> Iterator[list[Books]]:
    """The books as two processes have them open: a pool of connections each."""
    with postgres_server() as url, ExitStack() as stack:
        terms = {"channels": [{"name": "hook", "kind": "webhook", "url": "http://127.0.0.1:9/"}]}
        changes = {
            "store": StoreSettings(database_url=url, uri=str(tmp_path / "tables")),
            "alerts": AlertSettings.model_validate(terms),
        }
        yield [stack.enter_context(Books(books.settings.model_copy(update=changes))) for _ in range(2)]


def take_all(worker: Books, at: datetime, claims: list[outbox.Claim], start: threading.Barrier) -> None:
    start.wait()
    misses = 0
    while misses < 20:  # None: nothing is due, or the other one was faster
        claim = outbox.claim(worker.database, "hook", at)
        if claim is None:
            misses += 1
        else:
            claims.append(claim)


def race(workers: list[Books], at: datetime) -> list[list[outbox.Claim]]:
    """What each worker claimed, both at once."""
    claims: list[list[outbox.Claim]] = [[], []]
    start = threading.Barrier(len(workers))
    threads = [
        threading.Thread(target=take_all, args=(worker, at, own_claims, start))
        for worker, own_claims in zip(workers, claims, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return claims


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.clock
def test_of_two_workers_one_has_each_message_and_a_lease_that_runs_out_passes_on(workers: list[Books]) -> None:
    at = now() + timedelta(seconds=5)
    with workers[0].database.session() as session:
        add_new(session, [an_alert(number) for number in range(MESSAGES)])
    for worker in workers:
        route_events(worker, at)  # both decide who is told; each message is there once
    first_claims = race(workers, at)
    ids = [message.delivery_id for claims in first_claims for claim in claims for message in claim.messages]
    assert (len(ids), len(set(ids))) == (MESSAGES, MESSAGES)
    assert all(first_claims), "both worked"

    lost_claims, settled_claims = first_claims
    for claim in settled_claims:
        outbox.settle(workers[1].database, claim, outbox.Outcome(status=200), at, give_up_hours=1)
    assert race(workers, at + timedelta(seconds=outbox.LEASE_SECONDS - 1)) == [[], []], "leases are held until they run out"

    later = at + timedelta(seconds=outbox.LEASE_SECONDS + 1)
    second_claims = [claim for claims in race(workers, later) for claim in claims]
    assert sorted(claim.batch_id for claim in second_claims) == sorted(claim.batch_id for claim in lost_claims)
    outbox.settle(workers[0].database, lost_claims[0], outbox.Outcome(status=200), later, give_up_hours=1)
    with workers[0].database.session() as session:
        state = session.scalar(
            sa.select(AlertDelivery.state).where(AlertDelivery.delivery_id == lost_claims[0].messages[0].delivery_id)
        )
    assert state == "sending", "who lost the lease settles nothing"
