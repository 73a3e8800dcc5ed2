"""The documentation is true: generated pages are fresh, commands run, links lead somewhere, nothing that code says is missing."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer.main
from typer.testing import CliRunner

from ingest.otel.emitters import rows_of
from ingest.sources import by_name, discover
from ingest.sources.aws_cur import exports
from ingest.sources.litellm import postgres
from ledger.books import Books
from ledger.tables import CHARGES, COST_CLASSES, METERS, SPANS, TABLES
from rootcost.cli import app
from tests.ingest.sources import test_azure, test_jaeger, test_opencode, test_phoenix
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(DOCS.rglob("*.md"))]
SOURCE_PAGES = sorted((DOCS / "sources").glob("*.md"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def prose(page: str) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def cells(page: str) -> Iterator[list[str]]:
    """Rows of a page's tables, as cells."""
    for line in text(page).splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# ── derived from code ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_generated_pages_are_fresh() -> None:
    line = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_documented_with_its_environment_name() -> None:
    from ledger.settings import Settings
    from rootcost.terminal.settings_toml import as_values

    told: dict[str, str] = {}
    for row in cells("docs/configuration.md"):
        told[row[0].strip("`")] = told.get(row[0].strip("`"), "") + "".join(row[1:])
    for section, held in as_values(Settings()).items():
        for key in held if isinstance(held, dict) else ():
            assert f"ROOTCOST_{section.upper()}__{key.upper()}" in told[key], f"{section}.{key}"
            assert len(told[key].split(f"ROOTCOST_{section.upper()}__{key.upper()}`")[1]) > 10, f"{section}.{key} has no meaning"
    for key in ("name", "teams", "shares", "valid_from", "account"):
        assert key in told


def test_the_file_with_all_defaults_is_toml_that_means_the_defaults() -> None:
    import tomllib

    from ledger.settings import Settings

    (written,) = fences("docs/configuration.md", "toml")
    assert Settings(**tomllib.loads(written)) == Settings()


def test_every_table_column_and_meter_is_documented() -> None:
    page = text("docs/tables.md")
    for table in TABLES.values():
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        assert table.description in section
        assert [c.name for c in table.columns if f"| `{c.name}` |" not in section] == []
    assert [m for m in METERS if f"| `{m}` |" not in page] == []


def test_every_route_and_every_command_is_documented() -> None:
    routes, commands = text("docs/api.md"), text("docs/cli.md")
    for path in (
        "/v1/costs",
        "/v1/balance",
        "/v1/chains/{chain_id}",
        "/v1/explain/{ref}",
        "/v1/explain/cell",
        "/v1/traces",
        "/v1/litellm",
        "/ready",
        "/metrics",
    ):
        assert re.search(rf"^### (GET|POST) {re.escape(path)}$", routes, re.MULTILINE), path

    def walk(command: Any, words: str) -> Iterator[str]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{words} {name}")

    for words in walk(typer.main.get_command(app), "rootcost"):
        assert f"\n## {words}\n" in commands, words


# ── reasons, methods, classes ───────────────────────────────────────────────────────────────────────────────────────────

NOT_REASONS = {
    *("table", "assumption", "reading"),  # what decided how counts are read
    *COST_CLASSES,
    *("path", "claim", "conversation", "credential", "principal", "service", "unknown"),  # methods
    *(
        "tokens",
        "driver",
        "model",
        "follow",
        "tax",
        "other",
    ),  # roles of lots, a level of rates; `tax` is a reason as well, and listed below
    *("billed", "estimated", "standard", "exact", "observed", "leaf", "request"),
    *("__quantity", "quantity"),
}
"""Words that attribution writes into columns other than `reason`."""

ALSO_REASONS = {"credit", "adjustment", "tax", "unread_usage", "unread_file"}
"""Made from the bill's own charge category; and findings of reading. (CA-7)"""


def emitted_reasons() -> set[str]:
    """Every lower-case word that attribution puts into a column as a literal or assigns to a variable called `…reason`."""
    found = set(ALSO_REASONS)
    for path in sorted((ROOT / "attribution").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words: list[ast.expr] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "lit":
                words = node.args[:1]
            elif isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id.lower().endswith("reason") for t in node.targets
            ):
                words = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            for word in words:
                if isinstance(word, ast.Constant) and isinstance(word.value, str) and re.fullmatch(r"[a-z][a-z_]+", word.value):
                    found.add(word.value)
    return found - (NOT_REASONS - ALSO_REASONS) - set(METERS)


