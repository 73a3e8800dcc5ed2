"""`rootcost sources`: set up, tried out, read, paused and removed at the command line; every change audited, every slip told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.sources import by_name, discover
from ledger.books import Books
from ledger.db import Audit
from ledger.tables import CHARGES
from rootcost.operations.cron import longest_pause, trigger
from tests.support.api_examples import reach
from tests.support.cli_books import Command, write_files


@pytest.fixture
def rootcost(home: Path) -> Command:
    return Command(home)


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """One charge of 0.03 USD, of 2026-10-05 from 10 to 11 o'clock."""
    return write_files(tmp_path / "input") / "bill.csv"


@pytest.mark.slow
def test_a_source_from_its_set_up_to_its_end(rootcost: Command, bill: Path, home: Path) -> None:
    added = rootcost("sources", "add", "bill", "focus", bill, "--cron", "@daily", "--lag", "3d", "--format", "json")
    assert added.code == 0, added.err
    told = json.loads(added.out)
    assert (told["name"], told["source"], told["kind"], told["addresses"]) == ("bill", "focus", "bill", [str(bill)])
    assert (told["cron"], told["state"], told["expected_lag_seconds"], told["stale_after_seconds"]) == (
        "@daily",
        "waiting",
        3 * 86400,
        4 * 86400,
    )
    assert "rootcost sources test bill" in added.err

    trial = rootcost("sources", "test", "bill")
    assert trial.code == 0, trial.err
    assert "can be read; the first page" in trial.out
    assert "holds 1 charge, the newest of 2026-10-05 11:00 UTC" in trial.out
    with Books.open(home) as books:
        assert books.store.version(CHARGES) is None  # nothing was booked
    assert not (home / "raw").exists()

    first_run = rootcost("sources", "run", "bill", "--format", "json")
    assert first_run.code == 0, first_run.err
    run = json.loads(first_run.out)
    assert (run["cause"], run["status"], run["files"], run["rows"], run["rows_changed"]) == ("hand", "done", 1, 1, 1)
    assert (run["money_in"], run["newest"]) == ({"USD": "0.03"}, "2026-10-05T11:00:00+00:00")
    again = json.loads(rootcost("sources", "run", "bill", "--format", "json").out)
    assert (again["rows"], again["rows_changed"], again["money_in"]) == (1, 0, {"USD": "0.03"})

    backfill = rootcost("sources", "backfill", "bill", "--from", "2026-01", "--to", "2026-04")
    assert backfill.code == 0, backfill.err
    assert [(r["cause"], r["since"], r["until"]) for r in rootcost("sources", "history", "bill", "--format", "json").rows] == [
        ("backfill", "2026-01-01", "2026-04-01"),
        ("hand", None, None),
        ("hand", None, None),
    ]

    new_terms = json.loads(rootcost("sources", "change", "bill", "--cron", "@hourly", "--format", "json").out)
    assert (new_terms["cron"], new_terms["expected_lag_seconds"], new_terms["addresses"]) == ("@hourly", 3 * 86400, [str(bill)])
    assert rootcost("sources", "pause", "bill").code == 0
    assert [row["state"] for row in rootcost("sources", "list", "--format", "json").rows] == ["paused"]
    assert json.loads(rootcost("sources", "resume", "bill", "--format", "json").out)["paused"] is False
    table = rootcost("sources", "list")
    assert "0.03 USD" in table.out
    assert rootcost("sources", "remove", "bill").code == 0
    assert rootcost("sources", "list", "--format", "json").rows == []
    assert len(rootcost("sources", "history", "bill", "--format", "json").rows) == 3
    with Books.open(home) as books:
        assert books.store.scan(CHARGES).collect().height == 1  # what it brought stays
        with books.database.session() as session:
            rows = list(session.scalars(sa.select(Audit).where(Audit.action.like("source.%")).order_by(Audit.sequence)))
    assert [(row.action, row.subject, row.actor) for row in rows] == [
        (f"source.{what}", "bill", "cli") for what in ("add", "run", "run", "run", "change", "pause", "resume", "remove")
    ]
    assert rows[3].after == {"since": "2026-01-01", "until": "2026-04-01"}
    assert (rows[5].before or {})["paused"] is False
    assert (rows[5].after or {})["paused"] is True


