"""Stores of the sizes that the limits of reports are held against: made up, and written by the store itself.

    big_store(Path("big"))          # 20 models x 10 tasks of 500 items each, and 3 sweeps
    single_store(Path("single"))    # one run of 2 models on the smoke suite's tasks

Models are registered ones, so that what is known of them is known here, too. Answers are drawn at random; all
models are asked the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from scored_runs import Samples, accuracy, choice_samples, task_record
from speed_records import Speeds, sweep
from stored import manifest
from stored_sweeps import store_sweep

from mambabench.fingerprint import digest
from mambabench.registry import load_registry
from mambabench.schema import CellRecord, ReadRecord
from mambabench.speed_schema import SweepKind
from mambabench.store import Store
from mambabench.suite import load_suite

SWEEPS: Final[tuple[SweepKind, ...]] = ("latency", "throughput", "memory")
LENGTHS_TOKENS: Final = (128, 512, 2048, 8192)
PROCESSES: Final = 3
_CHOICES: Final = 4
_QUESTION: Final = "What is said here is long enough to be a question that somebody would ask. "
_SMOKE: Final = ("mamba-tiny", "pythia-tiny")


def big_store(root: Path, *, models: int = 20, tasks: int = 10, items: int = 500) -> Path:
    """Write a zero-shot run a model and a sweep of each kind over all of them; return the store.

    Args:
        root: becomes the store.
        models: up to as many as the registry has.
        tasks: of each zero-shot run.
        items: of each task.
    """
    names = _models(models)
    asked = {f"task_{number:02}": items for number in range(tasks)}
    for number, name in enumerate(names):
        _zeroshot(root, [name], asked, skill=0.05 * number)
    for kind in SWEEPS:
        batch_sizes = (1, 8) if kind == "throughput" else (1,)
        records = sweep(
            kind, [_speeds(name, number) for number, name in enumerate(names)], prompt_lens=LENGTHS_TOKENS,
            batch_sizes=batch_sizes, processes=PROCESSES,
        )  # fmt: skip
        settings = {"batch_size": batch_sizes, "processes": PROCESSES}
        store_sweep(root / f"{kind}-all", records, settings=settings)
    return root


def single_store(root: Path, *, items: int = 100) -> Path:
    """Write one run of both bundled models on the tasks of the smoke suite; return the store."""
    suite = load_suite("smoke")
    asked = {task.task: items for task in suite.tasks}
    _zeroshot(root, _SMOKE, asked, suite="smoke")
    return root


def items_store(root: Path, *, items: int = 10_000, others: int = 500) -> Path:
    """Write runs of three models on a task with many items and one with fewer; return the store."""
    for number, name in enumerate(_models(3)):
        _zeroshot(root, [name], {"many": items, "few": others}, skill=0.2 * number)
    return root


def listed_store(root: Path, *, runs: int = 500) -> Path:
    """Write as many small zero-shot runs; return the store."""
    for number in range(runs):
        _zeroshot(root, [f"model-{number:03}"], {"piqa": 4})
    return root


def _models(n: int) -> list[str]:
    registered = [name for name in load_registry() if name not in _SMOKE and not name.endswith("-hf")]
    return registered[:n]


def _speeds(name: str, number: int) -> Speeds:
    spec = load_registry()[name]
    slower = 1 + 0.2 * number
    recurrent = spec.family.startswith("mamba")
    return Speeds(
        name=name,
        prefill_s=0.010 * slower,
        prefill_s_per_token=0.0008 * slower,
        token_s=0.02 * slower,
        token_s_per_depth=0.0 if recurrent else 6e-6,
        weights_bytes=500_000_000 * (number + 1),
        state_bytes=2_800_000 if recurrent else 0,
        kv_bytes_per_token=0 if recurrent else 73_728,
        attention="none" if recurrent else "sdpa",
        training_length_tokens=spec.training_length_tokens,
    )


def _zeroshot(
    root: Path, models: Sequence[str], asked: Mapping[str, int], *, skill: float = 0.0, suite: str = "made-up"
) -> Path:
    """Write a run of models on tasks with so many items; every other task has acc_norm, too."""
    metrics = {
        task: ("acc", "acc_norm") if place % 2 else ("acc",) for place, task in enumerate(asked)
    }  # fmt: skip
    described = manifest(
        f"zeroshot-{suite}-{'-'.join(models)}",
        models=tuple(models),
        suite=suite,
        identity=digest([list(models), sorted(asked)]),
        reads=tuple(ReadRecord(task=task, metrics=names) for task, names in metrics.items()),
    )
    with Store(root).open_run(described) as run:
        for place, (task, n) in enumerate(asked.items()):
            for number, model in enumerate(models):
                samples = _samples(n, place, model, skill + 0.3 * number, metrics[task])
                run.write_cell(
                    CellRecord(
                        fingerprint=digest([model, task]),
                        checkpoint_fingerprint=digest(model),
                        model=model,
                        task=task_record(task, n),
                        status="ok",
                        partial=False,
                        metrics=tuple(accuracy(samples, name) for name in metrics[task]),
                    ),
                    samples,
                )
        return run.path


def _samples(n: int, place: int, model: str, skill: float, metrics: Sequence[str]) -> Samples:
    """Draw answers: what is right and how hard it is by the task, how well it is told by the model."""
    items, own = np.random.default_rng(place), np.random.default_rng([place, *model.encode()])
    right = items.integers(0, _CHOICES, n)
    scores = items.normal(-6.0, 1.5, (n, _CHOICES)) + own.normal(0.0, 1.0, (n, _CHOICES))
    scores[np.arange(n), right] += 1.0 + skill
    scores = np.minimum(scores, -0.01)
    texts: dict[str, Any] = {"text": [f"{_QUESTION * 4}{i}" for i in range(n)]}
    samples = choice_samples(scores, [int(at) for at in right], prompt=f"{_QUESTION * 4}{{}}?", **texts)
    for sample, better in zip(samples, own.random(n), strict=True):
        sample["metrics"] = list(metrics)
        if "acc_norm" in metrics:
            sample["acc_norm"] = float(sample["acc"] if better < 0.9 else not sample["acc"])
    return samples
