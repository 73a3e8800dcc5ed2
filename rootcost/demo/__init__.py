"""Generates one month of a fictional company, in the formats of real providers: bills, gateway logs, telemetry, registry.

`generate` writes the files; `rootcost.demo.story` runs them through the real ingestors and prints the results.
`generate_ledger` writes large tables directly, for benchmarks.
"""

from __future__ import annotations

from rootcost.demo.ledger_tables import generate_ledger
from rootcost.demo.write import DemoCompany, generate

__all__ = ["DemoCompany", "generate", "generate_ledger"]
