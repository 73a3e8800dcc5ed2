"""The columns that identify usage and costs, by what they describe. (RA-1)"""

from __future__ import annotations

import polars as pl

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team", "method")
CONTEXT = ("workflow", "tenant", "environment", "source")
"""The purpose of the work, and the source that reported it."""
VARIANT = ("release", "model_version", "geography")
"""What a name may state of a model beside its family: optional keys of a pool. (RA-1c)"""
CALLER = ("caller_place",)
"""Which of the keys of WHAT only the caller states: tried first, then dropped. (RA-1d)"""
WHAT = ("provider", "account", "region", "service", "model", *VARIANT, "service_tier", "resource", "principal")

RESOURCE_METERS = ("seconds", "requests")
"""What is measured of a resource that calls use; a model may be sold by them as well."""


def is_call_usage() -> pl.Expr:
    """Whether a row of `usage_hourly` counts what calls used, in tokens, pictures or searches; else it is the time of a resource. (RA-2, RA-3)

    >>> rows = [("m", "input_tokens"), (None, "web_searches"), ("m", "requests"), (None, "requests"), (None, "seconds")]
    >>> pl.DataFrame(rows, schema=["model", "meter"], orient="row").select(is_call_usage()).to_series().to_list()
    [True, True, True, False, False]
    """
    return pl.col("model").is_not_null() | ~pl.col("meter").is_in(RESOURCE_METERS)
