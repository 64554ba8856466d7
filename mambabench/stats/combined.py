"""Several independent differences together, and tests that need no more than a difference and its error.

overall = average_effect([hellaswag, piqa, arc])
equivalence_from(overall, 0.01)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mambabench.stats.effect import Effect

Margin = float | tuple[float, float]
"""Half its width, above 0, or both ends with 0 between them."""


def average_effect(effects: Sequence[Effect], confidence: float = 0.95) -> Effect:
    """Return the mean of independent differences, each counting the same.

    Errors add in squares, and the degrees of freedom are F. E. Satterthwaite's (1946), Biometrics Bulletin 2,
    110-114. A difference's error is no less than what its interval says: without any discordant pair a
    standard error would be 0, while an exact interval knows how many could have been missed.

    Args:
        effects: of different items, at least one.
        confidence: that of the effects' intervals, and of the one returned.

    Returns:
        An effect with `determined` False if one of them is undetermined.

    Raises:
        ValueError: no effects.
    """
    check_confidence(confidence)
    if not effects:
        raise ValueError("expected at least one effect")
    m = len(effects)
    difference = math.fsum(effect.difference for effect in effects) / m
    n = sum(effect.n for effect in effects)
    n_clusters = None
    if any(effect.n_clusters is not None for effect in effects):
        n_clusters = sum(effect.n if effect.n_clusters is None else effect.n_clusters for effect in effects)
    errors = [_error(effect, confidence) for effect in effects]
    method = "t on the mean of tasks"
    if not all(map(math.isfinite, errors)):
        nothing = (difference, -math.inf, math.inf, method, "t of the mean of tasks", 1.0, math.nan)
        return Effect(*nothing, n, n_clusters, determined=False)
    squares = math.fsum(error**2 for error in errors)
    df = squares**2 / math.fsum(
        error**4 / _degrees_of_freedom(effect) for error, effect in zip(errors, effects, strict=True)
    )
    error = math.sqrt(squares) / m
    half = quantile(confidence, df) * error
    return Effect(
        difference,
        difference - half,
        difference + half,
        method,
        "t of the mean of tasks",
        two_sided(difference / error, df),
        error,
        n,
        n_clusters,
        degrees_of_freedom=df,
    )


def equivalence_from(effect: Effect, margin: Margin, confidence: float = 0.95) -> float:
    """Return the p-value of a difference that is not within the margin, from an effect alone.

    Two one-sided tests, of Student on the effect's degrees of freedom, normal where it has none. The error is
    no less than what the effect's interval says.

    Args:
        effect: any; 1 is returned for an undetermined one.
        margin: half its width, or both ends.
        confidence: that of the effect's interval.

    Raises:
        ValueError: a margin without 0 inside.
    """
    low, high = ends_of(margin)
    error = _error(effect, confidence)
    if not math.isfinite(error):
        return 1.0
    return two_one_sided(effect.difference, error, effect.degrees_of_freedom, low, high)


def ends_of(margin: Margin) -> tuple[float, float]:
    """Return the ends of a margin.

    Raises:
        ValueError: 0 is not inside.
    """
    low, high = margin if isinstance(margin, tuple) else (-margin, margin)
    if not low < 0 < high:
        raise ValueError(f"0 must lie inside the margin, which goes from {low} to {high}")
    return low, high


def two_one_sided(difference: float, error: float, df: float | None, low: float, high: float) -> float:
    """Return the larger p-value of "below low" and "above high": D. J. Schuirmann (1987).

    Args:
        difference: in the unit of the margin.
        error: its standard error, above 0.
        df: degrees of freedom, None for a normal one.
        low: end of the margin.
        high: the other one.
    """
    return max(_below((low - difference) / error, df), _below((difference - high) / error, df))


def two_sided(t: float, df: float | None) -> float:
    """Return the two-sided p-value of a difference over its error."""
    return min(1.0, 2 * _below(-abs(t), df))


def quantile(confidence: float, df: float | None) -> float:
    """Return how many standard errors an interval reaches to each side."""
    from scipy.special import ndtri, stdtrit

    upper = 0.5 + confidence / 2
    return float(ndtri(upper) if df is None else stdtrit(df, upper))


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence.

    Raises:
        ValueError: not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")


def _below(t: float, df: float | None) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(t) if df is None else stdtr(df, t))


def _error(effect: Effect, confidence: float) -> float:
    """Return the standard error that both the effect's own and its interval allow; NaN for none."""
    if not (effect.determined and math.isfinite(effect.difference)):
        return math.nan
    reach = (effect.high - effect.low) / 2 / quantile(confidence, effect.degrees_of_freedom)
    own = effect.standard_error if math.isfinite(effect.standard_error) else 0.0
    error = max(own, reach)
    return error if error > 0 else math.nan


def _degrees_of_freedom(effect: Effect) -> float:
    if effect.degrees_of_freedom is not None:
        return effect.degrees_of_freedom
    units = effect.n if effect.n_clusters is None else effect.n_clusters
    return max(1.0, units - 1.0)
