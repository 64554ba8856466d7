"""Comparisons that were never made, from known differences, for tests of tables and figures.

    comparison(n_tasks=6, differences={"ft-lr5e-5": 3.0, "ft-lr5e-4": -12.0})

Differences of a task scatter around those given, in the same way each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mambabench.compare.result import (
    Calibration,
    CalibrationBin,
    CategoryChange,
    CompareOptions,
    Comparison,
    Contrast,
    Family,
    Overall,
    Rank,
    Ranking,
    Shift,
    Side,
    TaskChanges,
    Verdict,
)

LABELS = ("HellaSwag", "PIQA", "ARC-E", "ARC-C", "WinoGrande", "OpenBookQA")
TWO = {"ft-lr5e-5": 3.1, "ft-lr5e-4": -12.3}


def side(label: str, **changes: Any) -> Side:
    return replace(
        Side(label, label, Path(f"results/{label}"), "zeroshot", has_samples=True, partial=False), **changes
    )


def contrast(candidate: str = "tuned", **changes: Any) -> Contrast:
    """Return a contrast of 200 items; an interval and a verdict follow from the difference."""
    known, n = changes.pop("difference", 3.0), changes.get("n", 200)
    difference = known or 0.0
    error = changes.pop("error", 2.2 * math.sqrt(200 / n))
    p = math.erfc(abs(difference) / error / math.sqrt(2))
    verdict: Verdict = "not distinguishable"
    if p < 0.05:
        verdict = "better" if difference > 0 else "worse"
    made = Contrast(
        candidate=candidate, task="hellaswag", label="HellaSwag", measure="acc_norm", headline=True,
        family="tasks", unit="%", effect_unit="pt", higher_is_better=True, paired=True, n=n, n_candidate=n,
        n_total=n, baseline_value=42.0, candidate_value=42.0 + difference, difference=known,
        low=difference - 1.96 * error, high=difference + 1.96 * error, interval_method="score",
        test="exact McNemar", p_value=p, p_adjusted=min(1.0, 2 * p), n_won=max(0, round(10 + difference)),
        n_lost=max(0, round(10 - difference)), n_clusters=None, cluster_name="", margin=1.0,
        p_equivalence=0.6, p_equivalence_adjusted=0.9, detectable=2.8 * error,
        n_needed=math.ceil(n * (2.8 * error) ** 2), verdict=verdict,
    )  # fmt: skip
    return replace(made, **changes)


def overall(candidate: str, found: Sequence[Contrast], **changes: Any) -> Overall:
    difference = float(np.mean([c.difference or 0.0 for c in found]))
    error = 2.2 / math.sqrt(len(found))
    verdict: Verdict = "not distinguishable"
    p = math.erfc(abs(difference) / error / math.sqrt(2))
    if p < 0.05:
        verdict = "better" if difference > 0 else "worse"
    made = Overall(
        candidate=candidate, n_tasks=len(found), baseline_value=42.0, candidate_value=42.0 + difference,
        difference=difference, low=difference - 1.96 * error, high=difference + 1.96 * error, p_value=p,
        p_adjusted=p, p_equivalence=0.5, p_equivalence_adjusted=0.5, detectable=2.8 * error, verdict=verdict,
        method="mean of independent differences",
    )  # fmt: skip
    return replace(made, **changes)


def shift(candidate: str = "tuned", **changes: Any) -> Shift:
    made = Shift(
        candidate=candidate, task="hellaswag", member="hellaswag", doc_id=17, change="lost",
        baseline_value=1.0, candidate_value=0.0, baseline_log_likelihood=-12.25,
        candidate_log_likelihood=-31.5, text="Roof shingle removal: A man is sitting on a roof. He",
        right_answer="starts pulling up roofing.", baseline_answer="starts pulling up roofing.",
        candidate_answer="is using wrap to wrap a pair of skis.",
    )  # fmt: skip
    return replace(made, **changes)


def calibration(
    side: str, task: str = "hellaswag", label: str = "HellaSwag", over: float = 0.05
) -> Calibration:
    """Return bins in which confidence is so far above accuracy."""
    bins = tuple(
        CalibrationBin(low / 10, (low + 1) / 10, n, low / 10 + 0.05, max(0.0, low / 10 + 0.05 - over))
        for low, n in zip(range(2, 10), (5, 30, 40, 45, 35, 25, 15, 5), strict=True)
    )
    n = sum(b.n for b in bins)
    confidence = sum(b.n * b.mean_confidence for b in bins) / n
    accuracy = sum(b.n * b.accuracy for b in bins) / n
    return Calibration(side, task, label, n, accuracy, confidence, abs(over), 0.0, abs(over) + 0.03, bins)


def comparison(
    n_tasks: int = 6, differences: Mapping[str, float] | None = None, *, n: int = 200, **changes: Any
) -> Comparison:
    """Return a comparison of candidates on tasks, everything filled in.

    Args:
        n_tasks: the first six have names of real ones.
        differences: mean one of each candidate, in points.
        n: items of a task.
        changes: of the comparison.
    """
    wanted = TWO if differences is None else differences
    rng = np.random.default_rng(5)
    contrasts: list[Contrast] = []
    changed: list[TaskChanges] = []
    for place in range(n_tasks):
        label = LABELS[place] if place < len(LABELS) else f"Task {place + 1}"
        task = label.lower().replace(" ", "_")
        start = float(rng.uniform(28, 70))
        for measure in ("acc_norm", "log-likelihood"):
            for name, mean in wanted.items():
                d = mean + float(rng.normal(0, 2))
                one = contrast(
                    name,
                    task=task,
                    label=label,
                    difference=d,
                    baseline_value=start,
                    candidate_value=start + d,
                    n=n,
                )
                if measure == "log-likelihood":
                    one = replace(
                        one, measure=measure, headline=False, family="log-likelihoods", unit="nats",
                        effect_unit="nats", baseline_value=-30.2, candidate_value=-30.2 + d / 40,
                        difference=d / 40, low=d / 40 - 0.04, high=d / 40 + 0.04, n_won=None, n_lost=None,
                        test="paired t", interval_method="t", detectable=0.057, margin=0.01,
                    )  # fmt: skip
                contrasts.append(one)
        for name, mean in wanted.items():
            changed.append(
                TaskChanges(
                    name, task, label, n, 12, 9,
                    won=(shift(name, task=task, member=task, change="won", doc_id=place),),
                    lost=(shift(name, task=task, member=task, doc_id=50 + place),),
                    shifts=(shift(name, task=task, member=task, change="shift", doc_id=99),),
                    categories=tuple(
                        CategoryChange(
                            name, task, "answer length", f"{10 * k}-{10 * k + 9} bytes", n // 4, 3, 2 + k,
                            42.0, 42.0 + mean - k, mean - k, mean - k - 4.0, mean - k + 4.0,
                        )
                        for k in range(4)
                    ),
                )
            )  # fmt: skip
    headlines = [c for c in contrasts if c.headline]
    made = Comparison(
        baseline=side("base"),
        candidates=tuple(side(name) for name in wanted),
        title=f"base against {len(wanted)} on {n_tasks} tasks",
        contrasts=tuple(contrasts),
        overall=tuple(overall(name, [c for c in headlines if c.candidate == name]) for name in wanted)
        if n_tasks > 1
        else (),
        families=(
            Family("tasks", n_tasks * len(wanted), "holm", 0.05),
            Family("log-likelihoods", n_tasks * len(wanted), "holm", 0.05),
            *([Family("overall", len(wanted), "holm", 0.05)] if n_tasks > 1 else []),
        ),
        changes=tuple(changed),
        calibrations=tuple(
            calibration(name, c.task, c.label, over)
            for c in headlines[:: len(wanted)]
            for name, over in zip(("base", *wanted), (0.02, 0.05, 0.15, -0.05, 0.1), strict=False)
        ),
        ranking=Ranking(
            tuple(
                Rank(name, 0.6 - 0.1 * i, 0.55 - 0.1 * i, 0.65 - 0.1 * i, i + 1, (i + 1,))
                for i, name in enumerate(("base", *wanted))
            ),
            n * n_tasks, 120, tuple(c.task for c in headlines[:: len(wanted)]), 1000,
            "Bradley and Terry over items",
        ),
        options=CompareOptions(),
    )  # fmt: skip
    return replace(made, **changes)
