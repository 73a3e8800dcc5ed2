"""`make source NAME=x [KIND=bill|log] [FOLDER=1]`: the files of a new source, which pass ruff, mypy and their own test at once.

ingest/sources/x.py                  the source: a declaration of its columns, to be changed
tests/data/x/{sample,expected}.csv   the golden folder: what a provider delivers, and the rows it must give
tests/ingest/sources/test_x.py       the test of the golden folder
docs/sources/x.md                    the page that users read
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")

_SOURCE = '''"""{title}: a plain table, declared by its columns."""

from __future__ import annotations

from ingest.plain_table import Column, PlainTable

SOURCE = PlainTable(
    name="{name}",
    kind="{kind}",
    title="{title}, CSV or Parquet",
    columns={{
{columns}
    }},
)
'''

_TEST = '''"""{title}: the sample gives the expected rows."""

from __future__ import annotations

from ingest.sources.{module} import SOURCE
from tests.support.golden import check_golden_folder
from tests.support.paths import DATA


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, DATA / "{module}")
'''

_PAGE = """# {name}

{title}, CSV or Parquet: a plain table.

```sh
rootcost ingest {name} {name}-export.csv
```

**Named.** A file, a folder, a glob in quotes or an `s3://` prefix. {scope}

**Needed.** Nothing for files; `s3:ListBucket` and `s3:GetObject` below the prefix for S3.

**Read.** A table with a header, in the columns below. A row with a value that does not fit its column is a problem; the other rows are read.

| column | is read as |
|---|---|
{table}
"""

_COLUMNS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "bill": (
        ("billed_cost", "amount", ""),
        ("billing_currency", "currency", "USD"),
        ("charge_period_start", "day", ""),
        ("provider_name", "", "{title}"),
        ("service_name", "service", ""),
        ("sku_meter", "meter", ""),
        ("sub_account_id", "project", ""),
        ("consumed_quantity", "quantity", ""),
        ("consumed_unit", "unit", ""),
    ),
    "log": (
        ("span_id", "id", ""),
        ("start_time", "time", ""),
        ("agent_name", "agent", ""),
        ("operation", "", "chat"),
        ("usage_scope", "", "leaf"),
        ("provider", "provider", ""),
        ("response_model", "model", ""),
        ("input_tokens", "input", ""),
        ("output_tokens", "output", ""),
    ),
}
_SAMPLES = {
    "bill": "day,service,meter,project,quantity,unit,currency,amount\n"
    "2026-10-01,Inference,input tokens,support,12000,Tokens,USD,0.024\n"
    "2026-10-02,Inference,output tokens,support,3000,Tokens,,0.0451234567891\n",
    "log": "id,time,agent,provider,model,input,output\n"
    "call-1,2026-10-01T09:00:00Z,support-bot,openai,gpt-4o,1200,300\n"
    "call-2,2026-10-01T09:00:05Z,support-bot,openai,gpt-4o,900,\n",
}
_EXPECTED = {
    "bill": "billing_month,charge_period_start,charge_period_end,billing_currency,billed_cost,billed_cost__written,consumed_quantity,sku_meter\n"
    "2026-10,2026-10-01 00:00:00+00:00,2026-10-02 00:00:00+00:00,USD,0.024000000000,,12000.000000000000,input tokens\n"
    "2026-10,2026-10-02 00:00:00+00:00,2026-10-03 00:00:00+00:00,USD,0.045123456789,0.0451234567891,3000.000000000000,output tokens\n",
    "log": "date,start_time,trace_id,span_id,agent_name,operation,response_model,input_tokens,output_tokens\n"
    "2026-10-01,2026-10-01 09:00:00+00:00,call-1,call-1,support-bot,chat,gpt-4o,1200,300\n"
    "2026-10-01,2026-10-01 09:00:05+00:00,call-2,call-2,support-bot,chat,gpt-4o,900,\n",
}


def files_of(name: str, kind: str, *, folder: bool = False) -> dict[str, str]:
    """The new files, path below the root to content.

    >>> list(files_of("acme-ai", "bill"))[:2]
    ['ingest/sources/acme_ai.py', 'tests/data/acme_ai/sample.csv']
    """
    module, title = name.replace("-", "_"), " ".join(part.capitalize() for part in name.split("-"))
    values = {"name": name, "kind": kind, "title": title, "module": module}
    columns, table = [], []
    for column, header, default in _COLUMNS[kind]:
        default_value = default.format(title=title)
        arguments = ", ".join(filter(None, (f'"{header}"' if header else "", f'default="{default_value}"' if default else "")))
        columns.append(f'        "{column}": Column({arguments}),')
        table.append(f"| {f'`{header}`' if header else f'always {default_value}'} | `{column}` |")
    scope = (
        "A file is a dataset of its own name; a folder is one dataset." if kind == "bill" else "Reading it again changes nothing."
    )
    source = _SOURCE.format(columns="\n".join(columns), **values)
    export = f'"""{title}."""\n\nfrom ingest.sources.{module}.source import SOURCE\n\n__all__ = ["SOURCE"]\n'
    code = (
        {f"ingest/sources/{module}/__init__.py": export, f"ingest/sources/{module}/source.py": source}
        if folder
        else {f"ingest/sources/{module}.py": source}
    )
    return code | {
        f"tests/data/{module}/sample.csv": _SAMPLES[kind],
        f"tests/data/{module}/expected.csv": _EXPECTED[kind],
        f"tests/ingest/sources/test_{module}.py": _TEST.format(**values),
        f"docs/sources/{name}.md": _PAGE.format(table="\n".join(table), scope=scope, **values),
    }


def main(arguments: list[str] | None = None) -> int:
    """Writes the files; nothing is overwritten."""
    parser = argparse.ArgumentParser(prog="make source")
    parser.add_argument("name")
    parser.add_argument("kind", nargs="?", default="log", choices=sorted(_COLUMNS))
    parser.add_argument("--folder", action="store_true", help="a folder of several modules instead of one file")
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args(arguments)
    if not _NAME.match(options.name):
        print(f"{options.name!r} is no name: write small letters and digits, words joined by hyphens", file=sys.stderr)
        return 2
    files = files_of(options.name, options.kind, folder=options.folder)
    module = options.name.replace("-", "_")
    taken = [
        path for path in (*files, f"ingest/sources/{module}", f"ingest/sources/{module}.py") if (options.root / path).exists()
    ]
    if taken:
        print(f"there is {taken[0]} already; choose another name, or remove it", file=sys.stderr)
        return 2
    for path, content in files.items():
        (options.root / path).parent.mkdir(parents=True, exist_ok=True)
        (options.root / path).write_text(content, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
