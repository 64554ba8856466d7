"""The headline of zero-shot evaluation: a checkpoint of mamba-1.4b's sizes, and both engines on it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_contest import Contest, hold
from make_checkpoint import transformers_twin, write_large, write_small
from task_data import made_up, subjects_there, task_folder, tasks_there

if TYPE_CHECKING:
    from checks import Figures

MODEL = "mamba-1.4b"
N_SUBJECTS = 6
WORKED_EXAMPLES = 5
TARGETS = {"engine_vs_lm_eval": (2.0, 2.5), "mmlu_vs_lm_eval": (5.0, 8.0)}
"""How many times as fast ours must be at least, and should be."""
STANDINS = "MAMBABENCH_TEST_MAMBA_SSM"
"""Names a folder with mamba_ssm's Python code, which a rehearsal runs with its compiled parts replaced."""
_REHEARSED_DOCUMENTS = 3


def make_checkpoint(figures: Figures, options: argparse.Namespace) -> None:
    """Write the checkpoint that both engines load."""
    began_s = time.perf_counter()
    directory = checkpoint(options)
    size = (directory / "pytorch_model.bin").stat().st_size
    figures.add(checkpoint=directory.name, bytes=size, write_s=time.perf_counter() - began_s)


def checkpoint(options: argparse.Namespace) -> Path:
    """Return the directory of the checkpoint: the one given, or a random one, made on first use."""
    if options.rehearse:
        return write_small(options.work / "checkpoints" / "small", hidden_size=64, n_layers=2)
    if options.checkpoint is not None:
        return Path(options.checkpoint)
    if options.tokenizer is None:
        sys.exit("the checkpoint needs GPT-NeoX's tokenizer: give --tokenizer DIR")
    return write_large(options.work / "checkpoints" / f"{MODEL}-random", MODEL, options.tokenizer)


def engine_vs_lm_eval(figures: Figures, options: argparse.Namespace) -> None:
    """Time and compare both engines on HellaSwag, PIQA, ARC-Easy and LAMBADA."""
    data = _data(options)
    _hold(figures, options, data, tuple((task,) for task in tasks_there(data)), None)


def mmlu_vs_lm_eval(figures: Figures, options: argparse.Namespace) -> None:
    """Time and compare both engines on some subjects of MMLU with five worked examples."""
    data = _data(options)
    most = 2 if options.rehearse else N_SUBJECTS
    _hold(figures, options, data, (tuple(subjects_there(data, most)),), WORKED_EXAMPLES)


def _data(options: argparse.Namespace) -> Path:
    if options.data is not None:
        return task_folder(options.data)
    return made_up(options.work / "made-up-data")


def _hold(
    figures: Figures, options: argparse.Namespace, data: Path, units: tuple[tuple[str, ...], ...],
    num_fewshot: int | None,
) -> None:  # fmt: skip
    at_least, aim = TARGETS[options.check]
    model = checkpoint(options)
    more: dict[str, Any] = {}
    if options.rehearse:
        more = {"sizes": (1, 2), "slice_requests": 4, "budgets": (None, 2**30), "blocks": 1}
    given = {
        "units": units,
        "num_fewshot": num_fewshot,
        "model": model,
        "twin": model,
        "data": data,
        "work": options.work / "runs" / options.check,
        "device": "cpu" if options.rehearse else "cuda",
        "dtype": "float32" if options.rehearse else "bfloat16",
        "backend": "mamba_ssm",
        "standins": standins() if options.rehearse else None,
        "seconds": options.seconds,
        "documents": _REHEARSED_DOCUMENTS if options.rehearse else options.documents,
    }
    if options.rehearse and given["standins"] is None:
        given |= {"backend": "hf", "twin": transformers_twin(model)}
    figures.add(
        checkpoint=model.name, weights="given" if options.checkpoint else "random", num_fewshot=num_fewshot,
        dtype=given["dtype"], backend=given["backend"], at_least=at_least, aim=aim, tasks=units,
    )  # fmt: skip
    if not hold(Contest(**given, **more), figures.add):
        sys.exit("not shown to be as exact as lm-eval: see 'agreement' or 'reference_failed'")


def standins() -> str | None:
    """Return the folder of mamba_ssm's Python code that a rehearsal was given; "" if it is installed."""
    if importlib.util.find_spec("mamba_ssm") is not None:
        return ""
    folder = os.environ.get(STANDINS, "")
    return folder if Path(folder, "mamba_ssm").is_dir() else None
