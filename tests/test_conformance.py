"""The failure modes of `conformance/`: ours meets them, and the runner is one that a wrong implementation does not get past."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import ROOT

CONFORMANCE = ROOT / "conformance"
RUNNER = CONFORMANCE / "run.py"


def sibling(name: str) -> ModuleType:
    """A module of conformance/, which is a folder of scripts and no package."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(CONFORMANCE)
        return __import__(name)


runner, cases, compare, adapter = (sibling(name) for name in ("run", "cases", "compare", "rootcost_adapter"))
CASES = [cases.read_case(folder) for folder in cases.case_folders(CONFORMANCE)]
GAPS = runner.gaps(runner.NOT_MET)


def ours(given: Path, out: Path) -> None:
    """The product, in this process: as the runner calls it, without a second of start-up each time."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = adapter.main(given, out)
    if code == runner.NOT_CLAIMED:
        raise runner.NotClaimed(said.getvalue())
    assert "error:" not in said.getvalue(), said.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_ours_meets_it_or_the_gap_is_listed(case: Any) -> None:
    outcomes = [runner.try_variant(case, variant, ours, GAPS) for variant in case.variants]
    assert [(o.variant, o.result, o.differences) for o in outcomes if o.result not in ("pass", "not met")] == []
    assert [(o.variant, o.reason) for o in outcomes if o.result == "pass" and o.reason] == [], "a gap that is none any more"


def test_all_failure_modes_are_there_and_every_gap_names_one() -> None:
    assert [case.id for case in CASES] == [f"F{number:02}" for number in range(1, 33)]
    known = {(case.id, name) for case in CASES for name in ("*", *(variant.name for variant in case.variants))}
    assert set(GAPS) <= known
    assert all(GAPS.values()), "a gap has a reason"


def test_every_case_states_one_sentence_and_has_figures_that_can_be_checked() -> None:
    for case in CASES:
        assert case.invariant.endswith("."), case.id
        assert ". " not in case.invariant, f"{case.id}: one sentence"
        assert case.variants[0].expected(case), f"{case.id} expects something"
        spans = sum(1 for path in case.folder.glob("input/**/spans*.json") for _ in cases._singly(path))
        charges = sum(path.read_text().count("\n") - 1 for path in case.folder.glob("input/bill*.csv"))
        assert spans <= 16, f"{case.id} is not small: {spans} spans"
        assert charges <= 4, f"{case.id} is not small: {charges} charges"


def test_the_readme_holds_the_table_of_cases() -> None:
    assert "\n".join(runner.listed(CASES)) in (CONFORMANCE / "README.md").read_text()


def run(*arguments: str | Path, code: int) -> Any:
    done = subprocess.run(
        [sys.executable, str(RUNNER), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_runner_drives_the_real_command() -> None:
    done = run(
        "--only",
        "F20",
        "--variant",
        "as-given",
        "--format",
        "json",
        "--",
        sys.executable,
        CONFORMANCE / "rootcost_adapter.py",
        code=0,
    )
    (outcome,) = json.loads(done.stdout)
    assert (outcome["case"], outcome["variant"], outcome["result"]) == ("F20", "as-given", "pass")


@pytest.mark.slow
def test_without_a_command_it_is_ours_with_our_list_of_gaps() -> None:
    told = run("--only", "F32", code=0).stdout
    assert "1 pass" in told


NAIVE = """
import csv, json, sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

given, out = map(Path, sys.argv[1:])
tokens, cost, teams = defaultdict(Decimal), Decimal(0), {}
for path in given.rglob("registry*.csv"):
    teams |= {row["agent"]: row["team"] for row in csv.DictReader(path.open())}
for path in given.rglob("bill*.csv"):
    cost += sum(Decimal(row["EffectiveCost"]) for row in csv.DictReader(path.open()))
