"""Bills in S3: manifests, restatements, and a store that fails half way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from ingest.fetch import WorldFetcher
from ingest.run import IngestReport, ingest
from ledger.books import Books
from ledger.errors import ObjectMissingError, StoreUnreachable
from ledger.tables import CHARGES, PROBLEMS, RAW_FILES
from tests.support.amounts import sum_of
from tests.support.cur_exports import MONTH, line, manifest, parquet

ROOT = "s3://bills/finops/agents"
DATA = f"finops/agents/data/BILLING_PERIOD={MONTH}"
METADATA = f"finops/agents/metadata/BILLING_PERIOD={MONTH}"
TAGS = {"user_team": "care"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bills")
    yield client
    for entry in client.list_objects_v2(Bucket="bills").get("Contents", ()):
        client.delete_object(Bucket="bills", Key=entry["Key"])
    client.delete_bucket(Bucket="bills")


def put(s3: Any, key: str, body: bytes) -> str:
    s3.put_object(Bucket="bills", Key=key, Body=body)
    return f"s3://bills/{key}"


def deliver(s3: Any, *parts: bytes, execution: str = "run-1", run: str = "") -> None:
    """One delivery: all data files, then the manifest. `run` is the run's own folder where runs are kept."""
    inside = f"/{run}" if run else ""
    names = [put(s3, f"{DATA}{inside}/agents-{i:05}.snappy.parquet", part) for i, part in enumerate(parts, 1)]
    put(s3, f"{METADATA}{inside}/agents-Manifest.json", manifest(names, execution=execution))


def booked(books: Books) -> Decimal:
    return sum_of(books.store.scan(CHARGES).collect()["billed_cost"])


def read(books: Books) -> IngestReport:
    return ingest(books, "aws-cur", [ROOT])


def test_an_export_is_read_from_s3_as_its_manifest_says(books: Books, s3: Any) -> None:
    deliver(s3, parquet(line(1.0, resource_tags=TAGS), line(0.5, "Tax")), parquet(line(2.0)))
    put(s3, f"{DATA}/agents-00003.snappy.parquet", parquet(line(99.0)))
    put(s3, "finops/agents-old/metadata/BILLING_PERIOD=2026-10/agents-Manifest.json", b"{}")
    seen: list[tuple[str, int, int]] = []
    report = ingest(books, "aws-cur", [ROOT], progress=lambda *told: seen.append(told))

    assert (report.problems, report.rows, report.totals["USD"]["billed_cost"]) == ([], 3, Decimal("3.5"))
    assert books.store.scan(CHARGES).collect()["tags"].drop_nulls().to_list() == ['{"user_team":"care"}']
    assert [(number, known) for _, number, known in seen] == [(1, 2), (2, 2)]
    files = books.store.scan(RAW_FILES).collect()
    assert files["version"].unique().to_list() == ["run-1"]
    kept = sorted(p.name for p in (books.home / "raw" / "aws-cur").iterdir())
    assert len([n for n in kept if n.endswith(".parquet")]) == 2 and not [n for n in kept if n.startswith(".")]
    assert {n.split("-", 1)[0] for n in kept if n.endswith(".parquet")} == set(files["raw_id"])


def test_ingesting_again_changes_nothing(books: Books, s3: Any) -> None:
    deliver(s3, parquet(line(1.0), line(1.0)))
    read(books)
    version = books.store.version(CHARGES)
    again = read(books)
    assert (again.rows, again.rows_changed, again.already_known, books.store.version(CHARGES)) == (2, 0, 1, version)


def test_an_overwritten_month_replaces_itself(books: Books, s3: Any) -> None:
    deliver(s3, parquet(line(1.0)), parquet(line(2.0)))
    read(books)
    deliver(s3, parquet(line(4.0)), execution="run-2")  # one file fewer; the second one still lies there
    assert read(books).problems == []
    assert booked(books) == 4


def test_of_kept_runs_the_newest_is_the_month(books: Books, s3: Any) -> None:
    deliver(s3, parquet(line(1.0)), execution="a", run="2026-11-01T04:00:00.000Z-a")
    deliver(s3, parquet(line(2.0)), execution="b", run="2026-11-02T04:00:00.000Z-b")
    assert read(books).problems == [] and booked(books) == 2
    deliver(s3, parquet(line(3.0)), execution="c", run="2026-11-03T04:00:00.000Z-c")
    assert read(books).problems == [] and booked(books) == 3


def test_a_missing_object_is_named_and_the_month_stays(books: Books, s3: Any) -> None:
    deliver(s3, parquet(line(1.0)))
    read(books)
    deliver(s3, parquet(line(2.0)), parquet(line(3.0)), execution="run-2")
    s3.delete_object(Bucket="bills", Key=f"{DATA}/agents-00002.snappy.parquet")
    (problem,) = read(books).problems

    assert problem.place.endswith("agents-00002.snappy.parquet") and "is missing" in problem.reason
    assert booked(books) == 1
    deliver(s3, parquet(line(2.0)), execution="run-3")
    assert read(books).problems == [] and booked(books) == 2
    assert books.store.scan(PROBLEMS).collect().height == 0


