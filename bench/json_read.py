"""JSON lines of bills and logs into tables: rows a second, beside a plain `json.loads` of the same lines in the same run.

    python -m bench.json_read gcp --rows 200000

The load is made by this file. Ours is the product's own reader, from the file to the columns of the ledger's table, problems included; what
the peer makes is dropped. Each runs three times in a process of its own, taking turns; the fastest counts. On a machine that others use
too, the ratio of processor times says more than rows a second. Prints one JSON line a format.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.memory import peak_mb
from ingest.source import RawObject, Source
from ingest.sources import by_name
from ledger.settings import IngestSettings

ROOT = Path(__file__).parent.parent
REPEAT = 3


def gcp_lines(rows: int) -> Iterator[str]:
    """Rows of Google's detailed export, hour by hour: 1500 resources with labels, a third of the rows with a credit; 1500 bytes a row."""
    draw = random.Random(7)
    skus = [(f"{draw.randrange(16**4):04X}-{n:04X}-5A22", f"Gemini 2.5 Flash GA Text Input {n}") for n in range(60)]
    resources = [(draw.choice(skus), draw.randrange(20), draw.randrange(10**12), draw.randrange(60)) for _ in range(1500)]
    start = datetime(2026, 10, 1, tzinfo=UTC)
    for n in range(rows):
        (sku, description), project, endpoint, agent = resources[n % 1500]
        hour, tokens = start + timedelta(hours=n // 1500 % 744), draw.randrange(1, 5_000_000)
        cost = tokens * 3e-7
        credit = {
            "name": "Agreement",
            "amount": -cost * 0.17,
            "full_name": "Enterprise agreement",
            "id": "EA-26",
            "type": "DISCOUNT",
        }
        row = {
            "billing_account_id": "012345-6789AB-CDEF01",
            "service": {"id": "C7E2-9256-1C43", "description": "Vertex AI"},
            "sku": {"id": sku, "description": description},
            "usage_start_time": f"{hour:%Y-%m-%dT%H:%M:%SZ}",
            "usage_end_time": f"{hour + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
            "project": {
                "id": f"acme-{project}",
                "number": str(10**11 + project),
                "name": f"Acme {project}",
                "labels": [{"key": "cost-centre", "value": str(4700 + project)}],
                "ancestry_numbers": "/77/88/",
                "ancestors": [{"resource_name": "folders/77", "display_name": "AI"}],
            },
            "labels": [
                {"key": "team", "value": f"team-{agent % 12}"},
                {"key": "agent", "value": f"agent-{agent}"},
                {"key": "env", "value": "prod"},
            ],
            "system_labels": [],
            "location": {"location": "europe-west1", "country": None, "region": "europe-west1", "zone": None},
            "resource": {
                "name": str(endpoint),
                "global_name": f"//aiplatform.googleapis.com/projects/{project}/locations/europe-west1/endpoints/{endpoint}",
            },
            "tags": [],
            "transaction_type": "GOOGLE",
            "seller_name": None,
            "export_time": "2026-10-05T13:04:11.512Z",
            "cost": cost,
            "currency": "USD",
            "usage": {"amount": tokens, "unit": "count", "amount_in_pricing_units": tokens, "pricing_unit": "count"},
            "credits": [credit] if n % 3 == 0 else [],
            "invoice": {"month": "202610", "publisher_type": "GOOGLE"},
            "cost_type": "regular",
            "adjustment_info": None,
            "price": {
                "effective_price": 0.3,
                "tier_start_amount": 0,
                "unit": "count",
                "pricing_unit_quantity": 1000000,
                "list_price": 0.3,
            },
            "cost_at_list": cost,
            "cost_at_effective_price_default": None,
            "consumption_model": {"id": "7754-699E-0EBF", "description": "Default"},
            "subscription": {"instance_id": None},
        }
        yield json.dumps(row, separators=(",", ":"))


def litellm_lines(rows: int) -> Iterator[str]:
    """Payloads of LiteLLM's callback, four recorded ones with ids, times, counts and costs of their own; 5 800 bytes a row."""
    draw = random.Random(3)
    folder = ROOT / "tests" / "data" / "litellm_proxy_captures"
    payloads = [json.loads((folder / f"custom-success-0{n}.standard_logging_object.json").read_text()) for n in (1, 2, 3, 4)]
    for n in range(rows):
        start, prompt, answer = 1795361505.9 + n * 0.37, draw.randrange(5000), draw.randrange(900)
        call = {
            "id": f"chatcmpl-{draw.getrandbits(96):024x}",
            "litellm_call_id": f"{draw.getrandbits(128):032x}",
            "trace_id": f"{draw.getrandbits(128):032x}",
            "startTime": round(start, 6),
            "endTime": round(start + draw.random() * 5, 6),
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "response_cost": prompt * 3e-6 + answer * 1.5e-5,
        }
        yield json.dumps({**payloads[n % 4], **call})


FORMATS = {"gcp": gcp_lines, "litellm": litellm_lines}


def ours(source: Source, path: Path) -> int:
    """Rows that the product's reader makes of the file."""
    item = RawObject(str(path), path, "bench", path.stat().st_size)
    rows = 0
    for reading in source.read(item, IngestSettings()):
        if any(problem.severity == "error" for problem in reading.problems):
            raise SystemExit(f"rows were refused: {reading.problems[0]}")
        rows += reading.frame.height
    return rows


def peer(path: Path) -> int:
    """Lines that `json.loads` parses."""
    with path.open("rb") as file:
        return sum(isinstance(json.loads(line), dict) for line in file)


def measure(source: str, rows: int) -> dict[str, object]:
    """Best of both sides."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source}.jsonl"
        with path.open("w") as file:
            file.writelines(line + "\n" for line in FORMATS[source](rows))
        best: dict[str, list[float]] = {}
        for side in ("ours", "peer") * REPEAT:
            command = [sys.executable, "-m", "bench.json_read", source, "--side", side, "--file", str(path)]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            if figures[0] != rows:
                raise SystemExit(f"{side} has {figures[0]} rows of {rows}")
            best[side] = [min(pair) for pair in zip(best.get(side, figures[1:]), figures[1:], strict=True)]
    sides = {
        side: {
            "rows_per_second": round(rows / seconds),
            "cpu_microseconds_per_row": round(cpu / rows * 1e6, 2),
            "peak_mb": round(peak),
        }
        for side, (seconds, cpu, peak) in best.items()
    }
    return {source: rows, **sides, "cpu_ratio": round(best["ours"][1] / best["peer"][1], 2)}


def main() -> None:
    """Makes the files and runs both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", choices=sorted(FORMATS), default=sorted(FORMATS))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--side", choices=["ours", "peer"])
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    if not arguments.side:
        for source in arguments.formats:
            print(json.dumps(measure(source, arguments.rows)), flush=True)
        return
    source = by_name(arguments.formats[0])
    began, cpu = time.perf_counter(), time.process_time()
    rows = ours(source, arguments.file) if arguments.side == "ours" else peer(arguments.file)
    print(json.dumps([rows, time.perf_counter() - began, time.process_time() - cpu, peak_mb()]))


if __name__ == "__main__":
    main()
