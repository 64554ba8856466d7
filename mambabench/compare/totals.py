"""Comparing what only values are known of: nothing is paired, so that errors are larger.

Counts of right items are compared as counts. Of everything else the error is had back from the interval that
came with the value; half of one of Student's at few items is more than 1.96 errors, which is the safe side.

    outcome = unpaired_outcome(candidate_record, baseline_record)
    outcome.effect.test
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mambabench.compare.effects import Outcome
from mambabench.compare.scales import scale_of

if TYPE_CHECKING:
    from mambabench.compare.items import MeasureKind
    from mambabench.schema import MetricRecord, Unit

FROM_ERROR: Final = "from standard error"
"""Method of an interval that a program's standard error was made into: 1.96 of it to each side."""
_ERRORS: Final = 1.96
_WHOLE: Final = 1e-6
_COUNTED: Final = ("wilson", "pooled wilson", FROM_ERROR)
_KINDS: Final[dict[str, MeasureKind]] = {"perplexity": "log mean", "bits_per_byte": "ratio"}


def kind_of(unit: Unit) -> MeasureKind:
    """Return how a value of a unit comes about, as far as its scale is concerned."""
    return _KINDS.get(unit, "mean")


def unpaired_outcome(candidate: MetricRecord, baseline: MetricRecord) -> Outcome:
    """Compare two values of one metric over items that need not be the same."""
    from mambabench.stats.combined import equivalence_from
    from mambabench.stats.unpaired import unpaired_binary, unpaired_errors

    kind = kind_of(baseline.unit)
    plain = Outcome(
        unit=baseline.unit,
        kind=kind,
        higher_is_better=baseline.higher_is_better,
        baseline_value=baseline.value,
        candidate_value=candidate.value,
    )
    if (candidate.unit, candidate.higher_is_better) != (baseline.unit, baseline.higher_is_better):
        return replace(plain, why_not=f"the sides do not mean the same by {baseline.metric}")
    right = _count(candidate), _count(baseline)
    if right[0] is not None and right[1] is not None:
        effect = unpaired_binary(right[0], candidate.n, right[1], baseline.n)
    else:
        errors = _tested_error(candidate), _tested_error(baseline)
        if errors[0] is None or errors[1] is None:
            return replace(
                plain, why_not=f"neither items nor a standard error of {baseline.metric} are known"
            )
        scale = scale_of(baseline.unit, kind)
        values = scale.tested(candidate.value), scale.tested(baseline.value)
        effect = unpaired_errors(values[0], errors[0], values[1], errors[1], n=baseline.n)
    return replace(plain, effect=effect, equivalence=lambda margin: equivalence_from(effect, margin))


def _count(record: MetricRecord) -> int | None:
    """Return how many items are right, None where the value is no share of so many."""
    if record.unit != "fraction" or record.n < 1 or record.interval_method not in _COUNTED:
        return None
    count = round(record.value * record.n)
    near = math.isclose(record.value * record.n, count, rel_tol=_WHOLE, abs_tol=_WHOLE)
    return count if near and 0 <= count <= record.n else None


def _tested_error(record: MetricRecord) -> float | None:
    """Return the standard error in the tested unit, None where none is known."""
    low, high = record.interval_low, record.interval_high
    if low is None or high is None or (record.unit == "perplexity" and record.value <= 0):
        return None
    scale = scale_of(record.unit, kind_of(record.unit))
    if record.unit == "perplexity" and (record.interval_method == FROM_ERROR or low <= 0):
        # The error is the perplexity's own; that of its logarithm is smaller by its value.
        error = (high - record.value) / _ERRORS / record.value
    else:
        centre = scale.tested(record.value)
        # An interval cut at an end of the scale shows its width on the other side.
        error = max(abs(scale.tested(end) - centre) for end in (low, high)) / _ERRORS
    return error if math.isfinite(error) and error > 0 else None
