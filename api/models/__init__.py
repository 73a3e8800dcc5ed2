"""Request and response models of the API, with a description of every field.

Money is a decimal string in JSON and a `decimal.Decimal` in Python; times are ISO 8601 with an offset. Descriptions of fields
that are columns of the ledger come from `ledger.tables`.
"""

from __future__ import annotations

from api.models.access import GrantRow, Me
from api.models.audit import AuditEntry, AuditPage
from api.models.base import (
    Basis,
    Calendar,
    FieldError,
    Filters,
    Granularity,
    Money,
    Page,
    ProblemDocument,
    View,
    describe,
)
from api.models.chains import (
    CallCost,
    ChainSummary,
    ChainTree,
    MeterCost,
    SpanNode,
)
from api.models.costs import (
    BalanceRow,
    ClassTotal,
    CostRow,
    CostTable,
    MonthTotal,
    Overview,
    ReasonTotal,
    Spender,
)
from api.models.evidence import EmitterRow, Evidence, EvidencePart, EvidenceRow, EvidenceSection, FindingRow
from api.models.explanations import Explanation, Link, Part, Remainder, Step
from api.models.gaps import ChannelSummary, CounterGap, GapRow, Gaps
from api.models.sources import SourceRunRow, SourceStatus
from api.models.state import (
    Accepted,
    AgentRow,
    Agents,
    AlertRow,
    AnomalyRow,
    Budget,
    BudgetChange,
    Freshness,
    Health,
    NewBudget,
    ProblemRow,
    RegistryImported,
    RunRow,
    SourceFreshness,
    UnregisteredAgent,
)

__all__ = [
    "Accepted",
    "AgentRow",
    "Agents",
    "AlertRow",
    "AnomalyRow",
    "AuditEntry",
    "AuditPage",
    "BalanceRow",
    "Basis",
    "Budget",
    "BudgetChange",
    "Calendar",
    "CallCost",
    "ChainSummary",
    "ChainTree",
    "ChannelSummary",
    "ClassTotal",
    "CostRow",
    "CostTable",
    "CounterGap",
    "EmitterRow",
    "Evidence",
    "EvidencePart",
    "EvidenceRow",
    "EvidenceSection",
    "Explanation",
    "FieldError",
    "Filters",
    "FindingRow",
    "Freshness",
    "GapRow",
    "Gaps",
    "GrantRow",
    "Granularity",
    "Health",
    "Link",
    "Me",
    "MeterCost",
    "Money",
    "MonthTotal",
    "NewBudget",
    "Overview",
    "Page",
    "Part",
    "ProblemDocument",
    "ProblemRow",
    "ReasonTotal",
    "RegistryImported",
    "Remainder",
    "RunRow",
    "SourceFreshness",
    "SourceRunRow",
    "SourceStatus",
    "SpanNode",
    "Spender",
    "Step",
    "UnregisteredAgent",
    "View",
    "describe",
]
