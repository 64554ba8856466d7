"""Columns of the frames over runs of several kinds."""

from __future__ import annotations

from typing import Final

from mambabench.frames.column import Column, flag, integer, number, text

FRAMES: Final[dict[str, tuple[str, tuple[Column, ...]]]] = {
    "quality_cost": (
        "One row for each model, quality, length and cost: what a model gives beside what it takes.",
        (
            text("label", "the model"),
            text("quality", "'average accuracy' or 'recall'"),
            number("quality_percent", "its value", "%"),
            number("quality_low_percent", "lower end of its 95% interval; missing where undetermined", "%"),
            number("quality_high_percent", "upper end", "%"),
            text("quality_run", "run that it is from"),
            integer("length_tokens", "of the recall samples and prompts; of accuracies that of the prompts",
                     "tokens"),
            text("cost", "a column of `speed`: tpot_s, ttft_s, peak_bytes, gross_j_per_token"),
            number("cost_value", "in the unit of that column"),
            number("cost_low", "lower end, as its method says"),
            number("cost_high", "upper end"),
            text("cost_run", "run that it is from"),
            text("setting", "batch, prompt, generated tokens, dtype and device in a phrase; equal where "
                  "models compete"),
            flag("on_front", "whether no other model of the setting gives as much for less"),
            text("way", "of executing the model, its fastest: arm, and attention if it has any"),
            text("cost_method", "of the ends: 't on log', 'range' or 'single'"),
        ),
    ),
    "warnings": (
        "One row for each thing that limits what the runs say.",
        (
            text("run", "name of the run's directory; empty if it is about several"),
            text("label", "the model; empty if it is about all"),
            text("severity", "'wrong': a figure is missing or unusable; 'doubt': it may mislead; 'note'"),
            text("about", "kind of warning, of a closed list"),
            text("text", "one sentence"),
            text("advice", "the way out"),
            integer("n", "how many rows or cells it is about"),
        ),
    ),
    "findings": (
        "One row for each sentence that follows from the figures of a run or of several.",
        (
            text("run", "name of the run's directory; empty if it is about several"),
            text("kind", "of the run, 'comparison' or 'quality and cost'"),
            text("text", "one sentence"),
        ),
    ),
}  # fmt: skip
