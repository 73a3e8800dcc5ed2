"""A CUR 2.0 export on S3, attributed, then restated: the new run says why it differs, and the old one can still be read. (TI-2)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from attribution.monitoring.run_diff import differences
from attribution.run import attribute
from ingest.prices.litellm_map import import_litellm_map, import_prices
from ingest.run import ingest
from ledger import registry
from ledger.books import Books
from ledger.settings import IngestSettings
from ledger.tables import BALANCE, COSTS
from rootcost.demo import DemoCompany, generate
from tests.support.amounts import sum_of

BUCKET = "billing"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> DemoCompany:
    return generate(tmp_path_factory.mktemp("company"), calls=1500, seed=11)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 of our own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def upload(folder: Path, endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint)
    if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())


@pytest.mark.slow
def test_a_restated_export_on_s3(books: Books, company: DemoCompany, s3: str) -> None:
    books.settings = books.settings.model_copy(
        update={"ingest": IngestSettings(s3_endpoint_url=s3, trusted_sources=["otlp", "litellm"])}
    )
    truth = json.loads(company.truth.read_text())
    registry.import_csv(books, company.registry)
    import_prices(books, import_litellm_map())
    ingest(books, "otlp", [str(company.otlp)])
    ingest(books, "litellm", [str(company.litellm)])
    export = f"s3://{BUCKET}/{company.aws_export.relative_to(company.bucket).as_posix()}/"

    upload(company.bucket, s3)
    ingest(books, "aws-cur", [export])
    first = attribute(books)
    assert first.published
    assert first.balance["difference"].abs().sum() == 0
    metered = books.store.scan(COSTS, {"run_id": [first.run_id]}).filter(
        pl.col("cost_class") == "metered", pl.col("basis") == "billed"
    )
    assert metered.collect().height > 0

    upload(company.restated, s3)
    ingest(books, "aws-cur", [export])
    second = attribute(books)
    assert second.spans_read == 0, "a bill never rereads the spans"
    assert second.balance["difference"].abs().sum() == 0

    billed = books.store.scan(COSTS, {"run_id": [second.run_id]}).filter(pl.col("basis") == "billed").collect()
    for column in ("billed_cost", "effective_cost"):
        # The bill has amounts of 13 places; what import rounded away is told, not lost. (MO-1a)
        rounded = second.balance.filter(pl.col("cost_column") == column, pl.col("provider") == "AWS")["rounding"].item()
        assert sum_of(billed[column]) + Decimal(rounded) == Decimal(truth["bills"]["AWS, restated"][column])

    told = differences(books, company.month, first.run_id, second.run_id)
    assert {d.cause for d in told} == {"restated charge"}
    bill = sum((d.moved for d in told if d.cost_class is None), Decimal(0))
    owners = sum((d.moved for d in told if d.cost_class is not None), Decimal(0))
    totals = [
        sum_of(
            books.store.scan(BALANCE, {"run_id": [r.run_id]})
            .filter(pl.col("cost_column") == "effective_cost")
            .collect()["charges_in"]
        )
        for r in (first, second)
    ]
    assert bill == totals[1] - totals[0] != 0
    # Owners also lose the estimates of what the first bill did not cover yet.
    estimates = [
        sum_of(books.store.scan(COSTS, {"run_id": [r.run_id]}).filter(pl.col("basis") == "estimated").collect()["effective_cost"])
        for r in (first, second)
    ]
    assert owners == bill + estimates[1] - estimates[0]
    assert (
        books.store.scan(COSTS, {"run_id": [first.run_id]}).filter(pl.col("basis") == "billed").collect()["effective_cost"].sum()
        == totals[0]
    )
