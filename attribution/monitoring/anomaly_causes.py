"""Which anomalies have one cause: an agent's spike is its team's and its model's as well, and a model's new price is that of all its agents.

The narrowest that explains the others is told, and the others are part of it. Where several narrow ones make up a wide one together, the wide one is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from attribution.monitoring.anomaly_detection import WINDOW_DAYS, AnomalousDays
from attribution.monitoring.anomaly_rows import anomaly_id
from attribution.monitoring.anomaly_series import SCOPES, SpendSeries

CAUSED: Final = Decimal("0.8")
"""Share of an impact that has to be another anomaly's, too, to be part of it."""
_ORDER: Final = {scope: number for number, scope in enumerate(SCOPES)}
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An anomaly of a series."""

    scope: str
    name: str
    currency: str
    days: AnomalousDays

    @property
    def anomaly_id(self) -> str:
        """Its id: the kind is no part of it, since a spike that stays becomes a shift."""
        return anomaly_id(self.scope, self.name, self.currency, str(self.days.told_from or self.days.start))

    @property
    def impact(self) -> Decimal:
        """The difference to what was expected."""
        return self.days.impact


def causes(series: SpendSeries, anomalies: Sequence[Anomaly]) -> dict[str, str]:
    """For each anomaly that is part of another, the id of that one."""
    parts: dict[str, str] = {}
    told_anomalies: list[Anomaly] = []
    for anomaly in sorted(anomalies, key=lambda one: (_ORDER[one.scope], -abs(one.impact), one.anomaly_id)):
        narrower_ones = [one for one in told_anomalies if _is_related(series, anomaly, one)]
        cause = next((one for one in narrower_ones if abs(one.impact) >= CAUSED * abs(anomaly.impact)), None)
        if cause is not None:
            parts[anomaly.anomaly_id] = cause.anomaly_id
            continue
        if len(narrower_ones) > 1 and abs(sum((one.impact for one in narrower_ones), Decimal(0))) >= CAUSED * abs(anomaly.impact):
            for one in narrower_ones:
                parts[one.anomaly_id] = anomaly.anomaly_id
                told_anomalies.remove(one)
        told_anomalies.append(anomaly)
    return {part: _head(parts, part) for part in parts}


def _head(parts: dict[str, str], part: str) -> str:
    while part in parts:
        part = parts[part]
    return part


def _is_related(series: SpendSeries, anomaly: Anomaly, narrower: Anomaly) -> bool:
    """Whether they are of one time and side, and what the narrower one is about is, for the most part, in the wider one."""
    if anomaly.currency != narrower.currency or anomaly.scope == narrower.scope or (anomaly.impact > 0) != (narrower.impact > 0):
        return False
    if anomaly.days.start > narrower.days.end + _DAY or narrower.days.start > anomaly.days.end + _DAY:
        return False
    if abs(narrower.impact) * CAUSED > abs(anomaly.impact):
        return False
    pairs = [(anomaly.scope, anomaly.name), (narrower.scope, narrower.name)]
    if anomaly.impact > 0:
        start, end = min(anomaly.days.start, narrower.days.start), max(anomaly.days.end, narrower.days.end)
        return series.overlap(pairs, anomaly.currency, start, end) >= CAUSED * narrower.impact
    start, end = anomaly.days.start - WINDOW_DAYS * _DAY, anomaly.days.start - _DAY
    return 2 * series.overlap(pairs, anomaly.currency, start, end) > series.overlap(pairs[1:], anomaly.currency, start, end)
