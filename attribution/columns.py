"""The columns that identify usage and costs, by what they describe. (RA-1)"""

from __future__ import annotations

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team", "method")
CONTEXT = ("workflow", "tenant", "environment", "source")
"""The purpose of the work, and the source that reported it."""
VARIANT = ("release", "model_version", "geography")
"""What a name may state of a model beside its family: optional keys of a pool. (RA-1c)"""
CALLER = ("caller_place",)
"""Which of the keys of WHAT only the caller states: tried first, then dropped. (RA-1d)"""
WHAT = ("provider", "account", "region", "service", "model", *VARIANT, "service_tier", "resource", "principal")
