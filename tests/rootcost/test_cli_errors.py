"""How the command behaves: help with examples, one-line errors, exit codes, silence on stdout, no traceback ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rootcost.cli import app
from tests.support.cli_books import AGENTS, Command


def commands(group: typer.core.TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))  # type: ignore[arg-type]
        else:
            yield (*path, name)


ALL = sorted(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


@pytest.fixture
def rootcost(home: Path) -> Command:
    return Command(home)


def test_every_promised_command_is_there() -> None:
    assert {" ".join(c) for c in ALL} >= {
        "ingest", "attribute", "costs", "balance", "problems", "explain", "agents import", "agents list", "budgets set", "budgets list",
        "prices import", "prices diff", "prices history", "prices coverage", "prices accept", "prices reject", "config show", "serve", "demo",
    }  # fmt: skip


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_of_every_command_has_an_example_that_names_it(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert f"Example: rootcost {' '.join(command)}" in " ".join(done.output.split())
    assert "--home" in done.output


@pytest.mark.parametrize("command", ["costs", "balance", "problems", "agents list", "budgets list"])
def test_an_empty_ledger_gives_an_empty_list_and_says_what_to_do(rootcost: Command, command: str) -> None:
    as_json = rootcost(*command.split(), "--format", "json")
    assert (as_json.code, as_json.rows) == (0, [])
    as_text = rootcost(*command.split())
    assert as_text.code == 0
    assert "rootcost" in as_text.err or "No problems." in as_text.err


def test_attributing_an_empty_ledger_is_no_failure(rootcost: Command) -> None:
    done = rootcost("attribute")
    assert done.code == 0
    assert "rootcost ingest" in done.out + done.err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "nonsense"),
        ("ingest", "source"),
        ("ingest fokus file.csv", "fokus"),
        ("costs --by colour", "colour"),
        ("costs --format xml", "xml"),
        ("costs --view nobody", "nobody"),
        ("costs --from October", "October"),
        ("costs --from 2026-11 --to 2026-10", "range"),
        ("costs --where team", "team"),
        ("balance --month October", "October"),
        ("attribute --from 2026-10 --to 2026-10", "--to"),
        ("budgets set b --amount 10", "--team"),
        ("budgets set b --scope colour=red --amount 10", "--scope"),
        ("budgets set b --team Care", "--amount"),
        ("budgets set b --team Care --amount ten", "ten"),
        ("budgets set b --team Care --amount 10 --currency dollars", "dollars"),
        ("serve --port 0", "port"),
    ],
)
def test_a_command_that_means_nothing_is_told_in_words_and_ends_with_2(rootcost: Command, line: str, named: str) -> None:
    done = rootcost(*line.split())
    assert done.code == 2, done.err
    assert named in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("costs --by colour", "--by"),
        ("costs --from October", "--from"),
        ("costs --to October", "--to"),
        ("costs --from 2026-11 --to 2026-10", "--to must be later than --from"),
        ("costs --where team", "--where"),
        ("balance --month October", "--month"),
    ],
)
def test_a_fault_names_the_option_as_it_was_typed(rootcost: Command, line: str, option: str) -> None:
    told = rootcost(*line.split()).err
    assert option in told
    assert "[start, end)" not in told


def test_a_price_map_that_is_not_there_or_is_no_price_map_is_one_line(rootcost: Command, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.json").write_text("[1, 2]")
    for name, reason in (
        ("none.json", "no such file"),
        ("garbage", "JSON"),
        ("list.json", "no price map"),
        ("", "cannot be read"),
    ):
        done = rootcost("prices", "import", tmp_path / name)
        assert (done.code, done.out) == (1, "")
        assert reason in done.err
        assert "unexpected" not in done.err


def test_a_home_that_is_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    for home in (tmp_path / "afile", tmp_path / "afile" / "below"):
        done = CliRunner().invoke(app, ["--home", str(home), "costs"])
        assert done.exit_code == 2
        assert "is a file" in done.stderr
        assert "unexpected" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ROOTCOST_INGEST__TRUSTED_SOURCES", "otlp", """ROOTCOST_INGEST__TRUSTED_SOURCES: cannot be read as JSON — write a JSON list: '["otlp"]'"""),
        ("ROOTCOST_STORE__OPTIONS", "x", "ROOTCOST_STORE__OPTIONS: cannot be read as JSON"),
        ("ROOTCOST_INGEST__TRUSTED_SOURCES", '["otpl"]', "'otpl' is no log source; did you mean otlp?"),
        ("ROOTCOST_ALERTS__WEBHOOK_URL", "hooks.example/secret", "is no http:// or https:// address"),
        ("ROOTCOST_SERVE__PROT", "9000", "serve.prot: there is no such setting; did you mean serve.port?"),
        ("ROOTCOST_REPORT__TIMEZONE", "Mars", "'Mars' is no IANA timezone"),
    ],
)  # fmt: skip
def test_a_mistyped_setting_is_told_with_what_was_meant(rootcost: Command, variable: str, value: str, told: str) -> None:
    done = rootcost("config", "show", **{variable: value})
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "Value error" not in done.err
    assert "secret" not in done.err


def test_a_path_that_is_not_there_is_told_once_and_not_kept(rootcost: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none.csv", "empty"):
        done = rootcost("ingest", "focus", tmp_path / name)
        assert done.code == 1
        assert name in done.err
        assert "Nothing was stored." in done.err
        assert "Next:" not in done.err
    assert rootcost("problems", "--format", "json").rows == []


def test_an_empty_ledger_is_told_what_to_do_first_and_nothing_else(rootcost: Command) -> None:
    done = rootcost("attribute")
    assert done.out == "Nothing to attribute. Next: rootcost ingest (or: rootcost demo)\n"
    assert done.err == ""


def test_a_budget_for_somebody_unheard_of_is_remarked_upon(rootcost: Command, tmp_path: Path) -> None:
    (tmp_path / "agents.csv").write_text(AGENTS)
    rootcost("agents", "import", tmp_path / "agents.csv")
    slip = rootcost("budgets", "set", "b", "--team", "Crae", "--amount", "10")
    assert slip.code == 0
    assert "No team 'Crae' is registered or has spent so far; known are Care, Data, Dev" in slip.err
    assert "registered" not in rootcost("budgets", "set", "b", "--team", "Care", "--amount", "10").err


def test_a_home_served_already_is_told_before_its_port(rootcost: Command, home: Path) -> None:
    from ledger.locks import serve_lock

    with serve_lock(home, "http://127.0.0.1:1"):
        done = rootcost.in_a_process("serve", "--no-ui")
    assert done.code == 2
    assert f"already served by process {os.getpid()}" in done.err


def test_home_may_stand_on_either_side_or_in_the_environment(tmp_path: Path) -> None:
    seen = set()
    for arguments, environment in (
        (["--home", str(tmp_path / "a"), "config", "show", "--format", "json"], {}),
        (["config", "show", "--format", "json", "--home", str(tmp_path / "a")], {}),
        (["config", "show", "--format", "json"], {"ROOTCOST_HOME": str(tmp_path / "a")}),
    ):
        done = CliRunner().invoke(app, arguments, env=environment)
        seen.add(done.stdout)
    (only,) = seen
    assert str(tmp_path / "a") in only


def test_a_setting_that_cannot_be_is_named_with_its_place(rootcost: Command) -> None:
    done = rootcost("costs", ROOTCOST_SERVE__PORT="many")
    assert done.code == 2
    assert "serve.port" in done.err
    assert len(done.err.splitlines()) == 1


def test_config_show_is_a_toml_that_gives_the_same_settings(rootcost: Command, tmp_path: Path) -> None:
    environment = {
        "ROOTCOST_SERVE__PORT": "9000",
        "ROOTCOST_REPORT__TIMEZONE": "Europe/Berlin",
        "ROOTCOST_ALERTS__WEBHOOK_URL": "http://127.0.0.1/secret",
    }
    shown = rootcost("config", "show", **environment).out
    assert tomllib.loads(shown)["serve"]["port"] == 9000
    assert "secret" not in shown
    (tmp_path / "rootcost.toml").write_text(shown)
    again = rootcost("config", "show", ROOTCOST_CONFIG=str(tmp_path / "rootcost.toml")).out
    assert again == shown.replace('# webhook_url = "(set, not shown)"', '# webhook_url = ""')


def test_a_password_in_the_database_url_is_not_shown(rootcost: Command) -> None:
    shown = rootcost("config", "show", ROOTCOST_STORE__DATABASE_URL="postgresql+psycopg://me:hush@127.0.0.1/books").out
    assert "hush" not in shown
    assert "127.0.0.1/books" in shown


def test_the_registry_comes_in_as_csv_and_is_listed(rootcost: Command, tmp_path: Path) -> None:
    (tmp_path / "agents.csv").write_text(AGENTS + "nobody,\n")
    done = rootcost("agents", "import", tmp_path / "agents.csv")
    assert done.code == 1
    assert "line 5" in done.err
    rows = rootcost("agents", "list", "--format", "json").rows
    assert {(row["agent"], row["team"]) for row in rows} == {("support-bot", "Care"), ("researcher", "Data"), ("coder", "Dev")}
    (problem,) = rootcost("problems", "--format", "json").rows
    assert (problem["line"], problem["field"]) == ("line 5", "team")
    (tmp_path / "agents.csv").write_text(AGENTS)
    assert rootcost("agents", "import", tmp_path / "agents.csv").code == 0
    assert rootcost("problems", "--format", "json").rows == []


def test_a_missing_registry_file_is_one_line(rootcost: Command, tmp_path: Path) -> None:
    done = rootcost("agents", "import", tmp_path / "none.csv")
    assert done.code == 1
    assert "no such file" in done.err


@pytest.mark.slow
def test_prices_come_from_the_installed_map_and_a_second_import_adds_nothing(rootcost: Command) -> None:
    first = rootcost("prices", "import")
    assert first.code == 0, first.err
    assert int(first.out.split()[0].replace(",", "")) > 5000
    assert rootcost("prices", "import").out.startswith("0 ")


def test_an_unexpected_fault_is_one_line_and_its_traceback_is_in_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr("api.queries.costs", broken)
    done = CliRunner().invoke(app, ["--home", str(home), "costs"])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "ZeroDivisionError: our mistake" in line
    assert str(home / "rootcost.log") in line
    assert "Traceback" in (home / "rootcost.log").read_text()


def test_books_that_do_not_balance_end_with_3(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ledger.errors import BalanceError

    def off(*_: object, **__: object) -> None:
        raise BalanceError("AWS billed_cost USD 0.01", where="2026-10", remedy="nothing was published")

    monkeypatch.setattr("attribution.run.attribute", off)
    done = CliRunner().invoke(app, ["--home", str(home), "attribute"])
    assert done.exit_code == 3
    assert "0.01" in done.stderr


def test_a_reader_that_leaves_early_is_no_fault(rootcost: Command) -> None:
    line = f"{sys.executable} -m rootcost.cli --home {rootcost.home} config show | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.replace("Environment: ROOTCOST_SECTION__NAME, e.g. ROOTCOST_SERVE__PORT=9000\n", "") == ""
    assert done.stdout.startswith("# Settings in force")


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_without_a_traceback(rootcost: Command, home: Path) -> None:
    from ledger.locks import home_write_lock

    with home_write_lock(home):  # the command waits for its turn
        waiting = subprocess.Popen(
            [sys.executable, "-m", "rootcost.cli", "--home", str(home), "attribute"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        assert waiting.stderr is not None
        assert "Waiting for another rootcost process" in waiting.stderr.readline()
        time.sleep(0.2)
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in told


def test_no_colour_codes_where_there_is_no_terminal(rootcost: Command) -> None:
    rootcost("budgets", "set", "b", "--team", "Care", "--amount", "10")
    assert "\x1b[" not in rootcost("budgets", "list").out


def test_version() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"rootcost {version('rootcost')}"
