"""How much memory grows while all chains of a home leave as a file of each format: ``python -m tests.support.stream_memory HOME``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from api.formats import _ENCODERS
from api.queries import ChainQuery, chains, of_operator
from bench.memory import peak_mb
from ledger.books import Books


def main() -> None:
    """Prints, by format, the megabytes that came beside those before the first file, and the size of the file."""
    with Books.open(Path(sys.argv[1])) as books:
        few = chains(of_operator(books), ChainQuery(agent="nobody"))
        for encode in _ENCODERS.values():  # libraries are loaded
            list(encode(few.frames(few.totals())))
        first_peak_mb = peak_mb()
        growth_mb = {}
        for name, encode in _ENCODERS.items():
            listing = chains(of_operator(books), ChainQuery())
            size_mb = sum(map(len, encode(listing.frames(listing.totals())))) / 1e6
            growth_mb[name] = [round(peak_mb() - first_peak_mb, 1), round(size_mb, 1)]
        print(json.dumps(growth_mb))


if __name__ == "__main__":
    main()
