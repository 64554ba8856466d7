"""Frames made by hand, of any mixture of results, for what is built of frames alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pandas as pd

from mambabench.frames.columns import frame
from mambabench.frames.speed_columns import ESTIMATES
from mambabench.report.format import Rows

NASTY = "<script>alert(1)</script> | & % $ _ # { } \\ ~ ^ \x1b[31m\u202e\ud800 ´ 模型, \"q\" 'x'"
"""A name with all that some format takes for its own."""
Made = dict[str, list[dict[str, Any]]]


class MadeFrames:
    """What has frames by name; those without rows are empty."""

    def __init__(self, made: Made) -> None:
        self.made = made

    def frame(self, name: str) -> pd.DataFrame:
        return frame(name, self.made.get(name, []))


def rows_of(made: Made) -> Rows:
    return Rows(MadeFrames(made))


def scores(labels: Sequence[str], tasks: Sequence[str], *, seed: int = 0, references: bool = True) -> Made:
    """Scores with a second metric each, a failed cell, a partial one, and their averages."""
    draw = random.Random(seed)
    found, averages = [], []
    for label in labels:
        values = []
        for i, task in enumerate(tasks):
            value = draw.uniform(20, 90)
            failed = label == labels[0] and i == len(tasks) - 1 and len(tasks) > 2
            row = {
                "run": f"run of {label}", "label": label, "model": label, "suite": "made", "task": task,
                "task_label": f"{task} label", "metric": "acc", "filter": "none", "headline": True,
                "value": None if failed else value, "unit": "%", "interval_low": value - draw.uniform(1, 5),
                "interval_high": value + draw.uniform(1, 5), "n_items": 200,
                "n_items_total": 1000 if i else 200,
                "chance": 25.0, "verdict": "failed" if failed else "no reference", "higher_is_better": True,
                "n_fewshot": 0, "error": f"it broke on {task}" if failed else "", "in_average": not failed,
            }  # fmt: skip
            if references and not failed and i < 3:
                row |= {
                    "reference": value - 0.123 * (i + 1), "reference_source": "a paper",
                    "difference": 0.123 * (i + 1), "verdict": ("reproduced", "reproduced", "differs")[i],
                }  # fmt: skip
            found.append(row)
            values += [] if failed else [value]
            perplexity = draw.choice([3.456789e6, 12.345678, float("inf")])
            found.append(
                row | {
                    "metric": "perplexity", "headline": False, "value": perplexity, "unit": "ppl",
                    "interval_low": None, "interval_high": None, "higher_is_better": False, "reference": None,
                    "difference": None, "verdict": "no reference", "error": "", "chance": None,
                    "in_average": False,
                }
            )  # fmt: skip
        averages.append(
            {"run": f"run of {label}", "label": label, "model": label, "suite": "made",
             "value": sum(values) / len(values), "n_tasks": len(values)}
        )  # fmt: skip
    return {"scores": found, "averages": averages}


def contrast(
    candidate: str, task: str, verdict: str, difference: float | None, **more: Any
) -> dict[str, Any]:
    """One contrast of accuracies with the baseline "base"."""
    known = difference is not None
    middle = difference or 0.0
    return {
        "baseline": "base", "candidate": candidate, "task": task, "task_label": task, "measure": "acc",
        "headline": task != "overall", "family": "overall" if task == "overall" else "tasks", "unit": "%",
        "effect_unit": "pt", "baseline_value": 51.23, "candidate_value": 51.23 + middle,
        "difference": difference, "interval_low": middle - 2.04 if known else None,
        "interval_high": middle + 2.04 if known else None, "test": "exact McNemar",
        "p_value": 0.0123 if known else None, "p_adjusted": 0.0246 if known else None, "n_items": 500,
        "n_won": 40, "n_lost": 23, "paired": True, "margin": 1.0, "verdict": verdict, **more,
    }  # fmt: skip


def contrasts(candidates: Sequence[str], tasks: Sequence[str], *, seed: int = 0) -> Made:
    """Contrasts of every verdict, with the mean over tasks and log-likelihoods."""
    draw = random.Random(seed)
    verdicts = ("better", "worse", "equivalent", "not distinguishable", "not tested")
    found = []
    for i, candidate in enumerate(candidates):
        for j, task in enumerate([*tasks, "overall"]):
            verdict = verdicts[(i + j) % len(verdicts)]
            difference = None if verdict == "not tested" else draw.uniform(-9, 9)
            found.append(contrast(candidate, task, verdict, difference))
            if task != "overall":
                found.append(
                    contrast(
                        candidate, task, "better", draw.uniform(0, 0.1), measure="log-likelihood",
                        family="log-likelihoods", headline=False, unit="nats", effect_unit="nats", n_won=None,
                        n_lost=None, p_adjusted=0.00012,
                    )
                )  # fmt: skip
    return {"contrasts": found}


def steps(series: Sequence[str], numbers: Sequence[int], tasks: Sequence[str]) -> Made:
    """Values that rise to the step before the last."""
    found = []
    for name in series:
        for task in tasks:
            for i, step in enumerate(numbers):
                best = i == max(0, len(numbers) - 2)
                value = 30 + i * 1.234 + best * 5
                found.append(
                    {
                        "series": name, "step": step, "label": f"{name}@{step}", "task": task,
                        "task_label": task, "metric": "acc", "headline": True, "value": value, "unit": "%",
                        "interval_low": value - 2, "interval_high": value + 2, "n_items": 100,
                        "chance": 25.0, "best": best, "contender": i >= len(numbers) - 3,
                    }
                )  # fmt: skip
    return {"steps": found}


def lengths(labels: Sequence[str], numbers: Sequence[int], tasks: Sequence[str], *, seed: int = 0) -> Made:
    """Recall, its means with costs, effective contexts and losses by context."""
    draw = random.Random(seed)
    made: Made = {"recall": [], "recall_means": [], "effective_contexts": [], "context_losses": []}
    for i, label in enumerate(labels):
        who = {"run": "long", "label": label, "model": label}
        for length in numbers:
            past = length > numbers[0]
            for task in tasks:
                failed = task == tasks[-1] and length == numbers[-1] and not i
                value = draw.uniform(20, 100)
                made["recall"].append(
                    {
                        **who, "task": task, "length_tokens": length,
                        "status": "failed" if failed else "ok", "detail": "out of memory" if failed else "",
                        "metric": "" if failed else "accuracy", "value": None if failed else value,
                        "unit": "%", "interval_low": None if failed else value - 10,
                        "interval_high": None if failed else value + 10, "n_questions": 40, "chance": 25.0,
                        "past_training_length": past,
                    }
                )  # fmt: skip
            value = draw.uniform(20, 100)
            made["recall_means"].append(
                {
                    **who, "length_tokens": length, "accuracy": value, "interval_low": value - 3,
                    "interval_high": value + 3, "n": 100, "n_tasks": len(tasks), "loss_nats": 2.3456,
                    "bits_per_byte": 0.87654, "ttft_s": draw.uniform(1e-4, 20),
                    "tpot_s": draw.uniform(1e-7, 1),
                    "peak_bytes": draw.uniform(1e6, 1e11), "state_bytes": 12345678, "flags": "few samples",
                }
            )  # fmt: skip
            made["context_losses"].append(
                {
                    **who, "corpus": "book", "context_tokens": length, "status": "ok", "loss_nats": 2.34567,
                    "loss_nats_low": 2.1234, "loss_nats_high": 2.5678, "past_training_length": past,
                }
            )  # fmt: skip
        for task in (*tasks, "mean"):
            made["effective_contexts"].append(
                {
                    **who, "task": task, "headline": True, "rule": "90% of short",
                    "length_tokens": numbers[i % len(numbers)], "length_low_tokens": numbers[0],
                    "length_high_tokens": None if i % 2 else numbers[-1], "ever_above_chance": i % 3 != 2,
                }
            )  # fmt: skip
    return made


def texts(labels: Sequence[str]) -> Made:
    """Perplexities and losses by position of one text; the last of several models failed."""
    made: Made = {"perplexities": [], "position_losses": []}
    for i, label in enumerate(labels):
        who = {"run": "text", "label": label, "model": label, "corpus": "book", "context": "whole documents"}
        if i and i == len(labels) - 1:
            made["perplexities"].append(who | {"status": "failed", "detail": "broke", "metric": ""})
            continue
        for metric, value in (("bits_per_byte", 0.98765 + i), ("word_perplexity", 1.2345e7)):
            made["perplexities"].append(
                who | {"status": "ok", "metric": metric, "value": value, "n_documents": 3, "n_tokens": 12345,
                       "n_bytes": 54321, "partial": i == 1, "past_training_length": True}
            )  # fmt: skip
        for first in (0, 1, 128):
            made["position_losses"].append(
                who | {"first_token": first, "end_token": max(1, 2 * first), "loss_nats": 5.4321 - first / 99,
                       "loss_nats_low": 1.0, "loss_nats_high": 9.0, "n_tokens": 9, "n_documents": 3}
            )  # fmt: skip
    return made


def point(label: str, prompt: int, batch: int = 1, kind: str = "latency", **more: Any) -> dict[str, Any]:
    """One point of a sweep without figures."""
    return {
        "run": kind, "label": label, "model": label, "kind": kind, "arm": "eager", "attention": "sdpa",
        "dtype": "float32", "device": "cpu", "batch_size": batch, "prompt_len_tokens": prompt,
        "gen_len_tokens": 16, "status": "ok", "detail": "", "flags": "", "fastest": True,
        "past_training_length": False, "n_processes": 6, "n_repeats": 6, **more,
    }  # fmt: skip


def sweep(
    kind: str, labels: Sequence[str], prompts: Sequence[int], batches: Sequence[int] = (1,), *, seed: int = 0
) -> Made:
    """Points of a sweep with figures, intervals and ranges; the last of the first model ran out of memory."""
    draw = random.Random(seed)
    made: Made = {"speed": [], "speed_ratios": [], "ceilings": []}
    for label in labels:
        for prompt in prompts:
            for batch in batches:
                row = point(label, prompt, batch, kind, flags="outliers; busy machine")
                if label == labels[0] and (prompt, batch) == (prompts[-1], batches[-1]) and len(labels) > 1:
                    row |= {"status": "oom", "detail": "cannot allocate", "requested_bytes": 3 * 10**9}
                else:
                    for name in ESTIMATES:
                        value = 10 ** draw.uniform(-6, 2) * (1e9 if "bytes" in name else 1)
                        row |= {
                            name: value, f"{name}_low": value * 0.98, f"{name}_high": value * 1.03,
                            f"{name}_method": draw.choice(["t on log", "range"]),
                        }  # fmt: skip
                    row |= {"weights_bytes": 123456789, "state_bytes": 987654, "transient_bytes": 3}
                made["speed"].append(row)
    for first, second in [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]:
        for prompt in prompts:
            for figure in ("ttft_s", "tpot_s", "peak_bytes"):
                ratio = 10 ** draw.uniform(-3, 3)
                made["speed_ratios"].append(
                    {
                        "run": kind, "kind": kind, "first": first, "second": second, "figure": figure,
                        "batch_size": 1, "prompt_len_tokens": prompt, "gen_len_tokens": 16, "ratio": ratio,
                        "ratio_low": ratio * 0.9, "ratio_high": ratio * 1.2, "method": "t on log",
                        "n_pairs": 6,
                    }
                )  # fmt: skip
    made["ceilings"].append(
        {"run": kind, "device": "cpu", "device_name": "a processor", "dtype": "float32", "round": 0,
         "copy_bytes_per_s": 1.2345e10, "matmul_flops_per_s": 9.8765e10, "load_average": 0.25}
    )  # fmt: skip
    return made


def conversation(labels: Sequence[str], histories: Sequence[int]) -> Made:
    found = [
        {
            "run": "talk", "label": label, "model": label, "history_tokens": history, "turn_len_tokens": 64,
            "n_forks": 4, "operation": operation, "time_s": 0.0123 * i, "time_low_s": 0.011 * i,
            "time_high_s": 0.014 * i, "n_processes": 3, "state_bytes": 777777, "forked_state_bytes": 888888,
            "certified": True,
        }
        for label in labels
        for history in histories
        for i, operation in enumerate(("resume", "prefill_again", "fork", "rewind"), 1)
    ]  # fmt: skip
    return {"conversation": found}


def costs(labels: Sequence[str], numbers: Sequence[int]) -> Made:
    found = [
        {
            "label": label, "quality": quality, "quality_percent": 50.123 + i, "quality_low_percent": 45.678,
            "quality_high_percent": 60.987, "quality_run": "a", "length_tokens": length, "cost": cost,
            "cost_value": value, "cost_low": value * 0.9, "cost_high": value * 1.1, "cost_run": "b",
            "setting": f"batch 1, prompt of {length:,} tokens, float32, cpu", "on_front": not i,
        }
        for quality in ("average accuracy", "recall")
        for i, label in enumerate(labels)
        for length in numbers
        for cost, value in (("tpot_s", 0.01234), ("peak_bytes", 1.2345e9))
    ]  # fmt: skip
    return {"quality_cost": found}


def made_runs(labels: Sequence[str]) -> Made:
    """Runs and checkpoints, one of them unreadable, with warnings and findings."""
    found: list[dict[str, Any]] = [
        {
            "run": f"run of {label}", "kind": "zeroshot", "state": "complete", "suite": "made",
            "models": label, "command": f"mambabench zeroshot --model '{label}'",
            "created_utc": "2026-01-02T03:04:05", "mambabench": "0.1.0", "torch": "2.9",
            "device_name": "a GPU", "host": "Linux", "identity": "ab" * 32, "settings": "{}",
            "n_results": 12, "n_failed": 0,
            "size_bytes": 123456,
        }
        for label in labels
    ]  # fmt: skip
    found.append({"run": "broken", "state": "unreadable", "problem": "run.json is damaged"})
    checkpoints = [
        {
            "run": f"run of {label}", "label": label, "model": label, "family": "mamba",
            "weights": "pretrained", "device": "cpu", "dtype": "float32", "n_parameters": 129135360,
            "weights_sha256": "cd" * 32, "config_sha256": "ef" * 32, "certificate_ratio": 1.2345,
            "certificate_bar": 1.5, "certificate_passed": True,
        }
        for label in labels
    ]  # fmt: skip
    warnings: list[dict[str, Any]] = [
        {"run": "", "label": "", "severity": "note", "about": "imported", "text": "A note.", "advice": "-"},
        {"run": "broken", "label": "", "severity": "wrong", "about": "unreadable run",
         "text": "The run cannot be read.", "advice": "Run it again.", "n": 1},
        *({"run": "", "label": label, "severity": "doubt", "about": "few items", "text": "Few items.",
           "advice": "Take more.", "n": 3} for label in labels),
    ]  # fmt: skip
    sentences = [{"run": "", "kind": "latency", "text": f"Sentence {i}."} for i in range(30)]
    return {"runs": found, "checkpoints": checkpoints, "warnings": warnings, "findings": sentences}


def mixed(labels: Sequence[str], n_tasks: int = 3) -> Made:
    """Everything at once."""
    tasks = [f"task{i}" for i in range(n_tasks)]
    made: Made = {}
    for part in (
        scores(labels, tasks), contrasts(list(labels[1:]), tasks), steps(["ft"], (0, 10, 20, 30), tasks[:2]),
        lengths(labels, (256, 512, 1024), ("needle", "pairs")), texts(labels), made_runs(labels),
        sweep("latency", labels, (128, 1024, 4096)), sweep("throughput", labels, (128,), (1, 8, 64)),
        sweep("memory", labels, (128, 4096)), conversation(labels, (512, 2048)), costs(labels, (128, 1024)),
    ):  # fmt: skip
        for name, rows in part.items():
            made[name] = [*made.get(name, []), *rows]
    return made
