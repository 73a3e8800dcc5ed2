"""AWS beyond one export: which exports there are, several payers, split rows, principals, and deliveries caught half way."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from attribution.run import attribute
from ingest.run import ingest
from ingest.sources.aws_cur import exports
from ingest.sources.aws_cur.source import SOURCE as AWS_CUR
from ledger.books import Books
from ledger.tables import CHARGES, PROBLEMS
from tests.attribution.test_rules import rows, total
from tests.support.cli_books import Command
from tests.support.cur_exports import MONTH, line, manifest, moment, parquet
from tests.support.paths import DATA

D = Decimal
DATA = DATA / "aws_exports"
OTHER_PAYER = "999988887777"


# ── which exports there are ─────────────────────────────────────────────────────────────────────────────────────────


class _Aws(BaseHTTPRequestHandler):
    """Speaks the two services' JSON 1.1 as recorded in the client's own model; answers are (status, body) by operation."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, list[tuple[int, dict[str, Any]]]]] = {}
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].split(".")[1]
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        type(self).asked.append((operation, told))
        left = type(self).answers[operation]
        if operation == "GetExport":
            status, answer = next(a for a in left if a[1]["Export"]["ExportArn"] == told["ExportArn"])
        else:
            status, answer = left.pop(0) if len(left) > 1 else left[0]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Aws]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Aws)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _Aws.answers, _Aws.asked = json.loads((DATA / "answers.json").read_text(encoding="utf-8")), []
    for name, value in (
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "test"),
        ("ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    yield _Aws
    server.shutdown()
    server.server_close()
    thread.join()


def test_all_exports_are_found_over_all_pages_with_what_they_lack(aws: type[_Aws]) -> None:
    found, faults = exports.exports()
    with (DATA / "expected.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert faults == []
    assert [
        {
            "name": e.name,
            "account": e.account or "",
            "source": e.source or "",
            "uri": e.uri,
            "granularity": e.granularity or "",
            "overwrite": e.overwrite or "",
            "lacks": ";".join(e.lacks),
            "status": e.status,
            "refreshed_at": f"{e.refreshed_at:%Y-%m-%dT%H:%M:%SZ}" if e.refreshed_at else "",
        }
        for e in found
    ] == expected
    assert [told for operation, told in aws.asked if operation == "ListExports"] == [{}, {"NextToken": "more"}]


def test_the_command_prints_lines_ready_to_run(aws: type[_Aws], home: Path) -> None:
    done = Command(home)("aws", "exports")
    lines = [text for text in done.out.splitlines() if not text.startswith("#")]
    assert done.code == 0 and lines == [
        "rootcost sources add agents-focus focus s3://acme-billing/agents-focus/",
        "rootcost sources add company-cur2-111122223333 aws-cur s3://acme-billing/exports/finops/company-cur2/",
        "rootcost sources add company-cur2-999988887777 aws-cur s3://other-billing/company-cur2/",
        "rootcost sources add old-report aws-cur s3://acme-billing/legacy/old-report/",
    ]
    assert "# carbon" in done.out and "lacks line_item_iam_principal" in done.err
    added = [Command(home)(*text.split()[1:]).code for text in lines]
    assert added == [0, 0, 0, 0]
    aws.answers["ListExports"] = json.loads((DATA / "answers.json").read_text(encoding="utf-8"))["ListExports"]
    assert Command(home)("aws", "exports", "--format", "json").rows[0]["add"] == lines[0]


def test_one_refused_service_does_not_hide_the_other(aws: type[_Aws], home: Path) -> None:
    aws.answers["DescribeReportDefinitions"] = [(400, {"__type": "AccessDeniedException", "message": "no"})]
    done = Command(home)("aws", "exports")
    assert done.code == 1 and "company-cur2" in done.out
    assert "AWS refuses access (AccessDeniedException); allow cur:DescribeReportDefinitions" in done.err
    assert '"cur:DescribeReportDefinitions"' in done.err, "the policy to paste"


def test_both_refused_is_one_line(aws: type[_Aws], home: Path) -> None:
    refused = (400, {"__type": "AccessDeniedException", "message": "no"})
    aws.answers |= {"ListExports": [refused], "DescribeReportDefinitions": [refused]}
    done = Command(home)("aws", "exports")
    assert done.code == 1 and "bcm-data-exports:ListExports" in done.err and len(done.err.strip().splitlines()) == 1


def test_a_throttled_answer_is_asked_for_again(aws: type[_Aws]) -> None:
    aws.answers["ListExports"].insert(0, (400, {"__type": "ThrottlingException", "message": "slow down"}))
    found, faults = exports.exports()
    assert len(found) == 5 and not faults


def test_no_credentials_say_which_to_name(aws: type[_Aws], monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda _: None)
    done = Command(home)("aws", "exports")
    assert done.code == 1 and "AWS_PROFILE" in done.err and not done.out


# ── deliveries in S3 ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("ENDPOINT_URL", endpoint)):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bills")
    yield client
    for entry in client.list_objects_v2(Bucket="bills").get("Contents", ()):
        client.delete_object(Bucket="bills", Key=entry["Key"])
    client.delete_bucket(Bucket="bills")


class Export:
    """An export under a prefix of the bucket `bills`, delivered piece by piece."""

    def __init__(self, s3: Any, prefix: str, account: str = "111122223333") -> None:
        self.s3, self.prefix, self.account = s3, prefix, account

    @property
    def uri(self) -> str:
        return f"s3://bills/{self.prefix}"

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket="bills", Key=f"{self.prefix}/{key}", Body=body)
        return f"{self.uri}/{key}"

    def data(self, *parts: bytes, month: str = MONTH, run: str = "") -> list[str]:
        inside = f"/{run}" if run else ""
        return [
            self.put(f"data/BILLING_PERIOD={month}{inside}/part-{n:05}.snappy.parquet", body) for n, body in enumerate(parts, 1)
        ]

    def manifest(self, names: list[str], *, execution: str, month: str = MONTH, run: str = "") -> None:
        inside = f"/{run}" if run else ""
        told = json.loads(manifest(names, execution=execution, month=month, export="company"))
        told["exportArn"] = told["exportArn"].replace("111122223333", self.account)
        self.put(f"metadata/BILLING_PERIOD={month}{inside}/company-Manifest.json", json.dumps(told).encode())

    def deliver(self, *parts: bytes, execution: str = "run-1", month: str = MONTH, run: str = "") -> None:
        self.manifest(self.data(*parts, month=month, run=run), execution=execution, month=month, run=run)


def booked(books: Books, key: str = "billing_month") -> dict[str, Decimal]:
    kept = books.store.scan(CHARGES).group_by(key).agg(pl.col("billed_cost").sum()).collect()
    return dict(sorted(kept.iter_rows()))


def test_files_count_when_their_manifest_comes_and_not_before(books: Books, s3: Any) -> None:
    export = Export(s3, "cur/company")
    names = export.data(parquet(line(1.0)), parquet(line(2.0)))
    (problem,) = ingest(books, "aws-cur", [export.uri]).problems
    assert "no manifest says which of these files make a month" in problem.reason and booked(books) == {}
    export.manifest(names, execution="run-1")
    assert ingest(books, "aws-cur", [export.uri]).problems == [] and booked(books) == {MONTH: D(3)}
    assert books.store.scan(PROBLEMS).collect().height == 0
    export.data(parquet(line(5.0)), run="2026-11-02T04:00:00.000Z-next")  # the next run's data, its manifest not yet there
    assert ingest(books, "aws-cur", [export.uri]).problems == [] and booked(books) == {MONTH: D(3)}


def test_a_month_overwritten_while_it_is_read_is_left_and_told(books: Books, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter deletes the old files once we have read the manifest and the first of them."""
    export = Export(s3, "cur/company")
    export.deliver(parquet(line(1.0, month="2026-09")), month="2026-09")
    export.deliver(parquet(line(1.0)), parquet(line(2.0)))
    ingest(books, "aws-cur", [export.uri])
    export.deliver(parquet(line(4.0, month="2026-09")), month="2026-09", execution="run-2")
    export.deliver(parquet(line(10.0)), parquet(line(20.0)), execution="run-2")
    vanish_after(monkeypatch, s3, first="part-00001", gone=f"cur/company/data/BILLING_PERIOD={MONTH}/part-00002.snappy.parquet")
    (problem,) = ingest(books, "aws-cur", [export.uri]).problems
    assert "part-00002.snappy.parquet, which is missing" in problem.reason and f"{MONTH} was left as it was" in problem.remedy
    assert booked(books) == {"2026-09": D(4), MONTH: D(3)}, "the month is whole and old, the other is new"
    monkeypatch.undo()


def vanish_after(monkeypatch: pytest.MonkeyPatch, s3: Any, *, first: str, gone: str) -> None:
    from ingest.fetch import WorldFetcher

    download = WorldFetcher._download

    def downloaded(self: WorldFetcher, uri: str) -> Any:
        item = download(self, uri)
        if first in uri and MONTH in uri:
            s3.delete_object(Bucket="bills", Key=gone)
        return item

    monkeypatch.setattr(WorldFetcher, "_download", downloaded)


@pytest.mark.slow
def test_runs_kept_and_months_overwritten_lie_side_by_side(books: Books, s3: Any) -> None:
    """One export keeps its runs, the other overwrites; months arrive newest first."""
    runs, over = Export(s3, "runs/company"), Export(s3, "over/company", OTHER_PAYER)
    for month in ("2026-11", "2026-10", "2026-09"):
        for day, cost in ((1, 1.0), (2, 2.0)):
            runs.deliver(
                parquet(line(cost, month=month)), month=month, execution=f"e{day}", run=f"{month}-2{day}T04:00:00.000Z-e{day}"
            )
            theirs = line(cost * 10, month=month, bill_payer_account_id=OTHER_PAYER)
            over.deliver(parquet(theirs), month=month, execution=f"e{day}")
            for export in (runs, over):
                assert ingest(books, "aws-cur", [export.uri]).problems == []
    assert booked(books) == {month: D(22) for month in ("2026-09", "2026-10", "2026-11")}
    again = ingest(books, "aws-cur", [over.uri, runs.uri])
    assert (again.problems, again.rows_changed) == ([], 0)


def test_several_payers_side_by_side_are_a_dataset_each(books: Books, s3: Any) -> None:
    """Both call their export `company`; one prefix holds both."""
    ours, theirs = Export(s3, "all/ours/company"), Export(s3, "all/theirs/company", OTHER_PAYER)
    ours.deliver(parquet(line(1.0)))
    theirs.deliver(parquet(line(2.0, bill_payer_account_id=OTHER_PAYER)))
    assert ingest(books, "aws-cur", ["s3://bills/all"]).problems == []
    assert booked(books, "billing_account_id") == {"111122223333": D(1), OTHER_PAYER: D(2)}
    theirs.deliver(parquet(line(4.0, bill_payer_account_id=OTHER_PAYER)), execution="run-2")
    assert ingest(books, "aws-cur", [theirs.uri]).problems == []
    assert booked(books, "billing_account_id") == {"111122223333": D(1), OTHER_PAYER: D(4)}
    assert booked(books, "scope") == {"111122223333.company-0f3c": D(1), f"{OTHER_PAYER}.company-0f3c": D(4)}


def test_the_same_payer_by_a_second_export_is_refused_as_double(books: Books, s3: Any) -> None:
    """The bytes differ (another export, another order of columns), the bill is the same."""
    first, second = Export(s3, "one/company"), Export(s3, "two/daily")
    first.deliver(parquet(line(1.0), line(2.0, month=MONTH)))
    ingest(books, "aws-cur", [first.uri])
    second.deliver(parquet(dict(reversed(line(3.0).items()))))
    body = json.loads(
        s3.get_object(Bucket="bills", Key=f"two/daily/metadata/BILLING_PERIOD={MONTH}/company-Manifest.json")["Body"].read()
    )
    body["exportArn"] = body["exportArn"].replace("company-0f3c", "daily-77aa")
    second.put(f"metadata/BILLING_PERIOD={MONTH}/company-Manifest.json", json.dumps(body).encode())
    (problem,) = ingest(books, "aws-cur", [second.uri]).problems
    assert "payer 111122223333 is booked for 2026-10 as '111122223333.company-0f3c'" in problem.reason
    assert booked(books) == {MONTH: D(3)}
    assert ingest(books, "aws-cur", [first.uri]).problems == []


# ── split cost allocation ───────────────────────────────────────────────────────────────────────────────────────────


def split_report(tmp_path: Path, form: str, cost: str | None, missing: str | None) -> str:
    """A node for 10.00, its pods' shares 6.00 + 1.00 unused and 2.00 + 1.00 unused, and a table of DynamoDB for 0.50."""
    node = {
        "line_item_product_code": "AmazonEC2",
        "line_item_resource_id": "i-node",
        "line_item_usage_type": "USE1-BoxUsage:g5.xlarge",
    }
    whole = line("10.00", **node, split_line_item_parent_resource_id=missing, split_line_item_split_cost=None)
    pods = [
        line(
            cost,
            line_item_product_code="AmazonEKS",
            line_item_resource_id=f"arn:aws:eks:us-east-1:444455556666:pod/c/ns/{pod}/u",
            line_item_usage_type="USE1-EKS-EC2-GB-Hours",
            split_line_item_parent_resource_id="i-node",
            split_line_item_split_cost=share,
            split_line_item_unused_cost="1.00",
        )
        for pod, share in (("a", "6.00"), ("b", "2.00"))
    ]
    other = line("0.50", line_item_product_code="AmazonDynamoDB", split_line_item_parent_resource_id=missing)
    report = [pods[0], whole, other, pods[1]]
    if form == "parquet":
        path = tmp_path / "split.parquet"
        numbers = [
            row | {"line_item_unblended_cost": None if (c := row["line_item_unblended_cost"]) is None else float(c)}
            for row in report
        ]
        path.write_bytes(parquet(*numbers))
        return str(path)
    names = list(dict.fromkeys(name for row in report for name in row))
    path = tmp_path / "split.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(
            {k: f"{v:%Y-%m-%dT%H:%M:%SZ}" if isinstance(v, datetime) else v for k, v in row.items()} for row in report
        )
    return str(path)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("cost", ["0", None, "7.00"], ids=["zero", "empty", "their own"])
@pytest.mark.parametrize("missing", [None, ""], ids=["null", "blank"])
def test_split_rows_never_count_beside_their_parent(
    books: Books, tmp_path: Path, form: str, cost: str | None, missing: str | None
) -> None:
    report = ingest(books, "aws-cur", [split_report(tmp_path, form, cost, missing)])
    assert {c: t for c, t in report.totals["USD"].items() if c != "list_cost"} == dict.fromkeys(
        ("billed_cost", "effective_cost", "contracted_cost"), D("10.50")
    )
    assert [(p.field, p.rows, p.severity) for p in report.problems if "split" in p.field] == [
        ("split_line_item_parent_resource_id", 2, "warning")
    ]
    attribute(books)
    assert sum(total(books, "cost_class").values()) == D("10.50")


# ── principals, profiles, agents' runtimes ──────────────────────────────────────────────────────────────────────────

OWNERS = (
    "agent,team,valid_from,principals\n"
    "support-bot,Care,2026-01-01,\n"
    "batch-runner,Data,2026-01-01,arn:aws:iam::444455556666:role/BatchRole\n"
    "exact,Ops,2026-01-01,arn:aws:sts::444455556666:assumed-role/BatchRole/nightly\n"
)
ROLE = "arn:aws:sts::444455556666:assumed-role"


def test_principals_walk_the_ladder_to_their_owner(books: Books, tmp_path: Path) -> None:
    """1: a role; 2: a session named after an agent, in a role of another; 4: the whole ARN; 8: nobody, but a tag; 16: nobody at all."""
    from ledger import registry

    who = [
        (1.0, f"{ROLE}/BatchRole/i-0abc123", None),
        (2.0, f"{ROLE}/BatchRole/support-bot", None),
        (4.0, f"{ROLE}/BatchRole/nightly", None),
        (8.0, "arn:aws:iam::444455556666:user/eva", {"iamPrincipal/team": "Growth"}),
        (16.0, f"{ROLE}/Unknown/i-0def456", {"iamPrincipal/cost-center": "12"}),
    ]
    lines = [
        line(cost, line_item_iam_principal=arn, tags=tags, pricing_unit="1K tokens", line_item_usage_amount=1.0)
        for cost, arn, tags in who
    ]
    (tmp_path / "who.parquet").write_bytes(parquet(*lines))
    registry.import_text(books, OWNERS, uri="by hand", actor="test")
    assert ingest(books, "aws-cur", [str(tmp_path / "who.parquet")]).errors == 0
    attribute(books)
    assert rows(books, "cost_class", "initiator_agent", "initiator_team", "effective_cost") == sorted(
        [
            ("owner", "batch-runner", "Data", D(1)),
            ("owner", "support-bot", "Care", D(2)),
            ("owner", "exact", "Ops", D(4)),
            ("owner", None, "Growth", D(8)),
            ("unallocated", None, None, D(16)),
        ],
        key=str,
    )


def test_a_principal_s_tags_are_kept_from_every_form_of_report(books: Books, tmp_path: Path) -> None:
    (tmp_path / "maps.parquet").write_bytes(parquet(line(1.0, tags={"iamPrincipal/team": "Care"})))
    columns = "bill/BillingPeriodStartDate,lineItem/LineItemType,lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/UnblendedCost,lineItem/CurrencyCode,iamPrincipal/team"
    told = "2026-10-01T00:00:00Z,Usage,2026-10-05T01:00:00Z,2026-10-05T02:00:00Z,2,USD,Care"
    (tmp_path / "wide.csv").write_text(f"{columns}\n{told}\n")
    for name in ("maps.parquet", "wide.csv"):
        assert ingest(books, "aws-cur", [str(tmp_path / name)]).problems == []
    assert books.store.scan(CHARGES).collect()["tags"].to_list() == ['{"iamPrincipal/team":"Care"}'] * 2


def test_a_report_cut_off_at_any_byte_keeps_nothing_half(books: Books, tmp_path: Path) -> None:
    """A Parquet file says at its end what is in it: cut, it is refused by name, wherever that is."""
    body = parquet(line(1.0, line_item_iam_principal="arn:aws:iam::1:user/u", tags={"iamPrincipal/team": "Care"}))
    path = tmp_path / "cut.parquet"
    for cut in [*range(0, len(body), max(1, len(body) // 60)), len(body) - 1]:
        path.write_bytes(body[:cut])
        report = ingest(books, "aws-cur", [str(path)])
        assert report.rows == 0 and len(report.problems) == 1 and report.problems[0].remedy, cut
    assert booked(books) == {}


def test_it_says_what_it_needs() -> None:
    assert "s3:GetObject" in AWS_CUR.access.policy and "bcm-data-exports:ListExports" in exports.POLICY
    assert moment(5).tzinfo is UTC
