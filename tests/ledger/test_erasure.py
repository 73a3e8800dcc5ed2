"""A person is erased: no byte of the home names them, and every figure stays as it was to the last digit."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import boto3
import polars as pl
import pytest
import sqlalchemy as sa

from attribution import removal
from attribution.monitoring.recount import recount
from attribution.removal import Period, erase_period
from attribution.run import attribute
from ledger import audit, erasure, registry
from ledger.access_tables import User
from ledger.audit_verify import verify_audit
from ledger.base import Base
from ledger.books import Books
from ledger.erasure import erase_person, plan_erasure
from ledger.identifiers import Identifiers
from ledger.locks import serve_lock
from ledger.maintenance import maintain
from ledger.periods import now
from ledger.problems import Problem, to_frame
from ledger.published import inputs_in_force, published_months
from ledger.settings import StoreSettings, load
from ledger.tables import BALANCE, CALLS, CHARGES, COSTS, PROBLEMS, SPANS
from ledger.verify import verify_table
from tests.ledger.test_store_s3 import bucket as bucket
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write
from tests.support.postgres_server import postgres_server

ANN, ID = "ann.lee@example.com", "u-4711"
PERSON = (ANN, ID)
OTHERS = ("joann.lee@example.com", "u-47111", "ann.lee@example.com.au")
AMOUNTS = ("billed_cost", "effective_cost", "list_cost", "contracted_cost", "quantity")


@pytest.fixture(scope="module")
def person_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published home that names a person wherever one can be named."""
    home = tmp_path_factory.mktemp("erasure") / "home"
    prompt = json.dumps({"gen_ai.prompt": f"Dear all,\n{ANN} writes: my salary is 90000"})
    facts = spans(
        span(1, 1, agent_name="support-bot", end_user=ANN, conversation_id="c-1"),
        span(1, 2, 1, input_tokens=2000, principal=f"arn:aws:sts::1111:assumed-role/dev/{ANN}", attributes=prompt, **SONNET),
        span(2, 3, agent_name="support-bot", conversation_id="c-1", attributes='{"gen_ai.prompt": "and the bonus 5000"}'),
        span(2, 4, 3, input_tokens=3000, tenant=ID, claimed_agent=ANN.upper(), **SONNET),
        span(3, 5, agent_name="coder", end_user=OTHERS[0], tenant=OTHERS[1], attributes='{"gen_ai.prompt": "hello"}'),
        span(3, 6, 5, input_tokens=1000, principal=OTHERS[2], **SONNET),
    )
    bill = charges(
        charge("0.030000000000", tokens_k="10.0"), charge("0.07", principal=ANN, tags=json.dumps({"user": ANN, "id": ID}))
    )
    with Books.open(home) as books:
        write(books, spans=facts, charges=bill, owners=f"agent,team,principals\nsupport-bot,Care,\ncoder,Dev,{ANN}\n")
        attribute(books)
        books.store.append(PROBLEMS, to_frame([Problem("otlp", f"file of {ANN}", "line 1", "user", f"{ID} is odd", "remedy")]))
        with books.database.session() as session:
            session.add(User(name=ID, email=ANN, created_at=now()))
            audit.record(session, "cli", "user.add", ID, after={"user": ID}, personal={"email": ANN})
            audit.record(session, "cli", "test", "another", personal={"email": OTHERS[0]})
    (home / "raw" / "focus").mkdir(parents=True)
    (home / "raw" / "focus" / f"{'0' * 64}-bill.csv.gz").write_bytes(gzip.compress(f"user\n{ANN}\n".encode()))
    (home / "raw" / "focus" / f"{'1' * 64}-other.csv").write_text(f"user\n{OTHERS[0]}\n")
    (home / "backups").mkdir(exist_ok=True)
    shutil.copyfile(home / "rootcost.db", home / "backups" / "rootcost-old.db")
    (home / "rootcost.log").write_text(f"a request of {ANN} failed\n")
    return home


@pytest.fixture
def home(person_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(person_home, tmp_path / "home"))


@contextmanager
def opened(home: Path) -> Iterator[Books]:
    with Books.open(home) as books:
        yield books


def figures(books: Books) -> list[pl.DataFrame]:
    """Every figure of the published month, without the columns that name who."""
    costs = books.store.scan(COSTS).select("initiator_agent", "initiator_team", "cost_class", "reason", *AMOUNTS).collect()
    calls = books.store.scan(CALLS).select("trace_key", "span_key", "initiator_agent", "list_cost", "input_tokens").collect()
    return [frame.sort(pl.all()) for frame in (costs, calls, books.store.scan(BALANCE).drop("run_id").collect())]


