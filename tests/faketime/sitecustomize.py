"""Makes `time.sleep` work under libfaketime, in every Python process that the tests start.

Since Python 3.11 `time.sleep` asks clock_nanosleep for an instant of the monotonic clock. libfaketime 0.9.10 moves that instant by the
faked offset although FAKETIME_DONT_FAKE_MONOTONIC leaves the clock itself alone: the call is refused, or sleeps for months.
`select` takes a duration, which libfaketime leaves as it is.
"""

import os
import select
import sys
import time


def _sleep(seconds: float, /) -> None:
    """Sleeps as `time.sleep` does."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


if os.environ.get("FAKETIME") and sys.platform == "linux":
    time.sleep = _sleep  # type: ignore[assignment]
