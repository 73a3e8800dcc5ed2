"""The manifest of journal files: what each holds and adds up to, so that nobody has to trust a file name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from ledger.closing.cents import smallest_unit
from ledger.version import product_version
from rootcost.journals.journal import Journal


def journal_manifest(month: str, profile: str, journals: Sequence[Journal], contents: Mapping[str, bytes]) -> bytes:
    """JSON with the query, the version, and of each file (in the order of the journals) its journal, run, lines, control total and SHA-256.

    The control total is the sum of debits, which is that of credits.
    """
    files = {}
    for journal, (name, content) in zip(journals, contents.items(), strict=True):
        debits = sum((line.debit or Decimal(0) for line in journal.lines), Decimal(0)).quantize(smallest_unit(journal.currency))
        files[name] = {
            "number": journal.number,
            "kind": journal.kind,
            "reverses": journal.reverses,
            "date": journal.posting_date.isoformat(),
            "run": journal.run_id,
            "currency": journal.currency,
            "lines": len(journal.lines),
            "control_total": f"{debits:f}",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest = {"month": month, "profile": profile, "generator": f"RootCost {product_version()}", "files": files}
    return json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
