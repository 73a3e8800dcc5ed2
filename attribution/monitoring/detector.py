"""How unlike its own past the newest stretch of a series is: a seasonal residual, scored by its mean over hours against its own record of days.

A single point says little, since bursts are ordinary. So the logarithm of how far each point lies off what the season leads to expect is averaged
over a short window, and that mean is compared with the mean and spread that such means had over a long window before (the idea of Numenta's
anomaly likelihood). A floor keeps flat series from ringing at every cent. Figures on the Numenta Anomaly Benchmark: bench/nab.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEASON_DAYS: Final = 14
"""Days before whose values at the same time of day say what is expected."""
NORMAL: Final = 1.4826
"""Ratio of standard deviation to median absolute deviation, for normal noise."""
_TINY: Final = 1e-12
_CLIP: Final = 6.0


@dataclass(frozen=True, slots=True)
class Window:
    """A short window in hours, which is scored, and the long one in days that it is compared with."""

    hours: float
    days: float


WINDOWS: Final = (Window(1, 7), Window(2, 14))
"""The score is the mean of those of these windows: one is quick, one is calm."""


def scores(values: Array, points_per_day: int, *, floor: float = 0.0, windows: tuple[Window, ...] = WINDOWS) -> Array:
    """Scores of a series without gaps, one a point, each from the point and what was before it; 0 where too little is known.

    >>> day = np.concatenate([np.full(12, 1.0), np.full(12, 9.0)])
    >>> quiet = np.tile(day, 21) + np.sin(np.arange(504)) / 10
    >>> loud = quiet.copy(); loud[-3:] += 40
    >>> bool(scores(loud, 24)[-3:].max() > 2 * scores(quiet, 24).max())
    True
    """
    residual_sizes = surprise(values, points_per_day, floor)
    parts = [_against_record(residual_sizes, points_per_day, window) for window in windows]
    return np.mean(parts, axis=0)  # type: ignore[no-any-return]


def expected(values: Array, points_per_day: int) -> Array:
    """What the season leads to expect: the median of the same time of day over the days before; before there are three, of all points of the last day."""
    length = len(values)
    padded_days = -(-length // points_per_day)
    grid = np.full(padded_days * points_per_day, np.nan)
    grid[:length] = values
    by_day = grid.reshape(padded_days, points_per_day)
    result = np.empty_like(by_day)
    for day in range(padded_days):
        if day < 3:
            result[day] = np.nan
            continue
        result[day] = np.median(by_day[max(0, day - SEASON_DAYS) : day], axis=0)
    flat = result.reshape(-1)[:length]
    fallback = _trailing_median(values, min(points_per_day, length))
    return np.where(np.isnan(flat), fallback, flat)


def surprise(values: Array, points_per_day: int, floor: float = 0.0) -> Array:
    """log(1 + z), where z is how far a point lies off what is expected, in units of the residuals' own spread over the days before."""
    residuals = np.abs(values - expected(values, points_per_day))
    window = SEASON_DAYS * points_per_day
    spread = NORMAL * _trailing_median(residuals, window, step=max(1, points_per_day // 24))
    level = _trailing_mean(np.abs(values), window)
    high = _trailing_quantile(residuals, window, 0.9, step=max(1, points_per_day // 24))
    unit = np.maximum.reduce([spread, level * 0.1 + high, np.full(len(values), max(floor, _TINY))])
    return np.log1p(residuals / unit)  # type: ignore[no-any-return]


def _against_record(sizes: Array, points_per_day: int, window: Window) -> Array:
    short = max(1, round(window.hours * points_per_day / 24))
    long = max(short + 1, round(window.days * points_per_day))
    window_means = _trailing_mean(sizes, short, is_inclusive=True)
    mean = _trailing_mean(window_means, long)
    square = _trailing_mean(window_means**2, long)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    score = (window_means - mean) / np.maximum(deviation, 0.02)
    score[: min(len(score), 3 * points_per_day)] = 0.0
    return np.maximum(score, 0.0)


def _trailing_mean(values: Array, window: int, *, is_inclusive: bool = False) -> Array:
    """Mean of up to `window` points before each, or up to and with it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1) if is_inclusive else np.arange(len(values))
    start = np.maximum(end - window, 0)
    count = end - start
    sums = total[end] - total[start]
    return np.where(count > 0, sums / np.maximum(count, 1), values[0] if len(values) else 0.0)


def _trailing_median(values: Array, window: int, *, step: int = 1) -> Array:
    return _trailing_quantile(values, window, 0.5, step=step)


def _trailing_quantile(values: Array, window: int, share: float, *, step: int = 1) -> Array:
    """Quantile of up to `window` points before each; computed at every `step`-th point, and kept until the next."""
    length = len(values)
    result = np.empty(length)
    for start in range(0, length, step):
        past = values[max(0, start - window) : start]
        result[start : start + step] = np.quantile(past, share) if len(past) else values[0]
    return result


def level_shift(values: Array, *, season: int = 7, threshold: float = 6.0) -> int | None:
    """Where the level of a daily series has shifted and stayed: the first point of the new level; None if nowhere.

    Binary segmentation of the logarithms with the weekday taken out; the scale comes from differences, so a shift cannot hide itself.

    >>> week, later_week = [10.0, 11, 10, 9, 10, 11, 10], [16.0, 15, 16, 17, 16, 15, 16]
    >>> level_shift(np.array(week * 2 + later_week * 2)), level_shift(np.full(28, 5.0))
    (14, None)
    """
    length = len(values)
    if length < 2 * season:
        return None
    logs = np.log1p(np.maximum(values, 0.0))
    for weekday in range(season):
        differences = logs[weekday::season]
        logs[weekday::season] = logs[weekday::season] - np.median(differences)
    scale = NORMAL * float(np.median(np.abs(np.diff(logs)))) / np.sqrt(2.0)
    scale = max(scale, 0.03)
    cleaned_logs = np.clip(logs / scale, -_CLIP + np.median(logs) / scale, _CLIP + np.median(logs) / scale)
    sums = np.cumsum(cleaned_logs)
    left_lengths = np.arange(season, length - season + 1)
    left_mean, right_mean = sums[left_lengths - 1] / left_lengths, (sums[-1] - sums[left_lengths - 1]) / (length - left_lengths)
    weights = np.sqrt(left_lengths * (length - left_lengths) / length)
    strength = np.abs(right_mean - left_mean) * weights
    best = int(np.argmax(strength))
    return int(left_lengths[best]) if strength[best] > threshold else None
