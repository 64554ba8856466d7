"""Frames as sweeps and evaluations give them, for tests of advice.

advise(frames(speed=[timed("m", 1000, 100)]), FACTS, Wish(1000, 100))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mambabench.advise.advise import FRAMES
from mambabench.advise.facts import RunFacts
from mambabench.advise.rows import Row, speed_rows
from mambabench.frames.columns import frame

GB = 10**9
FACTS = {
    "sweep": RunFacts(kind="latency", processor="a processor", memory_bytes=24 * GB, weights="pretrained"),
    "long": RunFacts(kind="longcontext", processor="a processor", memory_bytes=24 * GB),
    "zero": RunFacts(kind="zeroshot", processor="a processor", memory_bytes=24 * GB),
}


def timed(model: str, prompt_len: int, gen_len: int, batch: int = 1, **given: Any) -> dict[str, Any]:
    """Return a row of frame `speed`; figures are given as value, or as (low, value, high)."""
    row: dict[str, Any] = {
        "run": "sweep", "label": model, "model": model, "kind": "latency", "arm": "eager",
        "attention": "none", "dtype": "float32", "device": "cpu", "batch_size": batch,
        "prompt_len_tokens": prompt_len, "gen_len_tokens": gen_len, "status": "ok", "detail": "",
        "flags": "", "n_processes": 6, "ttft_s": 0.1, "tpot_s": 0.01, "peak_bytes": 2 * GB,
        "weights_bytes": GB, "training_length_tokens": 100_000,
    } | given  # fmt: skip
    method = row.pop("method", "t on log")
    for name in ("ttft_s", "tpot_s", "peak_bytes"):
        value = row[name]
        low, middle, high = value if isinstance(value, tuple) else (value, value, value)
        row |= {name: middle, f"{name}_low": low, f"{name}_high": high, f"{name}_method": method}
    return row


def failed(
    model: str, status: str, prompt_len: int, gen_len: int, batch: int = 1, **given: Any
) -> dict[str, Any]:
    """Return a row of a point that left no figures."""
    none = {"ttft_s": None, "tpot_s": None, "peak_bytes": None, "weights_bytes": None, "n_processes": 1}
    return timed(model, prompt_len, gen_len, batch, **none, **{"status": status, **given})


def recalled(
    model: str, length: int, low: float | None, value: float | None, high: float | None, **given: Any
) -> dict[str, Any]:
    """Return a row of frame `recall_means`."""
    return {
        "run": "long", "label": model, "model": model, "length_tokens": length, "accuracy": value,
        "interval_low": low, "interval_high": high, "n": 100, "n_tasks": 1, "flags": "",
    } | given  # fmt: skip


def task(model: str, length: int, value: float | None, name: str = "needle", **given: Any) -> dict[str, Any]:
    """Return a row of frame `recall`, of accuracy."""
    return {
        "run": "long", "label": model, "model": model, "task": name, "length_tokens": length,
        "status": "ok", "metric": "accuracy", "value": value, "unit": "%", "interval_low": value,
        "interval_high": value, "n_questions": 50, "n_samples": 50, "past_training_length": False,
    } | given  # fmt: skip


def scored(model: str, *values: tuple[float, float, float], **given: Any) -> list[dict[str, Any]]:
    """Return rows of frame `scores`, one task for each (low, value, high)."""
    return [
        {
            "run": "zero", "label": model, "model": model, "suite": "smoke", "task": f"task{number}",
            "metric": "acc", "headline": True, "value": value, "unit": "%", "interval_low": low,
            "interval_high": high, "n_items": 100, "n_items_total": 100, "in_average": True,
        } | given
        for number, (low, value, high) in enumerate(values)
    ]  # fmt: skip


def averaged(model: str, value: float, n_tasks: int = 1, **given: Any) -> dict[str, Any]:
    """Return a row of frame `averages`."""
    return {
        "run": "zero", "label": model, "model": model, "suite": "smoke", "value": value, "n_tasks": n_tasks,
    } | given  # fmt: skip


def frames(**rows: Sequence[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return all frames that an advice follows from; those not given have no rows."""
    return {name: frame(name, rows.get(name, ())) for name in FRAMES}


def rows_of(*rows: dict[str, Any]) -> list[Row]:
    """Return the rows of a sweep as advice reads them."""
    return speed_rows(frame("speed", rows), FACTS)
