"""`.ci/commits_import.py`: a commit that does not import is named, whether or not a later one mends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository that has the script."""
    folder = tmp_path / "repository"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "commits_import.py", folder / ".ci")
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=Someone", "-c", "user.email=someone@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def commit(folder: Path, subject: str, **files: str) -> None:
    for name, code in files.items():
        path = folder / "ledger" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", subject)


def check(folder: Path) -> tuple[int, str]:
    line = [sys.executable, str(folder / ".ci" / "commits_import.py")]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    return result.returncode, result.stdout + result.stderr


def test_a_broken_commit_is_named_and_good_trees_are_remembered(repository: Path) -> None:
    commit(
        repository, "start", __init__="", money="def split(): ...\n", books="def close():\n    from ledger.money import split\n"
    )
    commit(repository, "rename", money="def share(): ...\n")
    commit(repository, "follow", books="def close():\n    from ledger.money import share\n")
    commit(repository, "typo", money="import ledger.nowhere\n")
    commit(repository, "mend", money="def share(): ...\n")
    commit(repository, "nothing")
    code, output = check(repository)
    assert code == 1
    assert output.count("does not import: ") == 2
    assert "rename\n  ledger/books.py:2: there is no ledger.money.split" in output
    assert "typo\n  ledger.money: ModuleNotFoundError: No module named 'ledger.nowhere'" in output
    assert "6 commits, 4 different trees: 0 known to import, 4 checked, 2 do not import" in output
    assert "2 known to import, 2 checked" in check(repository)[1]
    assert not list(repository.glob(".git/worktrees/*"))


def test_commits_from_before_the_script_are_history(repository: Path) -> None:
    script = repository / ".ci" / "commits_import.py"
    content = script.read_text()
    script.unlink()
    commit(repository, "broken long ago", __init__="import ledger.nowhere\n")
    script.write_text(content)
    commit(repository, "start", __init__="")
    code, output = check(repository)
    assert (code, output.split(":")[0]) == (0, "1 commits, 1 different trees")


def test_without_history_it_says_so_and_passes(repository: Path, tmp_path: Path) -> None:
    for subject in ("start", "second"):
        commit(repository, subject, __init__="")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    code, output = check(tmp_path / "shallow")
    assert (code, output) == (
        0,
        "The clone is shallow: commits are not checked one by one (git fetch --unshallow brings the history)\n",
    )
    shutil.rmtree(repository / ".git")
    code, output = check(repository)
    assert (code, output) == (0, "There is no git history here: commits are not checked one by one\n")