def own_names(books: Books) -> set[str]:
    """The pseudonym of the principal in the registry."""
    rows = registry.rows(books)
    names = set(rows.filter(pl.col("kind") == "principal")["name"])
    assert all(name.startswith("erased-") for name in names)
    assert len(names) == 1
    return names


def places_that_name(home: Path, *texts: str) -> list[str]:
    """The files below a home in whose bytes, rows or packed content a text is."""
    places = []
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        content = path.read_bytes()
        content += gzip.decompress(content) if path.suffix == ".gz" else b""
        content += pl.read_parquet(path, hive_partitioning=False).write_ndjson().encode() if path.suffix == ".parquet" else b""
        other_content = content.lower()
        for other in OTHERS:
            other_content = other_content.replace(other.encode(), b"")
        places += [path.relative_to(home).as_posix() for text in texts if text.lower().encode() in other_content]
    return places


def test_nothing_names_the_person_any_more_and_no_figure_changed(home: Path) -> None:
    assert len(set(places_that_name(home, *PERSON))) >= 10
    with opened(home) as books:
        figures_before, published_before = figures(books), published_months(books.database)
        report = erase_person(books, Identifiers.of(PERSON), actor="cli", reason="requested")
        assert report.is_purged
        assert report.rows["spans"] == 3
        assert report.spans_with_content == 2
        assert report.calls == 2
        assert report.billed_cost == {"USD": Decimal("0.07")}
        assert report.files.removed == ["backups/rootcost-old.db", f"raw/focus/{'0' * 64}-bill.csv.gz"]
        assert report.files.remaining == []
        for before, after in zip(figures_before, figures(books), strict=True):
            assert before.equals(after)
        for month, inputs in inputs_in_force(books.database).items():
            assert books.store.fingerprint(CHARGES, {"billing_month": [month]}) == inputs["charges"]
        assert set(registry.rows(books)["name"]) == {"support-bot", "coder", *own_names(books)}
        assert (
            published_months(books.database)[0].published_at > published_before[0].published_at
        )  # kept answers are no longer valid
        assert verify_audit(books.database).damages == []
        assert not any(problem for month in recount(books, source="verify") for problem in month.problems)
    assert places_that_name(home, *PERSON, "salary", "bonus") == []
    assert places_that_name(home, "hello")  # of another person
    with opened(home) as books:
        assert all(verify_table(books.store, table).problems == [] for table in (SPANS, CHARGES, COSTS, PROBLEMS))
        spans_left = books.store.scan(SPANS).collect()
        assert set(OTHERS) <= {*spans_left["end_user"], *spans_left["tenant"], *spans_left["principal"]}
        # Whom a pseudonym belongs to, nothing says; that rows belong together, it does.
        tenant = spans_left.filter(pl.col("tenant").str.starts_with("erased-"))["tenant"].to_list()
        assert len(tenant) == 1
        with books.database.session() as session:
            user = session.scalars(sa.select(User)).one()
            assert (user.name, user.disabled_at is None) == (tenant[0], False)
            # What somebody else changes in an entry from which a person was erased is named as ever.
            entry = session.scalars(sa.select(audit.Audit).where(audit.Audit.action == "user.add")).one()
            session.execute(sa.update(audit.Audit).where(audit.Audit.sequence == entry.sequence).values(subject="nobody"))
        assert [damage.first for damage in verify_audit(books.database).damages] == [entry.sequence]


def test_a_month_that_is_attributed_again_comes_to_the_same_figures(home: Path) -> None:
    with opened(home) as books:
        before = figures(books)
        erase_person(books, Identifiers.of(PERSON), actor="cli")
        assert attribute(books, force=True).published
        costs = books.store.scan(COSTS).filter(pl.col("run_id") == pl.col("run_id").max())
        new_sums = costs.group_by("initiator_team", "cost_class", "reason").agg(pl.col(AMOUNTS).sum()).collect().sort(pl.all())
        assert new_sums.equals(
            before[0].group_by("initiator_team", "cost_class", "reason").agg(pl.col(AMOUNTS).sum()).sort(pl.all())
        )


def test_without_a_yes_nothing_is_changed(home: Path) -> None:
    with opened(home) as books:
        versions = {table: books.store.version(table) for table in (SPANS, CHARGES, COSTS)}
        plan = plan_erasure(books, Identifiers.of(PERSON))
        assert {table: books.store.version(table) for table in versions} == versions
        assert plan.rows == erase_person(books, Identifiers.of(PERSON), actor="cli").rows
        assert plan_erasure(books, Identifiers.of(PERSON)).is_empty


