"""The gate of queries: every reading of all teams' rows is known."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

QUERIES = ROOT / "api/queries"

WHOLE_READS = {
    "alert_rows.py": 5,
    "anomaly_rows.py": 2,
    "audit.py": 1,
    "budgets.py": 7,
    "calls.py": 1,
    "chain_limits.py": 1,
    "chains.py": 4,
    "converted.py": 1,
    "costs.py": 1,
    "evidence/emitters.py": 1,
    "evidence/figure.py": 4,
    "evidence/findings.py": 1,
    "explain/__init__.py": 1,
    "explain/bill_steps.py": 6,
    "explain/estimate_steps.py": 2,
    "explain/lookup.py": 5,
    "explain/rule_steps.py": 5,
    "explain/set_aside.py": 1,
    "explain/usage_steps.py": 2,
    "gaps.py": 2,
    "gate.py": 6,
    "own_names.py": 1,
    "periods.py": 1,
    "pricing.py": 1,
    "redaction.py": 1,
    "removals.py": 2,
    "shares.py": 2,
    "sources.py": 7,
    "state.py": 9,
    "statements.py": 9,
}
"""Readings of all teams' rows in each file of `api/queries`. A new one is looked at: what it shows of other teams must be one sum, or nothing."""


def test_every_reading_of_all_rows_is_known() -> None:
    """`.whole` and WHOLE pass the gate by, for arithmetic over a pool and for ids; nothing else in the package reads tables."""
    counts = {}
    for file in sorted(QUERIES.rglob("*.py")):
        code = re.sub(r'""".*?"""', "", file.read_text(), flags=re.DOTALL)
        counts[str(file.relative_to(QUERIES))] = len(re.findall(r"\.whole\b|\bWHOLE\)|\bWHOLE, month_column", code))
    assert {name: count for name, count in counts.items() if count} == WHOLE_READS
