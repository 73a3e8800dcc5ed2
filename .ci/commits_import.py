"""Checks that every recent commit imports: each module of each package, and every name that an import inside a function asks for.

Commits since the merge base with origin/main, or the last 60 where HEAD is on it, newest first; those from before this script are
history, and what was wrong with them stays. Commits without a change of Python files are passed over, trees that imported once are
remembered in the git folder, and the check ends after --seconds: it says how many commits it did not reach. Where there is no history
to check (no git, a shallow clone) it says so and passes.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ledger", "ingest", "attribution", "api", "ui", "rootcost")
SCRIPTS = ("ledger/migrations/", "ui/app.py", "ui/pages_/")
"""Files that alembic and streamlit run: importing them would run them. The names that they import are checked all the same."""
MAX_COMMITS = 60
SCRIPT = ".ci/commits_import.py"


def git(*arguments: str, folder: Path = ROOT) -> str:
    """What git answers; CalledProcessError where it refuses."""
    line = ["git", "-C", str(folder), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout.strip()


def commits() -> list[str]:
    """The commits to check, newest first."""
    head = git("rev-parse", "HEAD")
    try:
        base = git("merge-base", "HEAD", "origin/main")
    except subprocess.CalledProcessError:
        base = head
    span = ["HEAD"] if base == head else [f"{base}..HEAD"]
    recent = git("rev-list", f"--max-count={MAX_COMMITS}", *span).split()
    return [commit for commit in recent if git("ls-tree", "--name-only", commit, "--", SCRIPT)]


def tree_key(commit: str) -> str:
    """A digest of the Python files of a commit's packages: equal where nothing that is imported differs."""
    listing = git("ls-tree", "-r", commit, "--", *PACKAGES)
    code = [line for line in listing.splitlines() if line.endswith((".py", ".csv"))]
    return hashlib.sha256("\n".join([sys.version, *code]).encode()).hexdigest()


def failures(tree: Path) -> list[str]:
    """What cannot be imported from a checked-out tree."""
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    importlib.invalidate_caches()
    gc.collect()
    paths = [path for package in PACKAGES for path in sorted((tree / package).rglob("*.py"))]
    messages = []
    for path in paths:
        if str(path.relative_to(tree)).startswith(SCRIPTS):
            continue
        name = ".".join(path.relative_to(tree).with_suffix("").parts).removesuffix(".__init__")
        try:
            module = importlib.import_module(name)
            if not str(module.__file__).startswith(str(tree)):
                messages.append(f"{name}: imported from {module.__file__}")
        except Exception as error:  # noqa: BLE001 - whatever a module raises is the finding
            if not is_missing_library(error):
                messages.append(f"{name}: {type(error).__name__}: {error}")
    return messages or [message for path in paths for message in missing_names(path, tree)]


def is_missing_library(error: Exception) -> bool:
    """Whether an old commit needs a library that this environment does not have: nobody's mistake."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in PACKAGES


def missing_names(path: Path, tree: Path) -> Iterator[str]:
    """Names that a file imports from our own modules, also inside functions, and that are not there."""
    for line, module_name, name in imported_names(path.read_bytes()):
        module = sys.modules.get(module_name)
        script = tree.joinpath(*module_name.split("."), f"{name}.py")
        if not (hasattr(module, name) if module else script.exists()):
            yield f"{path.relative_to(tree)}:{line}: there is no {module_name}.{name}"


@cache
def imported_names(code: bytes) -> list[tuple[int, str, str]]:
    """Line, module and name of every `from ours import name` in a file."""
    return [
        (node.lineno, node.module, alias.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
        for alias in node.names
    ]


def check_out(tree: Path, commit: str, stamp: int) -> None:
    """Puts a commit into the tree. Changed files get a time of their own, so that no compiled file is taken for another's."""
    changed = git("diff", "--name-only", "--no-renames", "HEAD", commit, "--", *PACKAGES, folder=tree).split("\n")
    git("checkout", "--quiet", "--detach", "--force", commit, folder=tree)
    for name in changed:
        if name.endswith(".py") and (tree / name).exists():
            os.utime(tree / name, (stamp, stamp))


def check(seconds: float) -> int:
    """Checks commit after commit; 1 if one does not import."""
    start = time.monotonic()
    memory = Path(git("rev-parse", "--path-format=absolute", "--git-path", "commits-that-import"))
    imported = set(memory.read_text(encoding="utf-8").split()) if memory.exists() else set()
    todo: dict[str, str] = {}
    every = commits()
    for commit in every:
        todo.setdefault(tree_key(commit), commit)
    remembered = len(todo.keys() & imported)
    todo = {key: commit for key, commit in todo.items() if key not in imported}
    checked, broken = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        try:
            git("worktree", "add", "--quiet", "--detach", str(tree), "HEAD")
        except subprocess.CalledProcessError as error:
            print(f"Commits are not checked one by one, git makes no work tree here: {error.stderr.strip()}")
            return 0
        try:
            sys.path[:] = [str(tree), *(place for place in sys.path if Path(place).resolve() not in (ROOT, ROOT / ".ci"))]
            os.chdir(tree)
            for key, commit in todo.items():
                if time.monotonic() - start > seconds:
                    break
                checked += 1
                check_out(tree, commit, 1_000_000_000 + checked)
                if messages := failures(tree):
                    broken += 1
                    print(
                        f"This commit does not import: {git('log', '-1', '--format=%h %s', commit)}", *messages[:10], sep="\n  "
                    )
                else:
                    imported.add(key)
        finally:
            os.chdir(ROOT)
            git("worktree", "remove", "--force", str(tree))
    memory.write_text("\n".join(sorted(imported)) + "\n", encoding="utf-8")
    late = f"; no time for {len(todo) - checked} older ones" if len(todo) > checked else ""
    print(
        f"{len(every)} commits, {len(todo) + remembered} different trees: {remembered} known to import, {checked} checked, "
        f"{broken} do not import{late} ({time.monotonic() - start:.0f} s)"
    )
    return 1 if broken else 0


def main() -> int:
    """Runs the check, or says why there is none."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="when to stop and say what was not reached")
    seconds = parser.parse_args().seconds
    logging.disable()
    try:
        if git("rev-parse", "--is-shallow-repository") == "true":
            print("The clone is shallow: commits are not checked one by one (git fetch --unshallow brings the history)")
            return 0
    except (subprocess.CalledProcessError, FileNotFoundError):
        print("There is no git history here: commits are not checked one by one")
        return 0
    return check(seconds)


if __name__ == "__main__":
    sys.exit(main())
