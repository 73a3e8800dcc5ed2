"""The columns that tell usage and costs apart, by what they describe. (RA-1)"""

from __future__ import annotations

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team", "method")
CONTEXT = ("workflow", "tenant", "environment", "source")
"""What the work was for, and who told of it."""
WHAT = ("provider", "account", "region", "service", "model", "service_tier", "resource", "principal")
