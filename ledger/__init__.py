"""The ledger: tables and their checks, money, storage, settings, registry and errors.

The other packages share data only through it: `ingest` writes facts, `attribution` writes conclusions, `api` reads both.
This package imports none of the others.
"""

import os as _os

# A pass over spans allocates and frees the same memory again and again. By default polars' allocator returns it to the system at once, so every
# page costs a page fault: half the time of a pass. Kept for a second it is reused. The variable is read when polars is loaded.
_os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:1000,muzzy_decay_ms:1000")