def told_reasons() -> dict[str, list[str]]:
    section = text("docs/concepts.md").split("\n## Reasons\n")[1]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_reason_that_attribution_can_give_is_explained_and_no_other() -> None:
    emitted, told = emitted_reasons(), told_reasons()
    chain_flags = {"missing_parent", "cycle"}
    assert emitted | chain_flags == set(told)
    assert [name for name, row in told.items() if any(len(cell) < 4 for cell in row)] == []


def test_every_method_and_class_is_explained() -> None:
    from ledger.tables import COSTS

    page = text("docs/concepts.md")
    said = next(c.description for c in COSTS.columns if c.name == "method").split(":")[1]
    for word in (*(w.strip() for w in said.split(",")), *COST_CLASSES):
        assert f"| `{word}` |" in page, word


def test_it_is_decided_what_money_of_every_reason_class_and_method_stands_on() -> None:
    """A new reason needs a line in api/queries/evidence/classes.csv: evidence, table, inference or nothing."""
    from api.queries.evidence.classes import EVIDENCE, deciders
    from ledger.tables import COSTS

    methods = next(c.description for c in COSTS.columns if c.name == "method").split(":")[1].split(",")
    decided = {column: {value for name, value in deciders() if name == column} for column in ("reason", "method", "cost_class")}
    assert decided["reason"] == set(told_reasons())
    assert decided["method"] >= {method.strip() for method in methods}
    assert decided["cost_class"] == set(COST_CLASSES)
    assert {row.evidence for row in deciders().values()} == set(EVIDENCE)


def test_every_source_has_a_page_that_the_index_links_and_no_page_is_of_nothing() -> None:
    index = text("docs/sources.md")
    pages = {path.stem for path in SOURCE_PAGES}
    assert pages == {*discover(), "classifier"}
    for name in pages:
        page = text(f"docs/sources/{name}.md")
        assert prose(page).count("\n# ") == 0 and page.startswith("# "), name
        assert f"](sources/{name}.md)" in index, name
    for name in discover():
        page = text(f"docs/sources/{name}.md")
        assert page.startswith(f"# {name}\n") and f"rootcost ingest {name} " in page, name


def test_the_index_of_sources_is_what_each_source_says_of_itself() -> None:
    told = {row[0].split("`")[1]: row[1:] for row in cells("docs/sources.md") if row[0].startswith("[`") and len(row) == 5}
    assert {name: (row[0], row[1]) for name, row in told.items()} == {
        name: (by_name(name).kind, by_name(name).title) for name in discover()
    }
    assert (told["litellm"][2:], told["azure"][2:]) == (["every 15 minutes", "2 hours"], ["every 6 hours", "48 hours"])


def test_the_policy_that_lists_aws_exports_is_the_one_the_command_prints() -> None:
    (shown,) = fences("docs/sources/aws-cur.md", "json")
    told = [action for one in json.loads(exports.POLICY)["Statement"] for action in [one["Action"]]]
    assert sorted(json.loads(shown)["Action"]) == sorted(a for one in told for a in ([one] if isinstance(one, str) else one))


def test_the_grant_for_litellm_s_table_is_the_one_that_is_printed() -> None:
    (shown,) = fences("docs/sources/litellm.md", "sql")
    names = re.compile(r'"(\w+)"')
    assert names.findall(shown) == names.findall(postgres.GRANT)


def test_the_otlp_page_names_every_emitter_that_is_known() -> None:
    page = " ".join(text("docs/sources/otlp.md").lower().split())
    words = {
        "otel": "conventions of opentelemetry",
        "adot": "adot / agentcore",
        "openllmetry-bedrock": "openllmetry",
        "litellm-v2": "litellm",
    }
    for emitter in rows_of("emitters"):
        called = words.get(emitter["emitter"], emitter["emitter"].replace("ms-", "microsoft ").replace("-", " "))
        assert called in page, emitter["emitter"]


# ── commands of the pages are really run ────────────────────────────────────────────────────────────────────────────────

