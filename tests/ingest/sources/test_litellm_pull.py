"""LiteLLM pulled: buckets, the gateway's PostgreSQL and its API give what is new, all of it, and each call once."""

from __future__ import annotations

import contextlib
import csv
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from attribution.run import attribute
from ingest import checkpoints, run
from ingest.fetch import WorldFetcher
from ingest.probe import probe
from ingest.run import IngestReport, ingest
from ingest.source import Batch, ListedObject, RawObject, Window
from ingest.sources.litellm import postgres as litellm_postgres
from ingest.sources.litellm import s3 as litellm_s3
from ingest.sources.litellm.source import SOURCE, read_body
from ledger.books import Books
from ledger.errors import ObjectMissingError, SourceError
from ledger.tables import CALLS, PROBLEMS, RAW_FILES, SPANS
from tests.support.litellm_gateway import Gateway, SpendLogServer, postgres, row
from tests.support.paths import DATA

CAPTURES = DATA / "litellm_proxy_captures"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PRICE = Decimal("0.00252")


def payload(number: int, started: datetime = NOON) -> bytes:
    """A payload of the very call that `row` of this number tells of."""
    problems = row(number, started)
    kept = {k: problems[k] for k in ("litellm_call_id", "call_type", "model", "model_group", "custom_llm_provider", "metadata")}
    tokens = {k: problems[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")}
    more = {
        "id": problems["request_id"],
        "startTime": started.timestamp(),
        "response_cost": problems["spend"],
        "status": "success",
    }
    return json.dumps(kept | tokens | more).encode()


def booked(books: Books) -> list[int]:
    """The numbers of the calls in the ledger, as often as they are there."""
    ids = books.store.scan(SPANS).select("gateway_call_id").collect()["gateway_call_id"]
    return sorted(int(i.removeprefix("call-")) for i in ids)


def told(books: Books) -> list[str]:
    return books.store.scan(PROBLEMS).collect()["reason"].to_list()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of what was downloaded."""
    seen: list[str] = []
    get = WorldFetcher.get

    def watched(self: WorldFetcher, uri: str) -> RawObject:
        seen.append(uri)
        return get(self, uri)

    monkeypatch.setattr(WorldFetcher, "get", watched)
    return seen


# --- buckets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="gateway")
    yield client
    for entry in client.list_objects_v2(Bucket="gateway").get("Contents", ()):
        client.delete_object(Bucket="gateway", Key=entry["Key"])
    client.delete_bucket(Bucket="gateway")


def put(s3: Any, number: int, folder: str = "", started: datetime = NOON, body: bytes | None = None) -> str:
    key = f"logs/{folder}{started:%Y-%m-%d}/time-{started:%H-%M-%S-%f}_chatcmpl-{number}.json"
    s3.put_object(Bucket="gateway", Key=key, Body=payload(number, started) if body is None else body)
    return f"s3://gateway/{key}"


LOGS = "s3://gateway/logs"


@pytest.mark.clock
def test_a_bucket_is_read_once_and_then_only_what_is_new(books: Books, bucket: Any, fetched: list[str]) -> None:
    first = [put(bucket, n, started=datetime.now(UTC)) for n in range(3)]
    bucket.put_object(Bucket="gateway", Key="logs-of-others/2026-11-22/time.json", Body=payload(99))
    assert ingest(books, "litellm", [LOGS]).rows == 3
    assert sorted(fetched) == sorted(first)

    fetched.clear()
    assert ingest(books, "litellm", [LOGS]).rows == 0
    assert fetched == [], "nothing is downloaded twice"
    late = put(bucket, 7, started=datetime.now(UTC) - timedelta(hours=3))  # a long call: its key sorts before all others
    assert ingest(books, "litellm", [LOGS]).rows == 1
    assert fetched == [late]
    assert booked(books) == [0, 1, 2, 7]


@pytest.mark.clock
def test_teams_keys_and_hours_have_folders_of_their_own(books: Books, bucket: Any, fetched: list[str]) -> None:
    now = datetime.now(UTC)
    put(bucket, 1, folder="care/support-key/", started=now)
    put(bucket, 2, folder="care/", started=now)
    hourly = f"logs/{now:%Y-%m-%d}/{now:%H}/time-{now:%H-%M-%S-%f}.jsonl"
    bucket.put_object(Bucket="gateway", Key=hourly, Body=payload(3) + b"\n" + payload(4) + b"\n")
    bucket.put_object(Bucket="gateway", Key="logs/by-hand.json", Body=payload(5))
    bucket.put_object(Bucket="gateway", Key="logs/README.md", Body=b"no log")
    assert ingest(books, "litellm", [f"{LOGS}/"]).problems == []
    assert booked(books) == [1, 2, 3, 4, 5]
    assert len(fetched) == 4
    assert ingest(books, "litellm", [f"{LOGS}/"]).files == 0


@pytest.mark.clock
def test_an_object_that_is_damaged_is_told_and_not_fetched_again(books: Books, bucket: Any, fetched: list[str]) -> None:
    now = datetime.now(UTC)
    put(bucket, 1, started=now)
    bad = put(bucket, 2, started=now, body=payload(2, now)[:100])
    ingest(books, "litellm", [LOGS])
    assert fetched.count(bad) == 1
    for _ in range(2):  # it is not mended by not being looked at
        ingest(books, "litellm", [LOGS])
        assert books.store.scan(PROBLEMS).collect()["uri"].to_list() == [bad]
    assert fetched.count(bad) == 1
    put(bucket, 2, started=now)  # written again
    assert ingest(books, "litellm", [LOGS]).problems == []
    assert (told(books), booked(books)) == ([], [1, 2])


@pytest.mark.clock
def test_an_object_that_is_written_again_in_an_older_folder_waits_until_its_day_is_asked_for(
    books: Books, bucket: Any, fetched: list[str]
) -> None:
    """Folders of days that are more than two days older than the newest object are not listed, whatever was written there since."""
    now = datetime.now(UTC)
    within, beyond = now - timedelta(days=1), now - timedelta(days=3)
    put(bucket, 1, started=now)
    bad = {at: put(bucket, number, started=at, body=b"{") for number, at in ((2, within), (3, beyond))}
    assert ingest(books, "litellm", [LOGS]).files == 3, "a first visit lists every folder"
    for number, at in ((2, within), (3, beyond)):
        put(bucket, number, started=at)
    fetched.clear()
    for _ in range(2):
        ingest(books, "litellm", [LOGS])
        assert books.store.scan(PROBLEMS).collect()["uri"].to_list() == [bad[beyond]], "its problem stays"
    assert (fetched, booked(books)) == ([bad[within]], [1, 2])

    fetched.clear()
    before = checkpoints.load(books, "litellm")
    ingest(books, "litellm", [LOGS], window=Window(beyond.date(), beyond.date() + timedelta(days=1)))
    assert bad[beyond] in fetched
    assert (told(books), booked(books), checkpoints.load(books, "litellm")) == ([], [1, 2, 3], before)


def test_an_object_that_vanishes_between_listing_and_reading_keeps_no_other_back(
    books: Books, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [put(bucket, n) for n in range(3)][1]
    download = WorldFetcher._download

    def vanishing(self: WorldFetcher, uri: str) -> RawObject:
        if uri == gone:
            bucket.delete_object(Bucket="gateway", Key=uri.removeprefix("s3://gateway/"))
        return download(self, uri)

    monkeypatch.setattr(WorldFetcher, "_download", vanishing)
    (problem,) = ingest(books, "litellm", [LOGS]).problems
    assert (problem.uri, problem.reason) == (gone, "was listed, and gone when it was to be read")
    assert booked(books) == [0, 2]


def test_copies_of_an_object_are_read_like_any_other(books: Books, bucket: Any) -> None:
    for folder in ("", "copy-a/", "copy-b/"):
        put(bucket, 1, folder=folder)
    report = ingest(books, "litellm", [LOGS])
    assert (report.problems, report.files, booked(books)) == ([], 3, [1])


@pytest.mark.clock
def test_days_are_asked_again_and_the_mark_stays(books: Books, bucket: Any, fetched: list[str]) -> None:
    days = {day: put(bucket, day, started=datetime(2026, 11, day, 12, tzinfo=UTC)) for day in (3, 9, 10, 11, 20)}
    ingest(books, "litellm", [LOGS])
    before = checkpoints.load(books, "litellm")
    fetched.clear()
    again = ingest(books, "litellm", [LOGS], window=Window(date(2026, 11, 10), date(2026, 11, 11)))
    assert sorted(fetched) == sorted(days[day] for day in (9, 10, 11)), "with a day on either side: keys have the proxy's zone"
    assert (again.rows_changed, checkpoints.load(books, "litellm")) == (0, before)


def test_what_was_not_booked_is_read_again(books: Books, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        put(bucket, n)
    with monkeypatch.context() as broken:
        broken.setattr(books.store, "merge", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            ingest(books, "litellm", [LOGS])
    assert checkpoints.load(books, "litellm") == {}
    ingest(books, "litellm", [LOGS])
    assert booked(books) == [0, 1, 2, 3]


def test_a_bucket_that_cannot_be_read_says_why(books: Books, bucket: Any) -> None:
    (nothing,) = ingest(books, "litellm", ["s3://gateway/nowhere/"]).problems
    assert nothing.reason == "nothing here looks like a log"
    (unknown,) = ingest(books, "litellm", ["s3://no-such-bucket/logs"]).problems
    assert "NoSuchBucket" in unknown.reason


class Bucket:
    """A bucket whose clock is ours: objects appear in it a little after the time it says they were written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.window = Window()
        self.marks: dict[str, str] = {}
        self.held: list[tuple[datetime, ListedObject]] = []
        self.now = NOON
        self.listed: list[str] = []
        self.got: list[str] = []

    def write(self, uri: str, *, modified: datetime, visible: datetime) -> None:
        self.held.append((visible, ListedObject(uri, 1, "v", modified)))

    def _seen(self, prefix: str) -> list[ListedObject]:
        return sorted((e for t, e in self.held if t <= self.now and e.uri.startswith(prefix)), key=lambda e: e.uri)

    def list(self, uri: str) -> list[ListedObject]:
        self.listed.append(uri)
        return self._seen(uri)

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        prefix = uri.rstrip("/") + "/"
        rest = [(entry, entry.uri.removeprefix(prefix)) for entry in self._seen(prefix)]
        folders = {prefix + name.partition("/")[0] + "/" for _, name in rest if "/" in name}
        return sorted(folders), [entry for entry, name in rest if "/" not in name]

    def get(self, uri: str) -> RawObject:
        self.got.append(uri)
        return RawObject(uri, self.folder, uri, 1)

    def checkpoint(self, key: str) -> str | None:
        return self.marks.get(key)

    def visit(self, *, cut_off_after: int | None = None) -> None:
        """Reads what is new; marks move as the run books them, until it is cut off."""
        for number, rows in enumerate(litellm_s3.plan(self, "s3://b/logs", ("*",))):  # type: ignore[arg-type]
            if number == cut_off_after:
                return
            assert isinstance(rows, Batch)
            self.marks |= rows.checkpoints


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_whenever_objects_come_and_whenever_we_look_each_is_fetched_and_only_once(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    bucket = Bucket(tmp_path_factory.getbasetemp())
    at, uris = NOON, []
    for number in range(data.draw(st.integers(1, 25))):
        at += timedelta(seconds=data.draw(st.sampled_from([0, 0, 1, 40, 400, 4_000, 90_000])))
        written = at.replace(microsecond=0)
        began = at - timedelta(minutes=data.draw(st.integers(0, 200))) + timedelta(hours=data.draw(st.sampled_from([-12, 0, 14])))
        uris.append(f"s3://b/logs/{began:%Y-%m-%d}/time-{began:%H-%M-%S}-{number}.json")
        bucket.write(uris[-1], modified=written, visible=at + timedelta(seconds=data.draw(st.integers(0, 240))))
    bucket.now = NOON - timedelta(seconds=1)
    with pytest.raises(ObjectMissingError):
        bucket.visit()
    while bucket.now < at + timedelta(seconds=300):
        bucket.now += timedelta(seconds=data.draw(st.sampled_from([1, 30, 300, 5_000, 100_000])))
        if any(seen <= bucket.now for seen, _ in bucket.held):
            bucket.visit()
    assert sorted(bucket.got) == sorted(uris)


def test_folders_of_days_long_read_are_not_even_listed(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    for day in range(1, 21):
        at = datetime(2026, 11, day, 12, tzinfo=UTC)
        bucket.write(f"s3://b/logs/{at:%Y-%m-%d}/time-{day}.json", modified=at, visible=at)
    bucket.now = datetime(2026, 11, 21, tzinfo=UTC)
    bucket.visit()
    assert len(bucket.listed) == 20
    bucket.listed.clear()
    bucket.visit()
    assert bucket.listed == [f"s3://b/logs/2026-11-{day}/" for day in (18, 19, 20)]
    assert len(bucket.got) == 20


def test_a_long_backlog_is_booked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_s3, "_CHECKPOINT_OBJECTS", 3)
    bucket = Bucket(tmp_path)
    for n in range(10):  # all in the same second, so that time alone does not tell them apart
        bucket.write(f"s3://b/logs/2026-11-22/{n}.json", modified=NOON, visible=NOON)
    bucket.visit(cut_off_after=6)  # three objects, their mark, two more
    assert len(bucket.got) == 6 and bucket.marks
    bucket.visit()
    assert sorted(set(bucket.got)) == [f"s3://b/logs/2026-11-22/{n}.json" for n in range(10)]
    assert len(bucket.got) == 13, "three were booked; what came after the mark is fetched again"


# --- the gateway's PostgreSQL ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(postgres_bin: Path) -> Iterator[str]:
    with postgres(postgres_bin) as address:
        yield address


@pytest.fixture
def gateway(server: str, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A database of its own for each test."""
    options: dict[str, Any] = getattr(request, "param", {})
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS litellm WITH (FORCE)")
        connection.execute("CREATE DATABASE litellm")
    database = Gateway(server.replace("/postgres?", "/litellm?").removesuffix("/postgres") + "/litellm", **options)
    yield database
    database.close()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_postgres.plan, "__kwdefaults__", {"page_rows": 4})


def pull(books: Books, gateway: Gateway, **how: Any) -> IngestReport:
    return ingest(books, "litellm", [gateway.address], **how)


@pytest.mark.parametrize("gateway", [{}, {"old": True}], indirect=True, ids=["2026", "2025"])
def test_the_table_is_read_whatever_columns_its_version_has(books: Books, gateway: Gateway) -> None:
    captured = [json.loads(path.read_bytes()) for path in sorted(CAPTURES.glob("*spendlogs_row.json"))]
    gateway.write(*captured)
    assert (pull(books, gateway).problems, len(captured)) == ([], 8)
    rows = books.store.scan(SPANS).sort("start_time").collect()
    assert rows["gateway_call_id"].to_list() == [r["litellm_call_id"] for r in captured]
    assert set(rows["channel"]) == {"litellm-spend-logs"}
    # 5 x gpt-4o 0.00252, 2 x Claude 0.0102, an embedding 0.00000014: LiteLLM's own figures, exact.
    assert rows["reported_cost"].sum() == 5 * PRICE + 2 * Decimal("0.0102") + Decimal("0.00000014")
    assert rows["input_tokens"].sum() == 5 * 1200 + 2 * 3550 + 7
    assert rows["cache_read_tokens"].sum() == 5 * 1024 + 2 * 1500
    assert rows["start_time"][0] == datetime(2026, 11, 22, 15, 31, 45, 925000, tzinfo=UTC), "the table keeps milliseconds, in UTC"
    assert rows["credential"].unique().to_list() == ["litellm_proxy_master_key"]
    agents = set(rows["agent_id"])
    assert agents == ({"researcher", None} if "agent_id" in gateway._columns else {None})


@pytest.mark.usefixtures("small_pages")
def test_pages_meet_where_calls_began_at_the_same_instant(books: Books, gateway: Gateway) -> None:
    gateway.write(*(row(n, NOON) for n in range(11)), *(row(n, NOON + timedelta(seconds=n)) for n in range(20, 23)))
    first = pull(books, gateway)
    assert (first.files, first.rows) == (4, 14)
    assert booked(books) == [*range(11), 20, 21, 22]
    again = pull(books, gateway)
    assert (again.rows_changed, booked(books)) == (0, [*range(11), 20, 21, 22])


@pytest.mark.clock
@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("gateway", [{}, {"old": True}], indirect=True, ids=["2026", "2025"])
def test_rows_that_are_written_late_are_found(books: Books, gateway: Gateway) -> None:
    dated = "updated_at" in gateway._columns
    now = datetime.now(UTC)
    gateway.write(*(row(n, now - timedelta(minutes=n)) for n in range(40)))
    pull(books, gateway)
    late = [row(100 + n, now - timedelta(minutes=n * 5, seconds=30)) for n in range(11)]
    hours = [row(200, now - timedelta(hours=2, minutes=30))] if dated else []  # a call that lasted hours
    gateway.write(*late, *hours)
    report = pull(books, gateway)
    assert booked(books) == sorted([*range(40), *range(100, 111), *([200] if dated else [])])
    assert report.rows_changed == 11 + len(hours)


@pytest.mark.clock
def test_looking_back_is_cheap_where_the_table_tells_when_a_row_was_written(books: Books, gateway: Gateway) -> None:
    now = datetime.now(UTC)
    gateway.write(*(row(n, now - timedelta(minutes=n)) for n in range(100)))
    gateway.run("""UPDATE "LiteLLM_SpendLogs" SET updated_at = now() AT TIME ZONE 'UTC' - interval '40 minutes'""")
    gateway.write(row(200, now))
    gateway.run("""UPDATE "LiteLLM_SpendLogs" SET updated_at = now() AT TIME ZONE 'UTC' WHERE request_id = 'chatcmpl-200'""")
    assert pull(books, gateway).rows == 101
    assert pull(books, gateway).rows == 1, "the hundred that were there are not sent again"
    gateway.write(row(300, now - timedelta(minutes=90)))
    gateway.run("""UPDATE "LiteLLM_SpendLogs" SET updated_at = now() AT TIME ZONE 'UTC' WHERE request_id = 'chatcmpl-300'""")
    assert pull(books, gateway).rows == 2
    assert 300 in booked(books)


@pytest.mark.clock
@pytest.mark.slow
@pytest.mark.usefixtures("small_pages")
def test_cut_off_in_the_middle_nothing_is_lost_and_nothing_twice(
    books: Books, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    gateway.write(*(row(n, now - timedelta(minutes=100 - n)) for n in range(30)))
    monkeypatch.setattr(run, "_MERGE_ROWS", 4)
    page = litellm_postgres._Table.page
    for most, whole in ((3, False), (2, False), (99, True), (1, False), (99, True)):
        left = [most]

        def breaking(self: Any, asked: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt("killed")
            return page(self, asked)

        monkeypatch.setattr(litellm_postgres._Table, "page", breaking)
        if whole:
            pull(books, gateway)
            assert booked(books) == sorted(gateway_numbers(gateway))
            # Late rows over several pages: those that a cut-off visit did not reach are still looked back for.
            start = len(gateway_numbers(gateway)) + 100
            gateway.write(*(row(start + n, now - timedelta(minutes=80 - n)) for n in range(9)))
            later = "updated_at = now() AT TIME ZONE 'UTC' + interval '20 minutes'"
            gateway.run(f"""UPDATE "LiteLLM_SpendLogs" SET {later} WHERE request_id = 'chatcmpl-{start}'""")
        else:
            with pytest.raises(KeyboardInterrupt, match="killed"):
                pull(books, gateway)
    pull(books, gateway)
    assert booked(books) == sorted(gateway_numbers(gateway))


def gateway_numbers(gateway: Gateway) -> list[int]:
    rows = gateway.connection.execute('SELECT request_id FROM "LiteLLM_SpendLogs"').fetchall()
    return [int(name.removeprefix("chatcmpl-")) for (name,) in rows]


@pytest.mark.clock
def test_a_row_dated_in_the_future_does_not_hide_those_between(books: Books, gateway: Gateway) -> None:
    now = datetime.now(UTC)
    gateway.write(row(1, now), row(2, now + timedelta(days=700)))
    pull(books, gateway)
    gateway.write(row(3, now + timedelta(seconds=1)))
    pull(books, gateway)
    assert booked(books) == [1, 3]  # two years ahead is a problem, not a span


def test_days_are_asked_of_the_table(books: Books, gateway: Gateway) -> None:
    gateway.write(*(row(day, datetime(2026, 10, day, 23, 59, 59, 999000, tzinfo=UTC)) for day in range(1, 8)))
    pull(books, gateway, window=Window(date(2026, 10, 3), date(2026, 10, 5)))
    assert (booked(books), checkpoints.load(books, "litellm")) == ([3, 4], {})
    pull(books, gateway)
    kept = checkpoints.load(books, "litellm")
    assert booked(books) == [*range(1, 8)]
    assert pull(books, gateway, window=Window(date(2026, 10, 3), None)).rows == 5
    assert checkpoints.load(books, "litellm") == kept


@pytest.mark.parametrize("gateway", [{"schema": "gate way"}], indirect=True)
def test_the_schema_may_be_named_as_prisma_names_it(books: Books, gateway: Gateway) -> None:
    gateway.write(row(1, NOON))
    (problem,) = pull(books, gateway).problems
    assert problem.reason == "there is no table LiteLLM_SpendLogs here"
    ingest(books, "litellm", [f"{gateway.address}?schema=gate%20way&connection_limit=5&application_name=ours"])
    assert booked(books) == [1]


def test_the_grant_is_enough_and_shows_no_prompt(books: Books, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.write(row(1, NOON))
    gateway.run("DROP ROLE IF EXISTS rootcost_reader; DROP ROLE IF EXISTS nobody; CREATE ROLE nobody LOGIN PASSWORD 'n'")
    gateway.run(litellm_postgres.GRANT.replace("…", "p w'\"%".replace("'", "''")))
    reader = gateway.address.replace("postgres@", "rootcost_reader@")
    (problem,) = ingest(books, "litellm", [reader]).problems
    assert "password" in problem.reason and litellm_postgres.PASSWORD in problem.remedy
    monkeypatch.setenv("PGPASSWORD", "wrong")
    (problem,) = ingest(books, "litellm", [reader]).problems
    assert "authentication failed" in problem.reason
    monkeypatch.setenv(litellm_postgres.PASSWORD, "p w'\"%")
    assert ingest(books, "litellm", [reader]).problems == []
    assert booked(books) == [1]
    with psycopg.connect(reader, password="p w'\"%") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute('SELECT messages FROM "LiteLLM_SpendLogs"')
    monkeypatch.setenv(litellm_postgres.PASSWORD, "n")
    (problem,) = ingest(books, "litellm", [gateway.address.replace("postgres@", "nobody@")]).problems
    assert (problem.reason, "GRANT SELECT" in problem.remedy) == ("LiteLLM_SpendLogs may not be read", True)
    gateway.run('REVOKE ALL ON "LiteLLM_SpendLogs" FROM rootcost_reader; DROP ROLE rootcost_reader; DROP ROLE nobody')


def test_a_password_in_the_address_is_told_nowhere(books: Books) -> None:
    for address in ("postgresql://me:hunter2@127.0.0.1:1/litellm", "postgres://me@127.0.0.1:1/litellm?password=hunter2"):
        (problem,) = ingest(books, "litellm", [address]).problems
        assert problem.place == "file"
    stored_text = books.store.scan(PROBLEMS).collect().write_json() + books.store.scan(RAW_FILES).collect().write_json()
    assert "hunter2" not in stored_text


def test_what_is_no_gateway_is_said(books: Books, server: str, free_port: Callable[[], int]) -> None:
    (problem,) = ingest(books, "litellm", [server]).problems
    assert problem.reason == "there is no table LiteLLM_SpendLogs here"
    (problem,) = ingest(books, "litellm", [f"postgresql://me@127.0.0.1:{free_port()}/litellm"]).problems
    assert "refused" in problem.reason.lower() and problem.remedy.startswith("check host, port")


def test_a_broken_connection_is_made_again(books: Books, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_postgres, "sleep", lambda _: None)
    monkeypatch.setattr(litellm_postgres.plan, "__kwdefaults__", {"page_rows": 2})
    gateway.write(*(row(n, NOON + timedelta(seconds=n)) for n in range(5)))
    page, times = litellm_postgres._Table.page, []

    def interrupted(self: Any, asked: Any) -> Any:
        times.append(1)
        if len(times) == 2:
            mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rootcost'"
            gateway.run(mine)
        return page(self, asked)

    monkeypatch.setattr(litellm_postgres._Table, "page", interrupted)
    assert pull(books, gateway).problems == []
    assert booked(books) == [0, 1, 2, 3, 4]


def test_a_bad_row_is_known_by_its_id(books: Books, gateway: Gateway) -> None:
    gateway.write(row(1, NOON), row(2, NOON, spend=float("-inf")), row(3, NOON, spend=float("nan")))
    (problem,) = pull(books, gateway).problems
    assert (problem.place, problem.field) == ("row chatcmpl-2", "spend")
    assert booked(books) == [1, 3]


# --- the gateway's API ------------------------------------------------------------------------------


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpendLogServer]:
    monkeypatch.setenv("LITELLM_MASTER_KEY", SpendLogServer.KEY)
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    answering = SpendLogServer()
    yield answering
    answering.close()


def ask(books: Books, api: SpendLogServer, **how: Any) -> IngestReport:
    return ingest(books, "litellm", [api.url], **how)


@pytest.mark.slow
@pytest.mark.clock
def test_the_spend_log_is_asked_in_stretches_that_fit_a_page(books: Books, api: SpendLogServer) -> None:
    chance = random.Random(5)
    begin = datetime.now(UTC) - timedelta(days=30)
    busy = [begin + timedelta(seconds=chance.uniform(0, 7200)) for _ in range(3_000)]
    calm = [begin + timedelta(days=chance.uniform(1, 29)) for _ in range(500)]
    api.rows = [row(n, at) for n, at in enumerate([*busy, *calm])]
    assert ask(books, api).problems == []
    assert booked(books) == [*range(3_500)]
    assert all(query["page"] == "1" for query in api.asked), "no page is ever turned"
    assert len(api.asked) < 40
    assert books.store.scan(SPANS).collect()["reported_cost"].sum() == 3_500 * PRICE
    asked = len(api.asked)
    assert ask(books, api).rows_changed == 0
    assert len(api.asked) - asked <= 2


@pytest.mark.clock
@pytest.mark.slow
def test_rows_that_arrive_while_it_is_read_are_not_lost(books: Books, api: SpendLogServer) -> None:
    chance = random.Random(11)
    begin = datetime.now(UTC) - timedelta(hours=5)
    api.rows = [row(n, begin + timedelta(seconds=n * 4)) for n in range(4_000)]

    def arriving(_: dict[str, str]) -> None:
        for _row in range(20):
            api.rows.append(row(len(api.rows), datetime.now(UTC) - timedelta(minutes=chance.uniform(0, 30))))

    api.before = arriving
    ask(books, api)
    api.before = lambda _: None
    ask(books, api)
    assert booked(books) == [*range(len(api.rows))]


@pytest.mark.clock
@pytest.mark.slow
def test_a_second_that_holds_more_than_a_page_is_turned_and_counted(books: Books, api: SpendLogServer) -> None:
    api.disorder = 0
    at = (datetime.now(UTC) - timedelta(hours=3)).replace(microsecond=0)
    api.rows = [row(n, at + timedelta(milliseconds=n % 900)) for n in range(2_500)]
    api.rows += [row(3_000 + n, at + timedelta(seconds=n)) for n in range(5)]
    assert ask(books, api).problems == []
    assert booked(books) == [*range(2_500), *range(3_000, 3_005)]
    assert {query["page"] for query in api.asked} == {"1", "2", "3"}


@pytest.mark.clock
@pytest.mark.slow
def test_a_second_whose_pages_never_agree_is_told_and_asked_again(books: Books, api: SpendLogServer) -> None:
    at = (datetime.now(UTC) - timedelta(hours=3)).replace(microsecond=0)
    api.rows = [row(1, at - timedelta(minutes=1)), *(row(n, at) for n in range(2_000, 4_500)), row(2, at + timedelta(minutes=1))]
    problem = ask(books, api).problems[0]
    assert problem.place == f"{at - timedelta(seconds=1):%Y-%m-%d %H:%M:%S}" and "kept changing" in problem.reason
    assert booked(books)[:2] == [1, 2], "what lies behind it does not wait"
    api.rows.append(
        row(3, at - timedelta(seconds=30))
    )  # late, by hours: only a visit that begins where the last one had to stop sees it
    api.disorder = 0
    assert ask(books, api).problems == []
    assert booked(books) == [1, 2, 3, *range(2_000, 4_500)]
    assert told(books) == []


@pytest.mark.clock
def test_the_gateway_may_be_busy_and_may_be_down(books: Books, api: SpendLogServer) -> None:
    api.rows = [row(n, datetime.now(UTC) - timedelta(hours=n)) for n in range(5)]
    answers = iter([429, None, 503, None])
    api.before = lambda _: next(answers, None)
    assert ask(books, api).problems == []
    assert booked(books) == [0, 1, 2, 3, 4]
    before = checkpoints.load(books, "litellm")
    api.before = lambda _: 500
    (problem,) = ask(books, api).problems
    assert "500" in problem.reason and checkpoints.load(books, "litellm") == before


def test_a_missing_key_a_wrong_key_and_a_wrong_address_are_told_apart(
    books: Books, api: SpendLogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.rows = [row(1, NOON)]
    (problem,) = ingest(books, "litellm", [f"{api.url}/elsewhere"]).problems
    assert problem.reason == "the gateway has no /spend/logs/v2"
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-wrong")
    (problem,) = ask(books, api).problems
    assert "401" in problem.reason and "sk-wrong" not in problem.reason
    monkeypatch.delenv("LITELLM_MASTER_KEY")
    (problem,) = ask(books, api).problems
    assert problem.reason == "LITELLM_MASTER_KEY is not set"
    (problem,) = ingest(books, "litellm", [f"{api.url}?key=sk-secret"]).problems
    assert "sk-secret" not in f"{problem}"


@pytest.mark.clock
def test_an_empty_log_and_days_of_it(books: Books, api: SpendLogServer) -> None:
    assert (ask(books, api).problems, ask(books, api).rows) == ([], 0)
    api.rows = [row(day, datetime(2026, 10, day, 12, tzinfo=UTC)) for day in range(1, 8)]
    ask(books, api, window=Window(date(2026, 10, 3), date(2026, 10, 5)))
    assert booked(books) == [3, 4]
    ask(books, api)
    assert booked(books) == [*range(1, 8)]
    reached = checkpoints.load(books, "litellm")
    ask(books, api, window=Window(date(2026, 10, 3), None))
    assert checkpoints.load(books, "litellm") == reached


# --- all of them ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_live_and_pulled_are_the_same_calls(books: Books, bucket: Any, gateway: Gateway, api: SpendLogServer) -> None:
    """Four ways to 12 calls; each way lost some. Together each call is there once, with the cost of one."""
    calls = {n: NOON + timedelta(minutes=n) for n in range(12)}
    live = b"[" + b",".join(payload(n, at) for n, at in calls.items() if n % 4 != 0) + b", null]"
    reading = read_body(live, raw_id="r", uri="/v1/litellm", settings=books.settings.ingest)
    books.store.merge(SPANS, reading.frame, prefer="rank")
    for n, at in calls.items():
        if n % 4 != 1:
            put(bucket, n, started=at)
    gateway.write(*(row(n, at) for n, at in calls.items() if n % 4 != 2))
    api.rows = [row(n, at) for n, at in calls.items() if n % 4 == 2]
    report = ingest(books, "litellm", [LOGS, gateway.address, api.url])
    assert (report.problems, reading.problems) == ([], [])
    signals = books.store.scan(SPANS).collect()
    assert signals.group_by("channel").len().sort("channel").rows() == [
        ("litellm", 9),
        ("litellm-callback", 9),
        ("litellm-spend-logs", 12),
    ]
    attribute(books)
    merged = books.store.scan(CALLS).collect()
    assert sorted(merged["gateway_call_id"]) == sorted(f"call-{n}" for n in calls)
    assert merged["reported_cost"].sum() == 12 * PRICE
    for number in calls:
        known = {"litellm", "litellm-callback", "litellm-spend-logs"} - {
            {0: "litellm-callback", 1: "litellm"}.get(number % 4, "")
        }
        assert merged.filter(gateway_call_id=f"call-{number}")["channels"].item() == "+".join(sorted(known))


def test_a_page_that_was_saved_is_read_like_the_live_one_and_to_the_last_digit(books: Books, api: SpendLogServer) -> None:
    golden = CAPTURES.parent / "litellm_spend_logs"
    with (golden / "expected.csv").open() as file:
        expected = list(csv.DictReader(file))
    ingest(books, "litellm", [str(golden / "page.json")])
    saved = books.store.scan(SPANS).sort("start_time").collect()
    columns = ("gateway_call_id", "start_time", "request_model", "response_model", "input_tokens", "cache_read_tokens",
               "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "reported_cost")  # fmt: skip
    for rows, row_ in zip(saved.select(columns).iter_rows(), expected, strict=True):
        call, started, asked, answered, *counts, cost = row_.values()
        assert rows[0] == call
        assert rows[1] == datetime.fromisoformat(f"{started}+00:00")
        assert rows[2:4] == (asked, answered)
        assert rows[4:-1] == tuple(int(count) if count else None for count in counts)
        assert rows[-1] == Decimal(cost)
    assert saved["reported_cost"].sum() == sum(Decimal(row_["cost in dollars"]) for row_ in expected)

    page = json.loads((golden / "page.json").read_text())
    api.rows = [
        r | {k: datetime.fromisoformat(r[k]).replace(tzinfo=None) for k in ("startTime", "endTime")} for r in page["data"]
    ]
    assert ask(books, api).rows_changed == 0, "live it is the same"


@pytest.mark.clock
@pytest.mark.usefixtures("bucket")
def test_each_kind_of_address_can_be_tried_out(books: Books, bucket: Any, gateway: Gateway, api: SpendLogServer) -> None:
    now = datetime.now(UTC)
    put(bucket, 1, started=now)
    gateway.write(row(2, now))
    api.rows = [row(3, now)]
    for address in (LOGS, gateway.address, api.url):
        tried = probe(books, SOURCE, address)
        assert (tried.ok, tried.rows) == (True, 1), tried
        assert tried.newest is not None and abs(tried.newest - now) < timedelta(milliseconds=1)
    lacking = probe(books, SOURCE, gateway.address.replace("/litellm", "/postgres"))
    assert (lacking.ok, "there is no table LiteLLM_SpendLogs here" in lacking.message) == (False, True)
    assert checkpoints.load(books, "litellm") == {}
    assert booked(books) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "api"])
def test_a_page_cut_off_anywhere_gives_whole_rows_or_none(books: Books, tmp_path: Path, kind: str) -> None:
    rows = [row(n, NOON) | {"startTime": "2026-11-22T12:00:00", "endTime": None, "messages": None} for n in range(2)]
    body = (
        b"".join(json.dumps(r).encode() + b"\n" for r in rows)
        if kind == "table"
        else json.dumps({"data": rows, "total": 2}).encode()
    )
    path = tmp_path / "page"
    sizes = set()
    for end in range(len(body) + 1):
        path.write_bytes(body[:end])
        frames = [SPANS.empty()]
        item = RawObject("postgresql://db/litellm#page", path, "r", end)
        with contextlib.suppress(SourceError):  # refused by name, as a whole
            frames = [SPANS.empty(), *(reading.frame for reading in SOURCE.read(item, books.settings.ingest))]
        whole = pl.concat(frames)
        assert whole["input_tokens"].to_list() == [1200] * whole.height
        sizes.add(whole.height)
    assert sizes == ({0, 1, 2} if kind == "table" else {0, 2})
