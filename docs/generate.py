"""Writes the pages of docs/ that are derived from code.

python docs/generate.py           writes configuration.md, tables.md, api.md, problems.md and cli.md, and the table in sources.md
python docs/generate.py --check   writes nothing; exit code 1 when a page is stale
python docs/generate.py --demo    runs the demo in a temporary folder and puts what it prints into README.md
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
GENERATED = "<!-- Written by docs/generate.py from {source}. Change that, then run `make docs`. -->"
DEMO_BEGINS, DEMO_ENDS = "<!-- demo: begins (python docs/generate.py --demo) -->", "<!-- demo: ends -->"
SOURCES_BEGIN, SOURCES_END = "<!-- sources: begins (python docs/generate.py) -->", "<!-- sources: ends -->"
SHOWN_TEAMS = 4
"""Teams of the demo's table that README shows; the rest is cut."""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells), ""]


# ── configuration ───────────────────────────────────────────────────────────────────────────────────────────────────────

_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Decimal: "decimal, quoted",
    date: "date",
    Path: "folder",
    SecretStr: "text",
}
_BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def kind(annotation: Any) -> str:
    """A type in words.

    >>> kind(list[str]), kind(Literal["even", "fixed"]), kind(dict[str, Decimal])
    ('list of text', 'even or fixed', 'table of decimal, quoted')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Annotated:
        return kind(inner[0])
    if origin is Literal:
        return " or ".join(str(choice) for choice in inner)
    if origin is list:
        return "list of tables" if inspect.isclass(inner[0]) and issubclass(inner[0], BaseModel) else f"list of {kind(inner[0])}"
    if origin is dict:
        return f"table of {kind(inner[1])}"
    if origin is types.UnionType:
        return " or ".join(kind(part) for part in inner if part is not types.NoneType)
    raise TypeError(f"no words for {annotation}: add them here")


def default(field: FieldInfo) -> str:
    """A default as `rootcost.toml` would have it."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", [], {}, SecretStr("")):
        return "empty"
    if isinstance(value, list):
        return f"`[{', '.join(json.dumps(str(v)) for v in value)}]`"
    return f"`{json.dumps(value) if isinstance(value, str) else value}`"


def _setting(name: str, field: FieldInfo, environment: str | None) -> list[str]:
    limits = [
        words.format(getattr(rule, bound)) for rule in field.metadata for bound, words in _BOUNDS.items() if hasattr(rule, bound)
    ]
    type_text = ", ".join([kind(field.annotation), *limits])
    return [
        f"`{name}`",
        type_text,
        default(field),
        *([] if environment is None else [f"`{environment}`"]),
        field.description or "",
    ]


def configuration() -> Iterator[str]:
    """Every key of `rootcost.toml`."""
    from ledger.settings import Settings
    from rootcost.terminal.settings_toml import as_toml

    yield "# Configuration"
    yield ""
    yield GENERATED.format(source="ledger/settings.py")
    yield ""
    yield "All settings live in one file, `rootcost.toml`, and every one of them can be set in the environment instead. The order of"
    yield "precedence is: command line, environment, file, the defaults below. Unknown keys are refused, with the name of the key."
    yield ""
    yield "The file is looked for in the working folder, then in the home folder; `ROOTCOST_CONFIG` names another one. The home folder is"
    yield "`--home DIR`, else `ROOTCOST_HOME`, else `.rootcost`. In the environment, lists and tables are written as JSON:"
    yield "`ROOTCOST_INGEST__TRUSTED_SOURCES='[\"otlp\"]'`. Decimals are written in quotes, in TOML and in JSON alike, so that no digit is lost."
    yield ""
    yield "`rootcost config show` prints what is in force, with comments, as a `rootcost.toml`. Secrets are not shown."
    yield ""
    yield "## Home"
    yield ""
    head = ["key", "type", "default", "environment", "meaning"]
    sections = {name: field for name, field in Settings.model_fields.items() if _is_section(field)}
    top = [_setting(name, f, f"ROOTCOST_{name.upper()}") for name, f in Settings.model_fields.items() if name not in sections]
    yield from grid(head, top)
    for section, section_field in sections.items():
        model = section_field.annotation
        assert model is not None
        yield f"## [{section}]"
        yield ""
        yield inspect.getdoc(model) or ""
        yield ""
        fields = model.model_fields.items()
        yield from grid(head, [_setting(name, f, f"ROOTCOST_{section.upper()}__{name.upper()}") for name, f in fields])
        for name, field in fields:
            inner = get_args(field.annotation)
            if inner and inspect.isclass(inner[0]) and issubclass(inner[0], BaseModel):
                yield f"### [[{section}.{name}]]"
                yield ""
                yield inspect.getdoc(inner[0]) or ""
                yield ""
                rows = [_setting(key, f, None) for key, f in inner[0].model_fields.items()]
                yield from grid(["key", "type", "default", "meaning"], rows)
    yield "## A file with all defaults"
    yield ""
    yield "```toml"
    yield as_toml(Settings.model_construct())
    yield "```"


