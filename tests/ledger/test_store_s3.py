"""The same books with their tables on S3: facts, runs and reports through the store's own setting."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import boto3
import polars as pl
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from attribution.run import attribute
from ledger.audit_heads import keep_head, kept_heads
from ledger.audit_verify import verify_audit
from ledger.books import Books
from ledger.errors import StoreUnreachable
from ledger.settings import AuditSettings, StoreSettings
from ledger.store import Store
from ledger.tables import CHARGES, COSTS
from tests.support.audit_damage import append
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="ledger")
    yield {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    server.stop()


@pytest.mark.slow
def test_the_worked_example_with_its_tables_on_s3(books: Books, bucket: dict[str, str]) -> None:
    """Credentials come from the environment, as the AWS default chain has it."""
    store = StoreSettings(uri="s3://ledger/books", options=bucket)
    with Books(books.settings.model_copy(update={"store": store})) as remote:
        facts = spans(span(1, 1, agent_name="bot"), span(1, 2, 1, input_tokens=7000, **SONNET))
        write(remote, spans=facts, charges=charges(charge("0.03", tokens_k="10")))
        write(remote, spans=facts)
        first = attribute(remote)
        write(remote, charges=charges(charge("0.06", tokens_k="10")))
        second = attribute(remote)
        for run, metered in ((first, "0.021"), (second, "0.042")):
            costs = remote.store.scan(COSTS, {"run_id": [run.run_id]}).filter(pl.col("cost_class") == "metered").collect()
            assert costs["effective_cost"].sum() == Decimal(metered)


def test_a_store_that_does_not_answer_is_one_clear_error(bucket: dict[str, str]) -> None:
    gone = Store("s3://ledger/books", bucket | {"aws_endpoint_url": "http://127.0.0.1:9", "max_retries": "0", "timeout": "2s"})
    with pytest.raises(StoreUnreachable, match="credentials"):
        gone.scan(CHARGES)


@pytest.mark.clock
def test_heads_of_the_audit_log_are_locked_where_the_bucket_has_object_lock(books: Books, bucket: dict[str, str]) -> None:
    """A cut end of the log shows against a head that its writer cannot take away."""
    s3 = boto3.client("s3", endpoint_url=bucket["aws_endpoint_url"])
    s3.create_bucket(Bucket="heads", ObjectLockEnabledForBucket=True)
    store, audit = (
        StoreSettings(uri="s3://ledger/books", options=bucket),
        AuditSettings(heads_uri="s3://heads/a/", heads_locked_days=30),
    )
    with Books(books.settings.model_copy(update={"store": store, "audit": audit})) as remote:
        append(remote.database, "ann", 3)
        head = keep_head(remote)
        assert head is not None
        assert keep_head(remote) is None, "once is enough"
        (version,) = s3.list_object_versions(Bucket="heads")["Versions"]
        assert version["Key"] == f"a/audit-head-{3:012d}-{head.hash}.json"
        entry = s3.head_object(Bucket="heads", Key=version["Key"])
        assert entry["ObjectLockMode"] == "GOVERNANCE"
        assert timedelta(days=29) < entry["ObjectLockRetainUntilDate"] - datetime.now(UTC) <= timedelta(days=30)
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(Bucket="heads", Key=version["Key"], VersionId=version["VersionId"])
        with remote.database.session() as session:
            session.execute(sa.text("DELETE FROM audit WHERE sequence = 3"))
            session.execute(sa.text("UPDATE audit_head SET sequence = 2, hash = (SELECT hash FROM audit WHERE sequence = 2)"))
        assert verify_audit(remote.database).damages == []
        assert [(d.first, d.last) for d in verify_audit(remote.database, kept_heads(remote)).damages] == [(3, 3)]
