"""The pages for contributors are true: files, functions, rules, targets and checks that they name exist, and nothing is left out."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

PAGES = ("docs/architecture.md", "docs/rules.md", "CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")
PACKAGES = ("ledger", "ingest", "attribution", "api", "ui", "rootcost")
RULE = re.compile(r"\b(?:CH|ID|CA|RA|ES|MO|TI|LA)-\d+[a-z]?\b")
NAMED_FILE = re.compile(rf"`((?:{'|'.join(PACKAGES)}|tests|docs|conformance|bench)/[\w./-]*)(?:::(\w+))?`")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_files() -> Iterator[Path]:
    for folder in (*PACKAGES, "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted((ROOT / "conformance").rglob("*.toml"))


def rule_rows() -> list[tuple[str, list[str]]]:
    """Every line of the tables of rules: the rule, and its other cells."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text("docs/rules.md").splitlines() if line[:2] == "| "]
    return [(row[0], row[1:]) for row in lines if RULE.fullmatch(row[0])]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_functions_that_a_page_names_exist(page: str) -> None:
    for name, symbol in NAMED_FILE.findall(text(page)):
        path = ROOT / name
        assert path.exists(), f"{page} names {name}"
        if symbol:
            defined = {node.name for node in ast.parse(text(name)).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert symbol in defined, f"{page} names {symbol} of {name}, which has {sorted(defined)}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_a_page_names_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):.*##", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text(page), re.MULTILINE)) <= targets


def test_every_rule_that_code_or_tests_cite_has_one_line_and_a_file() -> None:
    rows = rule_rows()
    rules = [rule for rule, _ in rows]
    assert sorted(set(rules)) == sorted(rules), "a rule has two lines"
    cited = {rule: path for path in code_files() for rule in RULE.findall(path.read_text(encoding="utf-8"))}
    assert {rule: str(path.relative_to(ROOT)) for rule, path in cited.items() if rule not in rules} == {}
    in_force = text("docs/rules.md").split("## Not kept whole yet")[0]
    for rule, row in rows:
        if f"| {rule} |" in in_force:
            assert NAMED_FILE.search(row[-1]), f"{rule} names no file"


def test_rules_that_other_pages_cite_have_a_line() -> None:
    rules = {rule for rule, _ in rule_rows()}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert set(RULE.findall(page.read_text(encoding="utf-8"))) <= rules, page.name


def test_the_tree_shows_every_package_and_every_folder_of_attribution_and_ingest() -> None:
    tree = text("docs/architecture.md").split("## The tree")[1].split("```")[1]
    folders = [
        package for name in ("attribution", "ingest") for package in (ROOT / name).iterdir() if (package / "__init__.py").exists()
    ]
    assert {f"{name}/" for name in (*PACKAGES, "tests", "conformance", "docs")} <= set(tree.split())
    assert {f"{folder.name}/" for folder in folders} <= set(tree.split())


def test_every_module_of_attribution_stands_somewhere_on_the_way() -> None:
    modules = [path.relative_to(ROOT) for path in (ROOT / "attribution").rglob("*.py") if path.name != "__init__.py"]
    page = text("docs/architecture.md")
    assert [str(module) for module in modules if f"`{module}" not in page] == []


def test_tests_that_contributing_runs_exist() -> None:
    lines = [
        shlex.split(line, comments=True)
        for line in re.findall(r"^\.venv/bin/python -m pytest .*$", text("CONTRIBUTING.md"), re.MULTILINE)
    ]
    assert lines
    for words in lines:
        assert (ROOT / words[-1]).exists()


def test_hooks_are_local_and_run_what_lint_runs() -> None:
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    lint = re.search(r"^lint:.*?\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)
    assert lint
    programs = {word.removeprefix("$(BIN)/") for word in lint[1].split() if word.startswith("$(BIN)/")}
    assert {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]} == programs
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_templates_begin_with_what_the_host_reads() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    assert templates
    for template in templates:
        header = yaml.safe_load(template.read_text(encoding="utf-8").split("---")[1])
        assert set(header) == {"name", "about"}, template.name


def test_nothing_here_names_an_address() -> None:
    for name in (*PAGES, ".pre-commit-config.yaml", *(str(p.relative_to(ROOT)) for p in (ROOT / ".github").rglob("*.md"))):
        assert "://" not in text(name), name
        assert not re.search(r"[\w.]+@[\w.]+", text(name)), name
