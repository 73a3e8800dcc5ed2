"""A secret in the address of a source is used to read it, and is in one file for its owner only."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ingest.probe import ProbeResult
from ledger import sources
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.errors import UsageError
from tests.support.api_examples import reach
from tests.support.cli_books import Command

SECRET = "hunter2-s3cr3t"
ADDRESS = f"https://bills.example/export.csv?month=2026-10&api_key={SECRET}"
KEPT = "https://bills.example/export.csv?month=2026-10&api_key=…"


def files_with_the_secret(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_secret_of_an_address_is_stored_aside(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rootcost = Command(home)
    added_source = rootcost("sources", "add", "acme", "focus", ADDRESS, "--format", "json")
    assert (added_source.code, json.loads(added_source.out)["addresses"]) == (0, [KEPT])
    file = home / "secrets" / "acme.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert rootcost("sources", "add", "acme", "focus", ADDRESS.replace(SECRET, "other")).code == 2
    assert files_with_the_secret(home) == [file]
    read_addresses: list[str] = []

    def probe(_books: Books, _kind: object, uri: str) -> ProbeResult:
        read_addresses.append(uri)
        return ProbeResult(uri, ok=True, message=f"{uri} can be read")

    monkeypatch.setattr("ingest.probe.probe", probe)
    output = rootcost("sources", "test", "acme")
    assert (output.code, read_addresses, SECRET in output.out + output.err) == (0, [ADDRESS], False)
    backup = rootcost("backup", "create", str(tmp_path / "backups"))
    assert "the secret of the source acme" in backup.err
    restored_home = tmp_path / "restored"
    assert Command(restored_home)("restore", str(tmp_path / "backups")).code == 0
    assert files_with_the_secret(tmp_path / "backups") + files_with_the_secret(restored_home) == []
    run = Command(restored_home)("sources", "run", "acme")
    assert run.code != 0
    assert "the secret of its address is not on this machine" in run.err
    assert rootcost("sources", "remove", "acme").code == 0
    assert files_with_the_secret(home) == []


def test_an_address_may_name_a_variable_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://bills.example/export.csv?api_key=${ACME_KEY}"
    assert Command(home)("sources", "add", "acme", "focus", address).code == 0
    assert not (home / "secrets").exists()
    with Books.open(home) as books:
        (source,) = sources.list_sources(books)
        assert source.uris == [address]
        with pytest.raises(UsageError, match="ACME_KEY, which is not set"):
            sources.addresses(books, source)
        monkeypatch.setenv("ACME_KEY", SECRET)
        assert sources.addresses(books, source) == [address.replace("${ACME_KEY}", SECRET)]


def test_terms_that_change_keep_replace_and_forget_secrets(home: Path) -> None:
    """What is given as it is shown keeps its secret; another secret replaces it; an address that goes takes it along."""
    rootcost = Command(home)
    assert rootcost("sources", "add", "acme", "focus", ADDRESS).code == 0
    with Books.open(home) as books:
        (source,) = sources.list_sources(books)
        terms = sources.Terms(source.uris, None, "0 5 * * *", timedelta(days=1), timedelta(days=2))
        assert sources.addresses(books, sources.change(books, "acme", terms, actor="test")) == [ADDRESS]
        rotated_uri = ADDRESS.replace(SECRET, "another")
        changed_source = sources.change(books, "acme", replace(terms, uris=[rotated_uri]), actor="test")
        assert (changed_source.uris, sources.addresses(books, changed_source)) == ([KEPT], [rotated_uri])
        assert files_with_the_secret(home) == []
        sources.change(books, "acme", replace(terms, uris=["https://bills.example/open.csv"]), actor="test")
        assert not list((home / "secrets").iterdir())


@pytest.mark.slow
def test_the_environment_of_the_server_is_not_for_callers_of_the_api(home: Path) -> None:
    with Books.open(home) as books, reach(books) as http:
        _, key = create_key(books, "platform", [Grant("platform")], actor="test")
        body = {"name": "x", "source": "openai", "addresses": ["https://api.openai.com/v1?api_key=${AWS_SECRET_ACCESS_KEY}"]}
        answer = http.post("/v1/sources", json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code in (400, 422)
        assert "names no variable" in answer.json()["detail"]
        assert sources.list_sources(books) == []
