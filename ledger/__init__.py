"""The floor: what the books hold, and how it is written down.

Everything above meets here and nowhere else: `ingest` writes facts, `attribution` writes conclusions, `api` reads both.
This package imports none of the others.
"""

import os as _os

# A pass over spans takes and gives back the same memory again and again. Handed back to the system at once, as polars' allocator does by default,
# every new page of it costs a fault: half the time of a pass. Kept for a second it is simply used again. Read when polars is loaded.
_os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:1000,muzzy_decay_ms:1000")