def _is_section(field: FieldInfo) -> bool:
    return inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tables() -> Iterator[str]:
    """Every table and column of the ledger."""
    from ledger import db
    from ledger.tables import METERS, TABLES

    yield "# Tables"
    yield ""
    yield GENERATED.format(source="ledger/tables.py and ledger/db.py")
    yield ""
    yield "The ledger's tables are Delta tables under `HOME/tables` (or `store.uri`); anything that reads Delta or Parquet can read them."
    yield "Facts are only added, or replaced period by period. Conclusions carry the id of the run or pass that drew them and can be"
    yield "deleted and rebuilt. Which run is in force for a month says the table `published` of the application state."
    yield ""
    yield "Times are UTC, intervals `[start, end)`. Money is `Decimal(38, 12)`, unit prices are `Decimal(38, 18)`. A null means unknown, never 0."
    yield ""
    yield from grid(["table", "kind", "meaning"], [[f"[{t.name}](#{t.name})", t.kind, t.description] for t in TABLES.values()])
    for table in TABLES.values():
        yield f"## {table.name}"
        yield ""
        yield table.description
        yield ""
        yield f"Key: {_named(table.key)}. Partitions: {_named(table.partition_by)}."
        yield ""
        columns = [[f"`{c.name}`", str(c.dtype), "yes" if c.required else "", c.description] for c in table.columns]
        yield from grid(["column", "type", "required", "meaning"], columns)
    yield "## Meters"
    yield ""
    yield "Kinds of measured quantity. The meters of one call are disjoint: their sum is what was used."
    yield ""
    yield from grid(["meter", "counts"], [[f"`{name}`", meaning] for name, meaning in METERS.items()])
    yield "## Application state"
    yield ""
    yield "Small state lives in a relational database: SQLite in the home folder, or PostgreSQL by `store.database_url`. Alembic migrations build it."
    yield ""
    models = {mapper.class_.__tablename__: mapper.class_ for mapper in db.Base.registry.mappers}
    rows = [
        [f"`{name}`", _first_line(model), _named(c.name for c in model.__table__.columns)]
        for name, model in sorted(models.items())
    ]
    yield from grid(["table", "meaning", "columns"], rows)


def _named(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


# ── command line ────────────────────────────────────────────────────────────────────────────────────────────────────────


def cli() -> Iterator[str]:
    """The help of every command."""
    from rootcost.cli import app

    yield "# Commands"
    yield ""
    yield GENERATED.format(source="`rootcost --help`")
    yield ""
    yield "Results go to stdout, remarks and progress to stderr, so that machine-readable output can be piped. Money is a decimal string in"
    yield "JSON and plain digits in CSV. `--home` may stand before or after the command's name."
    yield ""
    codes = [
        ["0", "done"],
        ["1", "done with problems, or failed"],
        ["2", "usage"],
        ["3", "the books do not balance"],
        ["130", "interrupted"],
    ]
    yield from grid(["exit code", "meaning"], codes)
    for path in commands():
        yield f"## {' '.join(('rootcost', *path))}"
        yield ""
        yield "```text"
        yield help_of(app, path)
        yield "```"
        yield ""


def commands() -> Iterator[tuple[str, ...]]:
    """Every command's words: the root, then groups and commands in the order of the help."""
    import typer.main

    from rootcost.cli import app

    def below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, (*path, name))

    yield from below(typer.main.get_command(app), ())


def help_of(app: Any, path: Sequence[str]) -> str:
    """What `rootcost … --help` prints on a terminal of 80 columns."""
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "NO_COLOR": "1"}, prog_name="rootcost")
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sources() -> Iterator[str]:
    """The page about sources as it is written by hand, with the table of all of them as the code has it."""
    from ingest.sources import by_name, discover

    before, _, old_table = (DOCS / "sources.md").read_text(encoding="utf-8").partition(SOURCES_BEGIN)
    yield before + SOURCES_BEGIN
    yield ""
    all_sources = sorted(map(by_name, discover()), key=lambda source: (source.kind, source.name))
    table_rows = [
        [f"[`{s.name}`](sources/{s.name}.md)", s.kind, s.title, pace(s.access.cron), length(s.access.lag)] for s in all_sources
    ]
    yield from grid(["source", "kind", "what it reads", "asked", "fresh within"], table_rows)
    yield SOURCES_END + old_table.partition(SOURCES_END)[2]


