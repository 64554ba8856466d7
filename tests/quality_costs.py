"""Frames `quality_cost` that nobody measured, for tests of figures and for looking at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from mambabench.frames.columns import frame

COSTS = ("tpot_s", "ttft_s", "peak_bytes", "gross_j_per_token")


def quality_costs(
    labels: Sequence[str] = ("small", "middle", "large", "wasteful"),
    lengths: Sequence[int] = (512, 2048, 8192),
    *,
    quality: str = "average accuracy",
    costs: Sequence[str] = COSTS,
    setting: str = "batch 1, prompt of {:,} tokens, 64 generated, float32, cpu",
    **changes: Any,
) -> pd.DataFrame:
    """Return models that get better and dearer one after the other, the last one as good as the first."""
    rows: list[dict[str, Any]] = []
    for place, label in enumerate(labels):
        wasteful = place == len(labels) - 1 > 0
        for length in lengths:
            value = 40.0 + 3 * (0 if wasteful else place)
            value -= math.log2(length / lengths[0]) if quality == "recall" else 0
            for cost in costs:
                spent = (place + 1.5) * (length / lengths[0]) ** (0.9 if cost == "ttft_s" else 0.1)
                spent *= 1e9 if cost == "peak_bytes" else 1e-3
                rows.append(
                    {
                        "label": label, "quality": quality, "quality_percent": value,
                        "quality_low_percent": value - 1, "quality_high_percent": value + 1,
                        "length_tokens": length, "cost": cost, "cost_value": spent, "cost_low": 0.9 * spent,
                        "cost_high": 1.1 * spent, "setting": setting.format(length), "on_front": not wasteful,
                        **changes,
                    }
                )  # fmt: skip
    return frame("quality_cost", rows)