@pytest.mark.slow
@pytest.mark.parametrize("step", ["_erase_database", "erase_files"])
def test_it_goes_on_where_it_was_broken_off_with_the_same_pseudonyms(
    home: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with opened(home) as books:
        before = figures(books)
        with monkeypatch.context() as patch:
            patch.setattr(erasure if step == "erase_files" else erasure._Erasure, step, killed)
            with pytest.raises(KeyboardInterrupt):
                erase_person(books, Identifiers.of(PERSON), actor="cli")
    with opened(home) as books:
        maintain(books)
        assert all(a.equals(b) for a, b in zip(before, figures(books), strict=True))
        assert not (home / erasure.JOURNAL).exists()
        tenants = books.store.scan(SPANS).filter(pl.col("tenant").str.starts_with("erased-")).collect()["tenant"]
        with books.database.session() as session:
            assert session.scalars(sa.select(User.name)).one() == tenants[0]
        assert verify_audit(books.database).damages == []
    assert places_that_name(home, *PERSON, "salary", "bonus") == []


def test_while_it_is_served_readers_keep_earlier_versions_for_the_retention(home: Path) -> None:
    with opened(home) as books, serve_lock(home, "http://127.0.0.1:1"):
        reader = books.store.scan(SPANS)
        assert not erase_person(books, Identifiers.of(PERSON), actor="cli").is_purged
        assert reader.collect().height == 6
        maintain(books)
        assert (home / erasure.JOURNAL).exists()
        assert not places_that_name(home, *PERSON).count(erasure.JOURNAL)
        short = books.settings.maintenance.model_copy(update={"retention_minutes": 1e-6})
        books.settings = books.settings.model_copy(update={"maintenance": short})
        maintain(books)
    assert places_that_name(home, *PERSON) == []


@pytest.mark.slow
@pytest.mark.clock
def test_a_person_and_a_period_are_erased_on_s3_and_in_postgresql(
    tmp_path: Path, bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No object of the bucket and no row of the database names the person or holds what was removed; the costs stay."""
    monkeypatch.setattr(removal, "now", lambda: datetime(2027, 1, 15, tzinfo=UTC))
    # A second passes between two readings of the clock: the retention is over when it is asked about, however fine the clock of the machine.
    first_reading, readings = now(), count()
    monkeypatch.setattr(erasure, "now", lambda: first_reading + timedelta(seconds=next(readings)))
    prompt = json.dumps({"gen_ai.prompt": "my salary is 90000"})
    facts = spans(
        span(1, 1, agent_name="support-bot", end_user=ANN, attributes=prompt),
        span(1, 2, 1, input_tokens=7000, principal=f"role/{ANN}", **SONNET),
    )
    with postgres_server() as url:
        store = StoreSettings(uri="s3://ledger/books", options=bucket, database_url=url)
        settings = load(tmp_path / "remote")
        short = settings.maintenance.model_copy(update={"retention_minutes": 1e-6})
        with Books(settings.model_copy(update={"store": store, "maintenance": short})) as remote:
            write(
                remote,
                spans=facts,
                charges=charges(charge("0.03", tokens_k="10.0", principal=ANN)),
                owners=f"agent,team,principals\nsupport-bot,Care,{ANN}\n",
            )
            attribute(remote)
            before = figures(remote)
            assert texts_of(remote, bucket, ANN, "salary")
            assert erase_person(remote, Identifiers.of([ANN]), actor="test").is_purged
            assert texts_of(remote, bucket, ANN, "salary") == []
            assert all(a.equals(b) for a, b in zip(before, figures(remote), strict=True))
            report = erase_period(
                remote, Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)), actor="test"
            )
            assert (report.rows, report.is_purged) == ({"calls": 1, "chains": 1, "charges": 1, "spans": 2}, True)
            assert remote.store.scan(SPANS).collect().is_empty()
            assert texts_of(remote, bucket, f"{1:032x}") == []
            assert figures(remote)[0].equals(before[0])
            assert [month.problems for month in recount(remote, source="verify")] == [()]
            assert verify_audit(remote.database).damages == []


def texts_of(books: Books, bucket: dict[str, str], *texts: str) -> list[str]:
    """Objects of the books in the bucket, which tests share, and tables of the database that hold a text."""
    client = boto3.client("s3", endpoint_url=bucket["aws_endpoint_url"])
    places = []
    for entry in client.list_objects_v2(Bucket="ledger", Prefix="books/").get("Contents", ()):
        content = client.get_object(Bucket="ledger", Key=entry["Key"])["Body"].read()
        if entry["Key"].endswith(".parquet") and "_delta_log" not in entry["Key"]:
            content += pl.read_parquet(io.BytesIO(content), hive_partitioning=False).write_ndjson().encode()
        places += [entry["Key"] for text in texts if text.encode() in content]
    with books.database.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            rows = str(connection.execute(sa.select(table)).all())
            places += [table.name for text in texts if text in rows]
    return places