def test_an_address_means_the_same_from_every_folder(rootcost: Command, bill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bill.parent)
    added = rootcost("sources", "add", "bills", "focus", "*.csv", "s3://bucket/focus/", "--format", "json")
    assert json.loads(added.out)["addresses"] == [str(bill.parent / "*.csv"), "s3://bucket/focus/"]


def test_what_receivers_take_can_be_watched(rootcost: Command) -> None:
    told = json.loads(rootcost("sources", "add", "live", "otlp", "--lag", "90m", "--format", "json").out)
    assert (told["addresses"], told["cron"], told["stale_after_seconds"]) == ([], "", 5400)
    assert rootcost("sources", "test", "live").code == 0
    done = rootcost("sources", "run", "live")
    assert (done.code, done.out) == (2, "")
    assert "only watched" in done.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sources add x foccus a.csv", "did you mean focus?"),
        ("sources add x focus", "a bill needs an address"),
        ("sources add x/y focus a.csv", "'x/y' cannot be the name"),
        ("sources add aws focus other.csv", "rootcost sources remove aws"),
        ("sources add x focus a.csv --lag soon", "--lag"),
        ("sources add x otlp a.json --scope s", "--scope"),
        ("sources run awz", "did you mean 'aws'?"),
        ("sources test awz", "did you mean 'aws'?"),
        ("sources change awz", "did you mean 'aws'?"),
        ("sources change aws --cron nonsense", "--cron"),
        ("sources pause awz", "did you mean 'aws'?"),
        ("sources resume nothing", "configured are aws"),
        ("sources remove awz", "did you mean 'aws'?"),
        ("sources history awz", "did you mean 'aws'?"),
        ("sources backfill awz --from 2026-01", "did you mean 'aws'?"),
        ("sources backfill aws", "--from"),
        ("sources backfill aws --from October", "--from"),
        ("sources backfill aws --from 2026-02 --to 2026-01", "--to"),
        ("sources backfill aws --from 2999-01", "--from"),
        ("sources kinds foccus", "did you mean focus?"),
    ],
)
def test_a_slip_is_told_in_a_line_with_what_was_meant(rootcost: Command, bill: Path, line: str, told: str) -> None:
    rootcost("sources", "add", "aws", "focus", bill)
    done = rootcost(*line.split())
    assert (done.code, done.out) == (2, ""), done.err
    assert told in done.err
    assert "secret" not in done.err


@pytest.mark.parametrize("cron", ["* * * *", "61 * * * *", "0 0 31 2 *", "* * * * nonday", "every day", ""])
def test_a_cron_that_means_nothing_is_refused(rootcost: Command, bill: Path, cron: str) -> None:
    done = rootcost("sources", "add", "x", "focus", bill, "--cron", cron)
    if cron:
        assert (done.code, done.out) == (2, "")
        assert "--cron" in done.err
    else:
        assert done.code == 0  # as often as its kind is worth it


def test_weekdays_are_counted_as_crontab_counts_them() -> None:
    monday = datetime(2026, 10, 5, tzinfo=UTC)

    def days(cron: str) -> list[int]:
        made, at, found = trigger(cron), monday, []
        while at < monday + timedelta(days=7):
            tick = made.get_next_fire_time(None, at)
            assert tick is not None
            found.append(tick.day)
            at = tick + timedelta(seconds=1)
        return [day for day in found if day < 12]

    assert days("0 12 * * 1") == [5]  # Monday; the scheduler's own reading is Tuesday
    assert days("0 12 * * 0") == days("0 12 * * 7") == days("0 12 * * sun") == [11]
    assert days("0 12 * * 1-5") == [5, 6, 7, 8, 9]
    assert days("0 12 8 * 1") == [5, 8]  # either, where both are given
    assert longest_pause("15 */6 * * *", after=monday) == timedelta(hours=6)