def test_one_broken_month_does_not_hold_up_another(books: Books, s3: Any) -> None:
    deliver(s3, b"PAR1 and then nothing")
    key = "finops/agents/data/BILLING_PERIOD=2026-09/agents-00001.snappy.parquet"
    name = put(s3, key, parquet(line(5.0, month="2026-09")))
    put(
        s3,
        "finops/agents/metadata/BILLING_PERIOD=2026-09/agents-Manifest.json",
        manifest([name], execution="run-1", month="2026-09"),
    )
    report = read(books)
    assert report.months == ["2026-09"] and booked(books) == 5
    assert [p.reason.split(":")[0] for p in report.problems] == ["no readable Parquet file"]


def test_a_single_object_and_a_glob_are_read_by_name(books: Books, s3: Any) -> None:
    put(s3, "loose/a.parquet", parquet(line(1.0)))
    put(s3, "loose/b.parquet", parquet(line(2.0, line_item_usage_account_id="777788889999")))
    ingest(books, "aws-cur", ["s3://bills/loose/a.parquet"])
    assert booked(books) == 1
    ingest(books, "aws-cur", ["s3://bills/loose/*.parquet"])
    assert booked(books) == 3


def test_what_is_not_there_is_a_problem_that_says_what_to_check(books: Books, s3: Any) -> None:
    report = ingest(books, "aws-cur", ["s3://bills/nothing", "s3://no-such-bucket/x", "/no/such/folder"])
    assert [(p.uri, p.reason.split(" (")[0]) for p in report.problems] == [
        ("s3://bills/nothing", "no such object or prefix"),
        ("s3://no-such-bucket/x", "no such object"),
        ("/no/such/folder", "no such file or folder"),
    ]
    assert all(p.remedy for p in report.problems)


def test_an_object_is_downloaded_once_a_run(books: Books, s3: Any) -> None:
    uri = put(s3, "x/a.csv", b"one")
    with WorldFetcher(books.settings, source="focus") as fetcher:
        first = fetcher.get(uri)
        s3.delete_object(Bucket="bills", Key="x/a.csv")
        assert fetcher.get(uri) is first and first.path.read_bytes() == b"one"
        assert first.version == "f97c5d29941bfb1b2fdab0874906ab82"  # MD5 of "one", as S3 names it


def test_a_prefix_is_a_folder_and_never_the_beginning_of_another_name(books: Books, s3: Any) -> None:
    for key in ("cur/a", "cur-old/b", "cur/deep/c", "cur/folder/"):
        put(s3, key, b"x")
    with WorldFetcher(books.settings) as fetcher:
        for uri in ("s3://bills/cur", "s3://bills/cur/"):
            assert [entry.uri for entry in fetcher.list(uri)] == ["s3://bills/cur/a", "s3://bills/cur/deep/c"]
        assert len(fetcher.list("s3://bills")) == 3


