"""The house rules that a machine can check and no linter does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.sources import by_name, check_trusted_sources, discover
from ledger.errors import SettingsError
from ledger.settings import IngestSettings
from tests.support.paths import ROOT

PACKAGES = ("ledger", "ingest", "attribution", "api", "ui", "rootcost")

MAX_LINES = 450
"""A file that wants to be longer holds a second idea."""


def modules(*packages: str) -> Iterator[Path]:
    for package in packages or PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_file_outgrows_one_idea() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in modules()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not long, f"split these, {MAX_LINES} lines at most: {long}"


def test_no_dashboard_module_shadows_a_package() -> None:
    """Streamlit puts ui/ first on sys.path: ui/api.py would then be `api`."""
    names = {p.stem for p in (ROOT / "ui").rglob("*.py")}
    assert not names & set(PACKAGES)


def test_the_dashboard_knows_the_api_by_client_and_models_only() -> None:
    allowed = re.compile(r"(api|api\.(client|models)(\..+)?)$")
    for path in modules("ui"):
        ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES and not name.startswith("ui")}
        assert not {name for name in ours if not allowed.match(name)}, path
        assert "api" not in ours or ours & {"api.client", "api.models"}, path


def test_settings_may_trust_every_source_of_logs_and_nothing_else() -> None:
    log_sources = [name for name in discover() if by_name(name).kind == "log"]
    check_trusted_sources(IngestSettings(trusted_sources=log_sources))
    for name in (*(name for name in discover() if by_name(name).kind == "bill"), "acme"):
        with pytest.raises(SettingsError, match=f"ingest.trusted_sources: '{name}' is no log source"):
            check_trusted_sources(IngestSettings(trusted_sources=[name]))


def test_litellm_is_read_as_data() -> None:
    for path in modules():
        assert not {name for name in imported(path) if name.split(".")[0] == "litellm"}, path


def test_only_money_divides_money() -> None:
    """No float() around something that is called a cost, amount, price, rate or spend."""
    smell = re.compile(r"\bfloat\([^)]*(cost|amount|price|spend|charge)", re.IGNORECASE)
    cast = re.compile(r"(cost|amount|price|spend)\w*\"?\)?\.cast\(pl\.Float", re.IGNORECASE)
    for path in modules("ledger", "ingest", "attribution", "api", "rootcost"):
        if "demo" in path.parts:
            continue  # it writes what providers write, and some of them write floats
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not smell.search(line), f"{path}:{number}: money as a float"
            assert not cast.search(line), f"{path}:{number}: money as a float"


@pytest.mark.slow
def test_decimal_is_never_made_from_a_float_literal() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decimal" and node.args:
                value = node.args[0]
                assert not (isinstance(value, ast.Constant) and isinstance(value.value, float)), f"{path}:{node.lineno}"


@pytest.mark.parametrize("lock", ["requirements.lock", "tests/proxy/requirements.lock"])
def test_locks_name_packages_not_places(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert text.count("--hash=sha256:") > 100


def test_every_public_module_says_what_it_means() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in modules()
        if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) and p.read_text().strip()
    ]
    assert not silent


def test_no_file_names_the_machine_it_was_written_on() -> None:
    for path in [*modules(), *sorted((ROOT / "tests").glob("*.py")), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(wor[k]|home)/(main|shared|[a-z]+/\.)|/roo[t]/", text), path


@pytest.mark.slow
def test_every_test_that_reads_the_clock_is_marked_so_that_it_runs_on_other_days_too() -> None:
    reads = re.compile(r"\b(now|today|utcnow)\(\)|\bnow\(UTC\)|\btime\.time\(\)")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        code = {node.name: "\n".join(ast.unparse(line) for line in node.body) for node in functions}
        marks = {node.name: [ast.unparse(mark) for mark in node.decorator_list] for node in functions}
        helpers = [name for name in code if not name.startswith("test_") and reads.search(code[name])]
        unmarked = [
            name
            for name in code
            if name.startswith("test_") and "pytest.mark.clock" not in marks[name]
            if reads.search(code[name]) or any(re.search(rf"\b{helper}\(", code[name]) for helper in helpers)
        ]
        assert not unmarked, f"{path.name}: mark these @pytest.mark.clock"


AUDITED_TABLES = {"PRICES", "PRICES_STAGED", "EXCHANGE_RATES"}
"""Delta tables that people decide about: whoever writes one records it. Changes of the database are held by `Database.session` itself."""


def test_no_write_goes_past_the_audit_log() -> None:
    """Sessions are made by the database alone, which commits no audited change without an entry; entries are made by `record` alone."""
    written = re.compile(rf"\.(?:append|replace|upsert|replace_files)\(\s*(?:{'|'.join(sorted(AUDITED_TABLES))})\b")
    for path in modules("ledger", "ingest", "attribution", "api", "rootcost"):
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if name != "ledger/db.py":
            assert not re.search(r"from sqlalchemy\.orm import .*\bsessionmaker\b|[^.\w]Session\([\w.]*engine", text), (
                f"{name}: use Database.session"
            )
        if name not in ("ledger/audit.py", "ledger/upgrade.py"):
            assert not re.search(r"\b(?:Audit|AuditHead|AuditPersonal)\((?!Base\))", text), f"{name}: use ledger.audit.record"
            assert "engine.begin(" not in text, f"{name}: use Database.session"
        is_audited = re.search(r"(?<!def )\brecord\(", text) is not None
        assert is_audited or not written.search(text), f"{name}: a table that people decide about is written without an entry"