NOT_RUN = re.compile(
    r"^make |^rootcost (serve|demo)\b|s3://|https://|bigquery://|postgresql://|^rootcost (aws exports|gcp projects)|--from gcp\b"
)
"""Lines that would build, serve, or need somebody's account: they are checked to be valid, and not run."""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder such as the pages suppose: the example's files, a bill, traces, gateway logs, a report, a token."""
    example = DOCS / "example"
    shutil.copytree(example, tmp_path / "docs" / "example")
    for folder, file in (("bills", example / "bill.csv"), ("traces", example / "traces.json")):
        (tmp_path / folder).mkdir()
        shutil.copy(file, tmp_path / folder)
    shutil.copy(example / "agents.csv", tmp_path)
    shutil.copytree(ROOT / "tests/data/litellm_proxy_captures", tmp_path / "gateway-logs", ignore=shutil.ignore_patterns("*.txt"))
    (tmp_path / "cur").mkdir()
    shutil.copy(ROOT / "tests/data/aws_cur_anonymous/aws_cur_legacy_anonymous.csv", tmp_path / "cur" / "report.csv")
    (tmp_path / ".rootcost").mkdir()
    (tmp_path / ".rootcost" / "token").write_text("a-token\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def statements(script: str) -> Iterator[str]:
    """Lines of a script; a here-document is one of them."""
    lines = iter(script.splitlines())
    for line in lines:
        if marker := re.search(r"<<'(\w+)'$", line):
            held = [line]
            for inner in lines:
                held.append(inner)
                if inner == marker[1]:
                    break
            yield "\n".join(held)
        elif line.strip():
            yield line


def run(statement: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a line as a user would; rootcost in this process, the rest in bash. Returns what it printed."""
    words = shlex.split(statement, comments=True) if "\n" not in statement else []
    if words[:1] == ["rootcost"]:
        result = CliRunner().invoke(app, [os.path.expanduser(word) for word in words[1:]], prog_name="rootcost")
        assert result.exit_code == 0, f"{statement}\n{result.output}"
        return result.stdout
    if words[:1] == ["cd"]:
        monkeypatch.chdir(words[1])
        return ""
    done = subprocess.run(
        ["bash", "-euc", statement], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{statement}\n{done.stderr}"
    return str(done.stdout)


def assert_valid(statement: str) -> None:
    """The target or command exists, and takes these options and arguments."""
    words = shlex.split(statement, comments=True)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:.*##", text("Makefile"), re.MULTILINE), statement
        return
    command = typer.main.get_command(app)
    context = command.make_context("rootcost", words[1:])
    while getattr(command, "commands", None):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        context = command.make_context(name, rest, parent=context)


def lay_out(source: str, here: Path) -> None:
    """What the page of a source reads, under the names it has there."""
    held: dict[str, tuple[str, str]] = {  # set of tests/data, files in it → place
        "agentcore": ("agentcore/*l*", "agentcore-logs/"),
        "anthropic": ("anthropic_costs/*.json", "saved-pages/"),
        "anthropic-console": ("anthropic_console/sample.csv", "claude_api_cost_2026_10.csv"),
        "azure": ("azure_exports/EA_ActualCost_Small.csv", "costs.csv"),
        "azure-openai-logs": ("azure_openai_logs/sample.jsonl", "apim-logs/"),
        "bedrock-logs": ("bedrock_logs/*.jsonl", "records.json"),
        "claude-code": ("claude_code/*.jsonl", ".claude/projects/acme/"),
        "copilot-cli": ("copilot_cli/sample.jsonl", ".copilot/session-state/0f1e/"),
        "codex": ("codex/*.jsonl", ".codex/sessions/2026/10/05/"),
        "cursor": ("cursor/sample.csv", "usage-events-2026-10-31.csv"),
        "gcp": ("gcp/*.jsonl", "gcp-billing-extract/"),
        "gemini-cli": ("gemini_cli/sample.jsonl", ".gemini/tmp/shop/chats/"),
        "github-copilot": ("github_copilot/sample.csv", "ai_usage_2026_10.csv"),
        "github-copilot-api": ("github_copilot_api/*.json", "saved-pages/"),
        "helicone": ("helicone/sample.jsonl", "helicone-export.jsonl"),
        "jaeger": ("jaeger/*.json", "trace.json"),
        "langsmith": ("langsmith/sample.jsonl", "runs.jsonl"),
        "langfuse": ("langfuse/langgraph-*.json", "trace.json"),
        "openai": ("openai_costs/*.json", "saved-pages/"),
        "openai-console": ("openai_console/sample.csv", "cost_2026-10-01_2026-10-31.csv"),
        "opencode": ("opencode/sample.jsonl", "session.json"),
        "openrouter": ("openrouter/sample.csv", "openrouter_activity_2026-10-31.csv"),
        "portkey": ("portkey/sample.jsonl", "portkey-logs.jsonl"),
        "phoenix": ("phoenix/page.json", "spans.json"),
        "vertex": ("vertex/*.jsonl", "vertex-logs/"),
        "zipkin": ("zipkin/yelp.json", "trace.json"),
    }
    if source in discover():
        files, place = held.get(source, (f"{source}/sample.csv", f"{source}-export.csv"))
        for path in sorted((ROOT / "tests/data").glob(files)):
            target = here / place / path.name if place.endswith("/") else here / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    if source == "azure":
        test_azure.export(here / "azure-exports", test_azure.table({}))
    if source == "jaeger":
        lines = test_jaeger.forms(json.loads((here / "trace.json").read_text()))["index.jsonl"]
        (here / "jaeger-span-2026-02-02.jsonl").write_text(lines)
    if source == "opencode":
        test_opencode.storage(here / ".local/share/opencode")
    if source == "phoenix":
        pl.DataFrame(test_phoenix.frame_records(), infer_schema_length=None).write_parquet(here / "spans.parquet")


@pytest.mark.parametrize("source", [path.stem for path in SOURCE_PAGES])
def test_a_source_s_page_reads_what_it_names(source: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workplace))
    lay_out(source, workplace)
    read = 0
    for statement in (s for script in fences(f"docs/sources/{source}.md", "sh") for s in statements(script)):
        if NOT_RUN.search(statement):
            assert_valid(statement)
        else:
            run(statement, monkeypatch)
            read += statement.startswith(f"rootcost ingest {source} ")
    if source in discover():
        assert read
        with Books.open(workplace / ".rootcost") as books:
            table = CHARGES if by_name(source).kind == "bill" else SPANS
            assert books.store.scan(table).filter(pl.col("source") == source).collect().height


def test_the_page_about_schedules_does_what_it_says(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [run(s, monkeypatch) for script in fences("docs/schedule.md", "sh") for s in statements(script)]
    assert "company-bill" in said[3]
    with Books.open(workplace / ".rootcost") as books:
        assert books.store.scan(CHARGES).collect().height


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        pytest.param("docs/quickstart.md", marks=pytest.mark.slow),
        pytest.param("docs/sources.md", marks=pytest.mark.slow),
    ],
)
def test_commands_run_as_they_are_written(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    ran = 0
    for statement in (s for script in fences(page, "sh") for s in statements(script)):
        if NOT_RUN.search(statement):
            assert_valid(statement)
        else:
            printed.append(run(statement, monkeypatch))
            ran += statement.startswith("rootcost")
    assert ran >= 3
    if page == "docs/sources.md":
        return
    together = "\n".join(printed)
    for word in ("support-bot", "0.018", "uncaptured_usage", "charges in = costs out"):
        assert word in together, word


@pytest.mark.slow
def test_the_quick_start_prints_what_it_shows(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of the shown outputs is printed by a command before it, blanks aside."""
    pieces = re.findall(r"^```(sh|text)\n(.*?)^```$", text("docs/quickstart.md"), re.MULTILINE | re.DOTALL)
    printed = ""
    for kind, body in pieces:
        if kind == "text":
            lines = {" ".join(line.split()) for line in printed.splitlines()}
            missing = [line for line in body.splitlines() if " ".join(line.split()) not in lines]
            assert not missing, f"not printed: {missing}\n{printed}"
        else:
            said = [run(s, monkeypatch) for s in statements(body) if not NOT_RUN.search(s)]
            printed = "\n".join(said)
    last = json.loads(run("rootcost costs --by team,reason --format json", monkeypatch))
    assert {row["team"]: (row["cost"], row["reason"]) for row in last} == {
        "Care": ("0.018", None),
        "Dev": ("0.009", None),
        "Growth": ("0.003", "uncaptured_usage"),
    }


# ── what the README promises ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_gateway_s_settings_are_those_of_the_proxy_under_test() -> None:
    """Everything but the address and the name of the token is what the real proxy of the tests runs with."""
    tested = text("tests/proxy/config.yaml")
    (shown,) = fences("README.md", "yaml")
    for line in shown.splitlines():
        if line.strip().startswith(("endpoint:", "callbacks:")) or not line.strip():
            continue
        assert line in tested, line
    assert "endpoint: http://127.0.0.1:8787/v1/litellm" in shown
    assert "callbacks: [rootcost" in tested


def test_the_sdk_reads_the_header_as_it_is_written() -> None:
    from opentelemetry.util.re import parse_env_headers

    (line,) = re.findall(r"OTEL_EXPORTER_OTLP_TRACES_HEADERS=\"(.*)\"", text("README.md"))
    written = line.replace("$(cat .rootcost/token)", "a-token_1")
    assert parse_env_headers(written, liberal=True) == {"authorization": "Bearer a-token_1"}


def test_the_demo_s_tables_add_up() -> None:
    excerpt = text("README.md").split("<!-- demo: begins")[1].split("<!-- demo: ends")[0]

    def amounts(line: str) -> list[Decimal]:
        return [Decimal(word.replace(",", "")) for word in line.split()[1:] if re.fullmatch(r"-?[\d,]+(\.\d+)?", word)]

    rows = {line.split()[0]: amounts(line) for line in excerpt.splitlines() if line.split()}
    charges = amounts(next(line.replace("charges in", "charges_in") for line in excerpt.splitlines() if "charges in " in line))
    assert charges[0] + charges[1] == charges[2]
    assert sum(rows[name][-1] for name in COST_CLASSES) == charges[2]
    assert rows["difference"] == [0, 0, 0]
    attributed = rows["attributed"]
    assert abs(sum(attributed[:-1], -attributed[-1])) <= Decimal("0.02")  # each is rounded to cents
    by_class = sum((rows[name][-1] for name in ("metered", "owner", "shared")), Decimal(0))
    assert abs(by_class - sum(attributed[:3], Decimal(0))) <= Decimal("0.02")


def test_the_worked_example_s_figures_are_right() -> None:
    from ledger.money import proportion

    tokens = {"support-bot": 2000, "researcher": 4000, "coder": 3000, "uncaptured": 1000}
    cost = {name: proportion(Decimal("0.03"), Decimal(used), Decimal(10_000)) for name, used in tokens.items()}
    initiator = [cost["support-bot"] + cost["researcher"], Decimal(0), cost["coder"], cost["uncaptured"]]
    executor = [cost["support-bot"], cost["researcher"], cost["coder"], cost["uncaptured"]]
    rows = {row[0]: row[1:] for row in cells("docs/concepts.md") if row[0] in ("initiator", "executor") and len(row) == 6}
    for name, expected in (("initiator", initiator), ("executor", executor)):
        assert [Decimal(cell) for cell in rows[name]] == [*expected, Decimal("0.03")]


# ── links, places, language ─────────────────────────────────────────────────────────────────────────────────────────────


def anchors(path: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link} (there are {sorted(anchors(target))})"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = "".join(map(text, ("docs/README.md", "docs/sources.md", "docs/decisions/README.md", "README.md")))
    for page in DOCS.rglob("*.md"):
        assert page.name in index or page == DOCS / "README.md", page


ALLOWED_ADDRESS = re.compile(
    r"^https?://(127\.0\.0\.1|localhost)([:/]|$)"
    r"|^https://(semver\.org|keepachangelog\.com|www\.standardwebhooks\.com)"
    r"|^https://(api\.openai\.com|api\.anthropic\.com|api\.github\.com|account\.blob\.core\.windows\.net|(gateway|login)\.example\.com|costs\.example)([/#]|$)"
    r"|^https://…|^smtps?://($|user:password@host:587|mail\.example\.com)|^redis://(…|127\.0\.0\.1)"
    r"|^(s3|bigquery|file|sqlite)://|^postgresql(\+psycopg)?://[^:@/]*(@|…|$)|^tcp://127\.0\.0\.1"
)
"""This machine, the standards of the changelog, providers' own APIs, and made-up places. An address never holds a password."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_names_a_machine_or_a_registry(page: Path) -> None:
    told = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|root|tmp|home/\w+)/", told)
    for address in re.findall(r"[\w+]+://[^\s`'\")>]*", told):
        assert ALLOWED_ADDRESS.match(address), address


def test_decisions_are_numbered_and_dated() -> None:
    notes = sorted(DOCS.glob("decisions/0*.md"))
    assert [int(note.name[:4]) for note in notes] == list(range(1, len(notes) + 1))
    for note in notes:
        lines = note.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {note.name[:4]} ")
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", lines[2]), note.name
        assert "**We would change it**" in "\n".join(lines), note.name