for path in given.rglob("spans*.json"):
    for resource in json.loads(path.read_text())["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            named = {}
            for span in scope["spans"]:
                told = {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}
                agent = told.get("gen_ai.agent.name") or named.get(span.get("parentSpanId"), "unknown")
                named[span["spanId"]] = agent
                tokens[agent] += sum(int(n) for key, n in told.items() if "token" in key and str(n).isdigit())
with (out / "costs.csv").open("w") as file:
    print("view,agent,team,basis,method,cost_class,reason,meter,service_tier,day,invoice_month,currency,cost", file=file)
    for view in ("initiator", "executor"):
        for agent, used in tokens.items():
            share = round(cost * used / (sum(tokens.values()) or 1), 12)
            print(f"{view},{agent},{teams.get(agent, '')},billed,path,metered,,input_tokens,standard,2026-10-05,2026-10,USD,{share}", file=file)
"""
"""What one writes on the first afternoon: sum all token attributes of all spans, split the bill in proportion."""


@pytest.mark.slow
def test_a_naive_sum_over_all_spans_does_not_get_past_it(tmp_path: Path) -> None:
    (tmp_path / "naive.py").write_text(NAIVE)
    done = run("--format", "json", "--", sys.executable, tmp_path / "naive.py", code=1)
    results: dict[str, set[str]] = {}
    for outcome in json.loads(done.stdout):
        results.setdefault(outcome["case"], set()).add(outcome["result"])
    assert len(results) == 32
    assert {case for case, found in results.items() if "fail" not in found} == set()


def test_a_command_may_say_that_it_claims_nothing(tmp_path: Path) -> None:
    shy = tmp_path / "shy.py"
    shy.write_text("import sys\nprint('no gateway logs', file=sys.stderr)\nsys.exit(77)\n")
    told = run("--only", "F29", "--", sys.executable, shy, code=0).stdout
    assert "not claimed: no gateway logs" in told


def test_a_difference_is_shown_as_expected_and_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import sys, pathlib\n"
        "pathlib.Path(sys.argv[2], 'costs.csv').write_text('view,agent,team,cost_class,currency,cost\\n'\n"
        "'initiator,support-bot,Care,metered,USD,0.012\\nexecutor,support-bot,Care,metered,USD,0.012\\n')\n"
    )
    told = run("--only", "f10-clock-skew", "--variant", "as-given", "--", sys.executable, wrong, code=1).stdout
    assert "view executor, agent researcher, team Data, cost_class metered, currency USD: expected 0.012, found nothing" in told
    assert "view executor, agent support-bot, team Care, cost_class metered, currency USD: expected nothing, found 0.012" in told


def test_a_runner_that_is_called_wrongly_says_so() -> None:
    assert "no such case: F99" in run("--only", "F99", code=2).stderr


def held(tmp_path: Path, wanted: str, found: str, **options: Any) -> list[str]:
    (tmp_path / "expected-costs.csv").write_text(wanted)
    (tmp_path / "costs.csv").write_text(found)
    told: list[str] = compare.differences({"costs": tmp_path / "expected-costs.csv"}, tmp_path, **options)
    return told


def test_rows_are_summed_and_numbers_are_exact(tmp_path: Path) -> None:
    wanted = "view,team,currency,cost\nboth,Care,USD,0.0180\n"
    rows = "executor,Care,USD,c,0.018\ninitiator,Care,USD,a,0.010\ninitiator,Care,USD,b,{}\n"
    head = "view,team,currency,model,cost\n"
    assert held(tmp_path, wanted, head + rows.format("0.008")) == []
    assert held(tmp_path, wanted, head + rows.format("0.008000000001")) != []
    assert held(tmp_path, wanted, head + rows.format("0.008000000001"), decimals=6) == [
        "expected-costs.csv: the two views have different totals"
    ]


def test_an_unknown_amount_is_no_zero(tmp_path: Path) -> None:
    wanted = "team,currency,cost\nCare,USD,\n"
    assert held(tmp_path, wanted, "team,currency,cost\nCare,USD,\n") == []
    assert held(tmp_path, wanted, "team,currency,cost\nCare,USD,0\n") == [
        "expected-costs.csv: team Care, currency USD: expected an unknown amount, found nothing"
    ]


def test_reasons_are_a_set(tmp_path: Path) -> None:
    wanted = 'reason,currency,cost\n"retry,fan_in",USD,1\n'
    assert held(tmp_path, wanted, 'reason,currency,cost\n"fan_in,retry",USD,1\n') == []
    assert held(tmp_path, wanted, "reason,currency,cost\nretry,USD,1\n") != []


def test_what_is_no_number_or_no_column_is_told(tmp_path: Path) -> None:
    wanted = "team,currency,cost\nCare,USD,1\n"
    assert held(tmp_path, wanted, "team,currency,cost\nCare,USD,dear\n") == ["costs.csv: 'dear' is no decimal number"]
    assert held(tmp_path, wanted, "team,cost\nCare,1\n") == ["costs.csv: lacks the columns currency"]


def billed(folder: Path) -> dict[str, Decimal]:
    """What the bills of an input come to, per currency; of a file that comes again, the last one counts."""
    files = {path.name: path for delivery in cases.deliveries(folder) for path in sorted(delivery.glob("bill*.csv"))}
    totals: dict[str, Decimal] = {}
    for path in files.values():
        for row in compare._rows(path):
            totals[row["BillingCurrency"]] = totals.get(row["BillingCurrency"], Decimal(0)) + Decimal(row["EffectiveCost"])
    return {currency: total for currency, total in totals.items() if total}


def test_in_either_view_what_is_expected_adds_up_to_the_bill(tmp_path: Path) -> None:
    held_against_a_bill = 0
    for case, variant in [(one, form) for one in CASES for form in one.variants]:
        target = tmp_path / case.id / variant.name
        cases.lay_out(case, variant, target)
        expected = variant.expected(case)
        if not (bill := billed(target)):
            continue
        rows = compare._rows(expected.get("totals", expected["costs"]))
        for view in compare.VIEWS:
            totals: dict[str, Decimal] = {}
            for row in rows:
                if row["view"] in (view, compare.BOTH):
                    totals[row["currency"]] = totals.get(row["currency"], Decimal(0)) + Decimal(row["cost"])
            assert totals == bill, (case.id, variant.name, view)
        held_against_a_bill += 1
    assert held_against_a_bill > 100
