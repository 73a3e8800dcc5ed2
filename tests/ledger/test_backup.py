"""Backups: consistent, incremental, whole or not there; a restored ledger gives the same figures."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from attribution.run import attribute
from ledger import locks
from ledger.backup import BackupReport, list_backups, make_backup, verify_backups
from ledger.books import Books
from ledger.errors import LedgerDamagedError, UsageError
from ledger.maintenance import maintain
from ledger.published import runs_in_force
from ledger.restore import restore
from ledger.spool import Spool
from ledger.tables import COSTS
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import ROOT

SETTINGS = """\
# Ours.
[alerts]
webhook_url = "https://hooks.example.com/secret"
thresholds = ["0.5"] # half

[[access.providers]]
name = "company"
issuer = "https://login.example.com"
client_id = "rootcost"
client_secret = "of the client"

[maintenance]
retention_minutes = 0.00001
"""


def figures(home: Path) -> list[str]:
    """What a ledger says of its money, in every view."""
    rootcost = Command(home)
    lines = [
        ("costs", "--by", "team,agent,model,cost_class,reason"),
        ("costs", "--view", "executor", "--basis", "billed"),
        ("evidence", "--month", "2026-10"),
        ("explain", "--by", "team", "--month", "2026-10"),
        ("budgets", "list"),
        ("balance",),
        ("runs",),
    ]
    answers = [rootcost(*line, "--format", "json") for line in lines]
    assert [answer.code for answer in answers] == [0] * len(lines), answers
    return [answer.out for answer in answers]


def costs_of(home: Path) -> list[tuple[object, ...]]:
    """The published costs, row by row."""
    with Books.open(home) as books:
        return sorted(books.store.scan(COSTS).filter(run_id=runs_in_force(books.database)["2026-10"]).collect().rows(), key=str)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def backed_up(home: Path, target: Path, *, keep: int | None = None) -> BackupReport:
    with Books.open(home) as books:
        return make_backup(books, str(target), actor="test", keep=keep)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.mark.slow
def test_a_restored_ledger_gives_the_same_figures_and_goes_on(copied_home: Path, target: Path, tmp_path: Path) -> None:
    rootcost = Command(copied_home)
    (copied_home / "rootcost.toml").write_text(SETTINGS)
    (copied_home / "agents.csv").write_text("agent,team\n")
    (copied_home / "outside").symlink_to("/etc/hostname")
    (copied_home / "token").write_text("secret")
    assert rootcost("budgets", "set", "care", "--team", "Care", "--amount", "1").code == 0
    assert rootcost("attribute", "--again").code == 0
    Spool(copied_home / "spool").append(spans(span(3, 7, 8, input_tokens=5, start_time=at(11), **SONNET)))
    expected_figures = figures(copied_home)

    report = rootcost("backup", target, "--format", "json")
    assert (report.code, report.rows["settings_left_out"]) == (0, ["alerts.webhook_url", "access.providers.client_secret"])
    assert report.rows["links_left_out"] == [str(copied_home / "outside")]
    restored_home = tmp_path / "restored"
    result = Command(restored_home)("restore", target)
    assert result.code == 0, result.err
    assert "Not in the backup, set again where needed: alerts.webhook_url" in result.err

    assert figures(restored_home) == expected_figures
    verification = Command(restored_home)("verify", "--format", "json")
    assert (verification.code, verification.rows["problems"]) == (0, [])
    assert {row["without_checksum"] for row in verification.rows["tables"]} == {0}
    assert (restored_home / "rootcost.toml").read_text() == SETTINGS.replace(
        'webhook_url = "https://hooks.example.com/secret"\n', ""
    ).replace('client_secret = "of the client"\n', "")
    assert not {"token", "outside", "restore-unfinished"} & set(os.listdir(restored_home))
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in [restored_home, *restored_home.rglob("*")]}
    assert modes == {True: 0o700, False: 0o600}
    with Books.open(restored_home) as books:
        assert not books.repairs
        assert Spool(restored_home / "spool").drain(books.store) == 1
        write(books, charges=charges(charge("0.06", tokens_k="20.0")))
        assert attribute(books).published
        maintain(books)
    assert Command(restored_home)("verify").code == 0


def test_a_second_backup_copies_only_what_is_new(copied_home: Path, target: Path) -> None:
    first = backed_up(copied_home, target)
    assert first.new_files > 20
    assert not first.damaged
    second = backed_up(copied_home, target)
    assert (second.files, second.new_files) == (first.files, 1)  # the database: its audit trail has the first backup
    with Books.open(copied_home) as books:
        write(books, spans=spans(span(3, 7, input_tokens=5, **SONNET)))
    third = backed_up(copied_home, target)
    manifest = list_backups(str(target))[0][-1]
    assert third.files > second.files
    assert 3 <= third.new_files <= 6, manifest.files  # data, commit, checksums, database
    assert [m.backup_id for m in list_backups(str(target))[0]] == [first.backup_id, second.backup_id, third.backup_id]
    assert verify_backups(str(target), list_backups(str(target))[0]) == []


def test_old_backups_go_with_what_only_they_need(copied_home: Path, target: Path, tmp_path: Path) -> None:
    other_home = Path(shutil.copytree(copied_home, tmp_path / "other"))
    other = backed_up(other_home, target)
    first = backed_up(copied_home, target)
    with Books.open(copied_home) as books:
        write(books, charges=charges(charge("0.06", tokens_k="10.0")))
    report = backed_up(copied_home, target, keep=1)
    assert report.removed_backups == [first.backup_id]
    assert report.removed_files >= 1
    manifests, errors = list_backups(str(target))
    assert ([m.backup_id for m in manifests], errors) == (sorted([other.backup_id, report.backup_id]), [])
    assert verify_backups(str(target), manifests) == []
    restore(str(target), tmp_path / "restored", actor="test", backup_id=other.backup_id)
    assert costs_of(tmp_path / "restored") == costs_of(other_home)


def test_nothing_is_vacuumed_while_a_backup_is_made(copied_home: Path) -> None:
    (copied_home / "rootcost.toml").write_text(SETTINGS + "facts_days = 0.0000001\n")
    with Books.open(copied_home) as books:
        write(books, charges=charges(charge("0.06", tokens_k="10.0")))
        with locks.backup_lock(books):
            assert maintain(books).removed_files == 0
        assert maintain(books).removed_files == 1


@pytest.mark.slow
def test_what_is_written_meanwhile_is_not_half_in_a_backup(copied_home: Path, target: Path, tmp_path: Path) -> None:
    """Between the moment of the backup and the copying, charges are replaced, a month is published, and nothing of it is restored."""
    expected_costs = costs_of(copied_home)
    with Books.open(copied_home) as books:
        is_first = True

        def attribute_meanwhile(*_: object) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                write(books, charges=charges(charge("0.06", tokens_k="10.0")))
                Spool(copied_home / "spool").append(spans(span(3, 7, input_tokens=5, **SONNET)))
                assert attribute(books).published
                maintain(books)

        make_backup(books, str(target), actor="test", progress=attribute_meanwhile)
    restore(str(target), tmp_path / "restored", actor="test")
    assert costs_of(tmp_path / "restored") == expected_costs
    assert costs_of(copied_home) != expected_costs


@pytest.mark.slow
def test_killed_backups_are_not_listed_and_killed_restores_are_finished_by_the_next() -> None:
    """A sample of `make survive`, in a process of its own: one that has tables open must not be forked."""
    counts = ["--kills=0", "--s3-kills=0", "--postgres-kills=0", "--cuts=0", "--flips=0", "--backups=2", "--seed=2"]
    line = [sys.executable, "-m", "tests.survive.run", *counts]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert (run.returncode, "backups: 2, failures: 0" in run.stdout) == (0, True), run.stdout + run.stderr


def test_a_damaged_content_is_named_and_restored_nowhere(copied_home: Path, target: Path, tmp_path: Path) -> None:
    report = backed_up(copied_home, target)
    [manifest], _ = list_backups(str(target))
    spans_path = next(p for p in manifest.files if p.startswith("tables/spans/") and p.endswith(".parquet"))
    content = target / "files" / manifest.files[spans_path].digest[:2] / manifest.files[spans_path].digest
    whole_bytes = content.read_bytes()
    flip(content, 50)
    [damage] = verify_backups(str(target), [manifest])
    assert (damage.home_paths, damage.backup_ids) == ((spans_path,), (report.backup_id,))
    verification = Command(copied_home)("backup", "verify", target)
    assert verification.code == 1
    assert spans_path in verification.err
    new_home = tmp_path / "restored"
    result = Command(new_home)("restore", target)
    assert result.code == 1
    assert f"{spans_path} ({content})" in result.err
    assert "the restore of the backup" in Command(new_home)("costs").err
    content.write_bytes(whole_bytes)
    assert Command(new_home)("restore", target).code == 0
    assert costs_of(new_home) == costs_of(copied_home)


def test_a_file_that_was_damaged_before_is_told_and_the_rest_is_backed_up(copied_home: Path, target: Path) -> None:
    path = next((copied_home / "tables/charges").rglob("*.parquet"))
    flip(path, 50)
    result = Command(copied_home)("backup", target)
    assert result.code == 1
    assert f"{path.relative_to(copied_home)} is damaged or missing in the ledger" in result.err
    assert list_backups(str(target))[0][0].damaged == (str(path.relative_to(copied_home)),)


def test_nothing_is_restored_over_a_ledger_or_out_of_a_home(
    copied_home: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = backed_up(copied_home, target)
    refusal = Command(copied_home)("restore", target)
    assert (refusal.code, "is not empty" in refusal.err) == (2, True)
    assert "holds no backup 'x'" in Command(tmp_path / "new")("restore", target, "--at", "x").err
    assert not (tmp_path / "new").exists()
    assert "lies in the folder that is backed up" in Command(copied_home)("backup", copied_home / "backups").err
    assert "set backup.address" in Command(copied_home)("backup").err
    monkeypatch.setenv("ROOTCOST_STORE__URI", str(copied_home / "tables"))
    with pytest.raises(UsageError, match="holds tables of another ledger"):
        restore(str(target), tmp_path / "third", actor="test")
    monkeypatch.undo()
    path = target / "backups" / f"{report.backup_id}.json"
    path.write_text(path.read_text().replace('"rootcost.db":', '"../../evil":'))
    listing = Command(copied_home)("backup", "list", target)
    assert (listing.code, "the manifest is damaged" in listing.err) == (1, True)
    with pytest.raises(LedgerDamagedError, match="the manifest is damaged"):
        restore(str(target), tmp_path / "fourth", actor="test")
    assert backed_up(copied_home, target, keep=1).unreadable  # and nothing that it may need is removed
    assert path.exists()


def test_a_manifest_with_paths_out_of_the_home_is_refused(copied_home: Path, target: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from ledger.backup_manifest import write_manifest
    from ledger.locations import location

    backed_up(copied_home, target)
    [manifest], _ = list_backups(str(target))
    for path in ("../evil", "/tmp/evil", "tables/../../evil"):
        write_manifest(
            location(str(target)), replace(manifest, files={**manifest.files, path: next(iter(manifest.files.values()))})
        )
        with pytest.raises(LedgerDamagedError, match="no path below a folder"):
            restore(str(target), tmp_path / "restored", actor="test")
    assert not (tmp_path / "evil").exists()


def test_links_are_not_followed_out_of_the_new_home(copied_home: Path, target: Path, tmp_path: Path) -> None:
    report = backed_up(copied_home, target)
    new_home, other_folder = tmp_path / "restored", tmp_path / "elsewhere"
    new_home.mkdir()
    other_folder.mkdir()
    (new_home / "restore-unfinished").write_text(report.backup_id)
    (new_home / "tables").symlink_to(other_folder)
    with pytest.raises(UsageError, match="leads out of the folder"):
        restore(str(target), new_home, actor="test")
    assert list(other_folder.iterdir()) == []


def test_the_list_says_what_there_is(copied_home: Path, target: Path) -> None:
    report = backed_up(copied_home, target)
    [row] = Command(copied_home)("backup", "list", target, "--format", "json").rows
    assert (row["backup_id"], row["files"], row["home"]) == (report.backup_id, report.files, str(copied_home))
    assert json.loads(Command(copied_home)("backup", "verify", target, "--format", "json").out)["damages"] == []
