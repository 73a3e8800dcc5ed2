"""Forecasts of spend: what the rest of a period will cost, with an interval that earlier forecasts of the same series justify.

Nine simple forecasters are pooled. Each is tried on the series' own past, at several origins: the better it was there, the more it weighs.
The interval comes from the same trials (split conformal): how far the pooled forecast of the *sum* was off at earlier origins, as a share of
the level then. Bounds of single days are never added up, since errors of days cancel out.

Sources: the theta method (Assimakopoulos and Nikolopoulos 2000), pooling by inverse errors (Bates and Granger 1969), conformal intervals
(Vovk, Gammerman and Shafer 2005). Figures on real series: bench/forecast.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WEEK: Final = 7
MIN_WEEKS: Final = 3
"""Whole weeks of history that a forecast needs."""
_WEEKS: Final = 8
"""Weeks from which weekdays and trend are learned."""
_MAX_ORIGINS: Final = 12
_NEWER: Final = 0.9
"""Weight of a trial against the one a week later."""
_POWER: Final = 2.0
_LEVEL_DAYS: Final = 28
_RATES: Final = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.8])
_RATIO_RANGE: Final = (0.5, 2.0)
_MIN_INDEX: Final = 0.02
"""A weekday that is worth less than this share of an average day is not ratio_series by."""
_NEGLIGIBLE: Final = 1e-12
_BLOCK: Final = 512
"""Series that are looked at together: what is made of them stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecasts of S series: `days` (S, horizon), and of their sums `total`, `low`, `high` (S,).

    `low` and `high` are NaN where the past is too short to say how good such forecasts are.
    """

    days: Array
    total: Array
    low: Array
    high: Array


def forecast(history: Array, horizon: int, *, skip: int = 0, coverage: float = 0.8) -> Forecast:
    """Forecasts the next `horizon` days of daily series (S, T) without gaps, none of them negative; T is at least `MIN_WEEKS` weeks.

    The sums leave out the first `skip` days. Of all intervals a share of `coverage` holds the sum that then comes. A series that repeats itself
    is forecast as it was:

    >>> week = [5.0, 5.0, 5.0, 5.0, 5.0, 1.0, 1.0]
    >>> result = forecast(np.array([week * 12]), 14)
    >>> result.total.round(2).tolist(), (result.high - result.low).round(2).tolist()
    ([54.0], [0.0])
    """
    days = history.shape[1]
    if days < MIN_WEEKS * WEEK or not 0 <= skip < horizon:
        raise ValueError(
            f"{days} days of history and {horizon} ahead: at least {MIN_WEEKS * WEEK}, and more than {skip}, are needed"
        )
    blocks = [_forecast(history[at : at + _BLOCK], horizon, skip, coverage) for at in range(0, max(len(history), 1), _BLOCK)]
    return Forecast(*(np.concatenate([getattr(block, name) for block in blocks]) for name in ("days", "total", "low", "high")))


def _forecast(history: Array, horizon: int, skip: int, coverage: float) -> Forecast:
    days = history.shape[1]
    ahead = _candidates(history, horizon)
    origins = list(range(days - horizon, MIN_WEEKS * WEEK - 1, -WEEK))[:_MAX_ORIGINS]
    if not origins:
        path = ahead.mean(axis=0)
        unknown = np.full(len(history), np.nan)
        return Forecast(path, path[:, skip:].sum(axis=1), unknown, unknown)
    trials = [_candidates(history[:, :origin], horizon) for origin in origins]
    actual = [history[:, origin : origin + horizon] for origin in origins]
    errors = np.stack(
        [np.abs(t - a).mean(axis=2) + np.abs((t - a).sum(axis=2)) / horizon for t, a in zip(trials, actual, strict=True)]
    )
    path = np.einsum("cs,csh->sh", _weights(errors, history), ahead)
    half = _half_width(
        [trial[:, :, skip:].sum(axis=2) for trial in trials],
        [days_ahead[:, skip:].sum(axis=1) for days_ahead in actual],
        errors,
        history,
        origins,
        horizon - skip,
        coverage,
    )
    total = path[:, skip:].sum(axis=1)
    return Forecast(path, total, np.maximum(total - half, 0.0), total + half)


def _candidates(history: Array, horizon: int) -> Array:
    """What each of the forecasters says: (forecasters, S, horizon)."""
    series, days = history.shape
    weeks = min(_WEEKS, days // WEEK)
    recent = history[:, days - weeks * WEEK :].reshape(series, weeks, WEEK)
    weekday = np.arange(horizon) % WEEK
    past_weekday = np.arange(weeks * WEEK) % WEEK
    flat = recent.reshape(series, -1)
    week_mean = recent.mean(axis=2, keepdims=True)

    relative = np.divide(recent, week_mean, out=np.ones_like(recent), where=week_mean > 0)
    index = _median_week(relative)
    index *= WEEK / np.maximum(index.sum(axis=1, keepdims=True), _NEGLIGIBLE)
    offset = _median_week(recent - week_mean)
    offset -= offset.mean(axis=1, keepdims=True)

    ratio_series = np.where(
        index[:, past_weekday] > _MIN_INDEX,
        flat / np.maximum(index[:, past_weekday], _MIN_INDEX),
        np.repeat(week_mean[:, :, 0], WEEK, axis=1),
    )
    offset_series = flat - offset[:, past_weekday]
    level = _smoothed(ratio_series)
    last_week = recent[:, -1]
    growth = np.divide(last_week.sum(axis=1), recent[:, -2].sum(axis=1), out=np.ones(series), where=recent[:, -2].sum(axis=1) > 0)
    month_of_weeks = recent[:, -4:]
    candidates = np.stack(
        [
            last_week[:, weekday],
            last_week[:, weekday] * np.clip(growth, *_RATIO_RANGE)[:, None],
            _median_week(month_of_weeks)[:, weekday],
            _median_week(month_of_weeks.mean(axis=2, keepdims=True)) * index[:, weekday],
            month_of_weeks.mean(axis=(1, 2))[:, None] * index[:, weekday],
            level[:, None] * index[:, weekday],
            (level[:, None] + _drift(ratio_series, horizon)) * index[:, weekday],
            _smoothed(offset_series)[:, None] + _drift(offset_series, horizon) + offset[:, weekday],
            np.repeat(_smoothed(flat)[:, None], horizon, axis=1),
        ]
    )
    at_least_zero: Array = np.maximum(candidates, 0.0)
    return at_least_zero


def _median_week(weeks: Array) -> Array:
    """The median of each weekday (S, days) over the weeks of each series (S, weeks, days); many times as fast as numpy's for so few values."""
    sorted_weeks = np.sort(np.ascontiguousarray(weeks.swapaxes(1, 2)), axis=2)
    count = sorted_weeks.shape[2]
    median: Array = (sorted_weeks[:, :, (count - 1) // 2] + sorted_weeks[:, :, count // 2]) / 2
    return median


def _smoothed(values: Array) -> Array:
    """The last level of each series by simple exponential smoothing, with the rate that foretold the series best day by day."""
    level = np.repeat(values[:, :1], len(_RATES), axis=1)
    error = np.zeros_like(level)
    for day in range(1, values.shape[1]):
        surprise = values[:, day : day + 1] - level
        error += np.abs(surprise)
        level += _RATES * surprise
    best: Array = level[np.arange(len(values)), error.argmin(axis=1)]
    return best


def _drift(values: Array, horizon: int) -> Array:
    """Half the slope of the line through each series, day by day ahead (S, horizon): the theta method's."""
    offsets = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slope = (values @ offsets) / (offsets @ offsets)
    drift: Array = 0.5 * slope[:, None] * np.arange(1, horizon + 1)
    return drift


def _weights(errors: Array, history: Array, without: int | None = None) -> Array:
    """Weights of the forecasters (forecasters, S) by their errors at each origin (origins, forecasters, S), `without` that of one."""
    age = _NEWER ** np.arange(len(errors))
    if without is not None and len(errors) > 1:
        age[without] = 0.0
    floor = history[:, -_LEVEL_DAYS:].mean(axis=1) * 1e-3 + _NEGLIGIBLE
    mean_error = np.tensordot(age / age.sum(), errors, axes=1) + floor
    weights: Array = mean_error**-_POWER
    weights /= weights.sum(axis=0)
    return weights


def _half_width(
    trial_sums: list[Array],
    actual_sums: list[Array],
    errors: Array,
    history: Array,
    origins: list[int],
    horizon: int,
    coverage: float,
) -> Array:
    """Half the width of the interval of each series' sum (S,).

    Each origin is forecast with weights that it had no part in; its miss counts as a share of the level before it. The quantile is the one of
    k + 1 misses, so that a share of at least `coverage` is held for series that go on as they were.
    """
    level = [np.maximum(history[:, max(0, o - _LEVEL_DAYS) : o].mean(axis=1) * horizon, _NEGLIGIBLE) for o in origins]
    misses = np.stack(
        [
            np.abs((_weights(errors, history, without=number) * sums).sum(axis=0) - actual) / scale
            for number, (sums, actual, scale) in enumerate(zip(trial_sums, actual_sums, level, strict=True))
        ]
    )
    rank = int(np.ceil((len(origins) + 1) * coverage))
    if rank > len(origins):
        return np.full(len(history), np.nan)
    half: Array = np.sort(misses, axis=0)[rank - 1] * history[:, -_LEVEL_DAYS:].mean(axis=1) * horizon
    return half