def pace(cron: str) -> str:
    """How often a cron expression comes round, in words.

    >>> pace("*/15 * * * *"), pace("29 */6 * * *")
    ('every 15 minutes', 'every 6 hours')
    """
    minute, hour, *day_fields = cron.split()
    if day_fields == ["*", "*", "*"]:
        if hour == "*" and (match := re.fullmatch(r"\*/(\d+)", minute)):
            return f"every {match[1]} minutes"
        if minute.isdecimal() and (match := re.fullmatch(r"\*/(\d+)", hour)):
            return f"every {match[1]} hours"
    raise ValueError(f"no words for {cron!r}: add them here")


def length(span: timedelta) -> str:
    """A length of time in hours.

    >>> length(timedelta(hours=1)), length(timedelta(days=2))
    ('1 hour', '48 hours')
    """
    hours = span // timedelta(hours=1)
    return f"{hours} hour{'s' if hours != 1 else ''}"


# ── pages ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def api() -> Iterator[str]:
    """The API, with answers of a real ledger."""
    from api_page import page

    return page(GENERATED.format(source="the API's own OpenAPI document"))


def problem_types() -> Iterator[str]:
    """Every type of problem that the API answers with."""
    from api.problem_types import PROBLEM_TYPES, type_uri

    yield "# Problems of the API"
    yield ""
    yield GENERATED.format(source="api/problem_types.py")
    yield ""
    yield "Every error of the API is an RFC 9457 document (`application/problem+json`). Its `type` is the address of a page on the same server that says"
    yield "what is on this page: JSON, and HTML in a browser. `GET /problems` lists all. `detail`, `where` and `remedy` are of the one request, and"
    yield "`errors` lists every invalid field. What imports found in their files is something else: `GET /v1/problems`."
    yield ""
    for kind_name, problem_type in PROBLEM_TYPES.items():
        yield f"## {kind_name}"
        yield ""
        statuses = ", ".join(map(str, problem_type.statuses))
        yield f"`{type_uri(kind_name)}`{f', {statuses}' if statuses else ''}: {problem_type.title}. {problem_type.meaning} {problem_type.remedy}"
        yield ""


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "configuration.md": configuration,
    "tables.md": tables,
    "cli.md": cli,
    "api.md": api,
    "problems.md": problem_types,
    "sources.md": sources,
}


def rendered(name: str) -> str:
    """One page, as it should be."""
    text = "\n".join(PAGES[name]())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def demo_output() -> str:
    """What the demo prints, run in a temporary home."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "rootcost.cli", "--home", f"{folder}/home", "demo"]
        return subprocess.run(line, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def demo_block(output: str) -> str:
    """README's block of what the demo printed: the first teams of who started it, their sum, and the balance."""
    lines = [line.rstrip() for line in output.splitlines()]
    teams, balance = _chapter(lines, "Who started it", "attributed"), _chapter(lines, "The balance", "✓")
    blocks = [i for i, line in enumerate(teams) if not line]
    team_lines = teams[: blocks[SHOWN_TEAMS - 1] + 1] if len(blocks) > SHOWN_TEAMS else teams[:-1]
    excerpt = ["Who started it", "", *team_lines, " …", "", teams[-1], "", "", "The balance", "", *balance]
    return "\n".join([DEMO_BEGINS, "```text", *excerpt, "```", DEMO_ENDS])


def _chapter(lines: Sequence[str], title: str, end: str) -> list[str]:
    """The lines of a chapter, from below its heading to the first line that begins with `end`, inclusive."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{title} ─")) + 2
    last = next(i for i, line in enumerate(lines) if i > start and line.lstrip().startswith(end))
    while not lines[start]:
        start += 1
    return list(lines[start : last + 1])


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is stale")
    parser.add_argument("--demo", action="store_true", help="run the demo and put what it prints into README.md")
    options = parser.parse_args()
    if options.demo:
        before, _, old_block = README.read_text(encoding="utf-8").partition(DEMO_BEGINS)
        README.write_text(f"{before}{demo_block(demo_output())}{old_block.partition(DEMO_ENDS)[2]}", encoding="utf-8")
        return 0
    stale = []
    for name in PAGES:
        path, text = DOCS / name, rendered(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if stale and options.check:
        print(f"stale: {', '.join(stale)} — run `make docs`", file=sys.stderr)
        return 1
    print(f"written: {', '.join(stale)}" if stale else "docs are fresh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
