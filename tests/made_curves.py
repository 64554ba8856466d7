"""Curves that were never measured, for tests of tables and figures.

made_curves(series=("160m", "410m"), n_tasks=5, steps=(0, 1, 2, 4, 1000, 143000))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mambabench.compare.curves_result import OVERALL, BestStep, Curve, CurvePoint, Curves, StepChange

DOUBLING = (0, *(2**i for i in range(10)), 1000, 3000, *range(13_000, 153_000, 10_000))
"""The 27 steps at which Pythia was evaluated."""
LABELS = ("LAMBADA", "PIQA", "ARC-E", "ARC-C", "WinoGrande", "HellaSwag", "SciQ")


def made_curve(
    series: str = "160m",
    place: int = 0,
    *,
    steps: Sequence[int] = DOUBLING,
    paired: bool = True,
    **changes: Any,
) -> Curve:
    """Return a curve that rises to its best at three quarters of the steps and falls a little."""
    unit = changes.get("unit", "%")
    peak = 3 * (len(steps) - 1) // 4
    points = []
    for at, step in enumerate(steps):
        height = min(at, peak) / max(1, peak) - 0.12 * max(0, at - peak) / len(steps)
        value = 25 + (20 + 5 * place) * height if unit == "%" else 10 ** (6 - 5 * height)
        half = 2.0 if unit == "%" else 0.1 * value
        points.append(
            CurvePoint(
                step, f"{series}@step{step}", value, value - half, value + half, 1000,
                p_value=None if at == peak else 0.6 if abs(at - peak) < 3 else 1e-6,
                contender=abs(at - peak) < 3, share_best=float(at == peak) if paired else None,
            )
        )  # fmt: skip
    best = points[peak]
    fields: dict[str, Any] = {
        "series": series, "task": f"task_{place}", "label": LABELS[place % len(LABELS)], "metric": "acc",
        "headline": True, "unit": "%", "effect_unit": "pt", "higher_is_better": True, "chance": 25.0,
        "n": 1000, "n_total": 1000, "paired": paired, "points": tuple(points),
        "best": BestStep(
            best.step, best.value, (best.step,), tuple(p.step for p in points if p.contender), paired,
            best.value - 0.7, 0.7,
        ),
        "change": StepChange(steps[0], steps[-1], 18.2, 15.1, 21.3, 1e-9, "exact McNemar"),
    }  # fmt: skip
    return Curve(**{**fields, **changes})


def made_curves(
    *,
    series: Sequence[str] = ("160m", "410m", "1.4b"),
    n_tasks: int = 5,
    steps: Sequence[int] = DOUBLING,
    paired: bool = True,
    remarks: tuple[str, ...] = (),
) -> Curves:
    """Return curves of some tasks with their mean, the second task a perplexity."""
    found = []
    for name in series:
        if n_tasks > 1:
            found.append(
                made_curve(
                    name, 0, steps=steps, paired=paired, task=OVERALL, label=f"mean of {n_tasks} tasks",
                    metric="accuracy", chance=None, n_tasks=n_tasks,
                )
            )  # fmt: skip
        for place in range(n_tasks):
            changes: dict[str, Any] = {}
            if place == 1:
                changes = {
                    "unit": "ppl", "effect_unit": "%", "higher_is_better": False, "metric": "perplexity",
                    "chance": None,
                }  # fmt: skip
            found.append(made_curve(name, place, steps=steps, paired=paired, **changes))
    return Curves(tuple(series), tuple(found), 0.05, 2000, remarks)