# ── trying out ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_reached_is_said_with_what_it_needs_and_the_policy(
    rootcost: Command, free_port: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(free_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    rootcost("sources", "add", "aws", "aws-cur", "s3://company-billing/cur/")
    done = rootcost("sources", "test", "aws")
    assert done.code == 1
    line = done.err.splitlines()[0]
    assert line.startswith("aws: s3://company-billing/cur/ cannot be read: Could not connect")
    assert line.endswith(f"It needs {by_name('aws-cur').access.needs}.")
    assert json.loads(done.out)["Statement"][0]["Action"] == "s3:ListBucket"  # nothing but the policy: it can be piped
    (told,) = json.loads(rootcost("sources", "test", "aws", "--format", "json").out)
    assert (told["ok"], told["rows"], told["policy"]) == (False, 0, by_name("aws-cur").access.policy)


def test_a_file_that_is_not_there_or_not_readable_needs_no_policy(rootcost: Command, bill: Path) -> None:
    bill.with_name("noise.csv").write_text("who,what\nme,that\n")
    rootcost("sources", "add", "gone", "focus", bill.with_name("none.csv"))
    rootcost("sources", "add", "noise", "focus", bill.with_name("noise.csv"))
    done = rootcost("sources", "test")
    assert (done.code, done.out) == (1, "")
    gone, noise = done.err.splitlines()
    assert "no such file or folder" in gone
    assert noise.startswith("noise: ")
    assert "cannot be read" in noise


@pytest.mark.parametrize("kind", discover())
def test_every_source_says_what_it_needs_and_when_it_is_worth_asking(kind: str) -> None:
    access = by_name(kind).access
    assert access.needs
    assert not access.needs.endswith(".")
    assert access.addresses
    assert access.lag > timedelta(0)
    assert timedelta(0) < longest_pause(access.cron, after=datetime(2026, 10, 5, tzinfo=UTC)) <= timedelta(days=1)


@pytest.mark.slow
def test_kinds_are_listed_with_what_they_need(rootcost: Command) -> None:
    assert [row["source"] for row in json.loads(rootcost("sources", "kinds", "--format", "json").out)] == list(discover())
    one = rootcost("sources", "kinds", "aws-cur")
    assert by_name("aws-cur").access.policy in one.out
    assert by_name("aws-cur").access.needs in one.err
    assert all(kind in rootcost("ingest", "--help").out for kind in discover())


# ── the same over HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.clock
def test_the_api_and_the_metrics_tell_the_same(rootcost: Command, bill: Path, home: Path) -> None:
    rootcost("sources", "add", "bill", "focus", bill, "--lag", "3d", "--cron", "@daily")
    rootcost("sources", "add", "live", "otlp")
    rootcost("sources", "run", "bill")
    with Books.open(home) as books, reach(books) as http:
        listed = http.get("/v1/sources").json()["rows"]
        assert [row["name"] for row in listed] == ["bill", "live"]
        assert listed[0]["last_run"]["money_in"] == {"USD": "0.03"}
        runs = http.get("/v1/sources/bill/runs").json()
        assert (runs["total"], runs["rows"][0]["rows"]) == (1, 1)
        assert http.get("/v1/sources/live/runs").json()["rows"] == []
        assert http.get("/v1/source-runs").json()["total"] == 1
        missing = http.get("/v1/sources/bil/runs")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        assert "did you mean 'bill'" in missing.json()["remedy"]
        metrics = http.get("/metrics").text
    gauges = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("rootcost_source_"))
    age = (datetime.now(UTC) - datetime(2026, 10, 5, 11, tzinfo=UTC)).total_seconds()
    assert float(gauges['rootcost_source_age_seconds{name="bill",source="focus"}']) == pytest.approx(age, abs=60)
    assert Decimal(gauges['rootcost_source_stale_after_seconds{name="bill",source="focus"}']) == 4 * 86400
    assert Decimal(gauges['rootcost_source_stale{name="bill",source="focus"}']) == 0  # it was only just set up
    assert Decimal(gauges['rootcost_source_failures{name="bill",source="focus"}']) == 0
    assert 'rootcost_source_age_seconds{name="live",source="otlp"}' not in gauges