class _Failing(BaseHTTPRequestHandler):
    """An S3 that lists two files and answers the first; the second is what the test says."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, list[tuple[int, bytes, int]]]] = {}
    asked: ClassVar[list[str]] = []
    etag: ClassVar[str] = "e"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(path)
        left = type(self).answers[path]
        status, body, length = left.pop(0) if len(left) > 1 else left[0]
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{type(self).etag}"')
        self.end_headers()
        self.wfile.write(body)
        if length != len(body):
            self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Failing]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _Failing.answers, _Failing.asked, _Failing.etag = {}, [], "e"
    for name, value in (
        ("ACCESS_KEY_ID", "t"),
        ("SECRET_ACCESS_KEY", "t"),
        ("ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield _Failing
    server.shutdown()
    server.server_close()
    thread.join()


def answers(failing: type[_Failing], **objects: list[tuple[int, bytes, int]]) -> None:
    failing.answers = {"/bills": [page(*objects)], **{f"/bills/cur/{name}": told for name, told in objects.items()}}


def page(*names: str, following: str = "") -> tuple[int, bytes, int]:
    keys = "".join(
        f"<Contents><Key>cur/{name}</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-11-01T00:00:00Z</LastModified></Contents>"
        for name in names
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    return whole(f"<ListBucketResult>{more}{keys}</ListBucketResult>".encode())


def whole(body: bytes, status: int = 200) -> tuple[int, bytes, int]:
    return status, body, len(body)


def test_long_listings_are_followed_to_their_end(books: Books, failing: type[_Failing]) -> None:
    failing.answers = {"/bills": [page("a", "b", following="more"), page("c")]}
    with WorldFetcher(books.settings) as fetcher:
        assert [entry.uri[-1] for entry in fetcher.list("s3://bills/cur")] == ["a", "b", "c"]


def test_a_500_from_s3_is_a_problem_and_nothing_half_written_is_seen(books: Books, failing: type[_Failing]) -> None:
    csv = b"line_item_unblended_cost\n"
    error = b"<Error><Code>InternalError</Code></Error>"
    told = manifest(["s3://bills/cur/a", "s3://bills/cur/b"], execution="run-1")
    answers(failing, **{"x-Manifest.json": [whole(told)], "a": [whole(csv)], "b": [whole(error, 500)]})
    report = ingest(books, "aws-cur", ["s3://bills/cur"])

    (problem,) = report.problems
    assert "s3://bills/cur/b cannot be fetched: S3 answered 500 (InternalError)" in problem.reason
    assert problem.remedy == "2026-10 was left as it was; S3 was asked several times; try again later"
    assert failing.asked.count("/bills/cur/b") == 4
    assert booked(books) == 0 and not list((books.home / "raw" / "aws-cur").glob(".*"))


def test_a_500_that_passes_is_no_problem(books: Books, failing: type[_Failing]) -> None:
    answers(failing, a=[whole(b"", 503), whole(b"", 500), whole(parquet(line(1.0)))])
    assert ingest(books, "aws-cur", ["s3://bills/cur/a"]).problems == [] and booked(books) == 1


def test_a_body_that_breaks_off_is_asked_for_again(books: Books, failing: type[_Failing]) -> None:
    body = parquet(line(1.0))
    answers(failing, a=[(200, body[:100], len(body)), whole(body)])
    assert ingest(books, "aws-cur", ["s3://bills/cur/a"]).problems == [] and booked(books) == 1

    answers(failing, a=[(200, body[:100], len(body))])
    with WorldFetcher(books.settings) as fetcher, pytest.raises(StoreUnreachable):
        fetcher.get("s3://bills/cur/a")
    assert not list((books.home / "raw" / "objects").iterdir())


def flipped(body: bytes, position: int) -> bytes:
    return body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]


def test_a_body_that_is_not_what_its_etag_says_is_asked_for_again(books: Books, failing: type[_Failing]) -> None:
    body = parquet(line(1.0))
    failing.etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    answers(failing, a=[whole(flipped(body, 90)), whole(body)])
    assert ingest(books, "aws-cur", ["s3://bills/cur/a"]).problems == [] and booked(books) == 1

    answers(failing, a=[whole(flipped(body, position)) for position in (90, 91, 92, 93)])
    with WorldFetcher(books.settings) as fetcher, pytest.raises(StoreUnreachable, match="does not agree with its ETag"):
        fetcher.get("s3://bills/cur/a")


def test_an_etag_that_is_no_checksum_refuses_nothing(books: Books, failing: type[_Failing]) -> None:
    failing.etag = "0" * 32  # of stores that encrypt
    answers(failing, a=[whole(parquet(line(1.0)))])
    assert ingest(books, "aws-cur", ["s3://bills/cur/a"]).problems == [] and booked(books) == 1


def test_refused_access_says_which_rights_are_needed(books: Books, failing: type[_Failing]) -> None:
    answers(failing, a=[whole(b"<Error><Code>AccessDenied</Code></Error>", 403)])
    (problem,) = ingest(books, "focus", ["s3://bills/cur/a"]).problems
    assert (problem.reason, "s3:GetObject" in problem.remedy) == ("S3 refuses access (AccessDenied)", True)


def test_an_unreachable_endpoint_keeps_earlier_problems(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: Any
) -> None:
    put(s3, "bad/a.csv", b"a,b\n1,2\n")
    ingest(books, "focus", ["s3://bills/bad"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    ingest(books, "focus", ["s3://bills/bad"])
    told = books.store.scan(PROBLEMS).sort("uri").collect()["reason"].to_list()
    assert len(told) == 2 and "Could not connect" in told[0] and "mandatory columns" in told[1]


def test_a_missing_object_is_its_own_fault(books: Books, s3: Any) -> None:
    with WorldFetcher(books.settings) as fetcher, pytest.raises(ObjectMissingError, match="NoSuchKey"):
        fetcher.get("s3://bills/nothing")


@pytest.mark.slow
def test_the_ledger_itself_may_lie_in_s3(endpoint: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.create_bucket(Bucket="ledger")
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    monkeypatch.setenv("ROOTCOST_STORE__URI", "s3://ledger/tables")
    monkeypatch.setenv("ROOTCOST_STORE__OPTIONS", str(options).replace("'", '"'))
    deliver(s3, parquet(line(1.0)))
    with Books.open(tmp_path / "home") as books:
        for cost in (1.0, 2.0):
            deliver(s3, parquet(line(cost)))
            assert read(books).problems == []
            assert books.store.scan(CHARGES).select(pl.col("billed_cost").sum()).collect().item() == Decimal(cost)
