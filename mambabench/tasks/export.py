"""A run as lm-eval itself would have written it: `results_*.json` and `samples_*.jsonl`.

Everything is read from the answers that the run kept; no model is asked. lm-eval computes its own
metrics and its own standard errors here, so that other tools find what they expect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.evaluator import evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.loggers.utils import add_env_info, add_tokenizer_info

from mambabench.tasks.evaluate import ChatOptions, requests_as_built

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from mambabench.tasks.lm_eval_backend import MambabenchLM

_BOOTSTRAP_ITERATIONS = 1000


def export_lm_eval(
    folder: Path,
    model_name: str,
    lm: MambabenchLM,
    tasks: Mapping[str, Task],
    *,
    limit: int | None,
    chat: ChatOptions,
    model_info: Mapping[str, Any],
) -> None:
    """Write one model's results and samples in lm-eval's format, replacing an earlier export.

    Args:
        folder: gets `<model_name>/results_<time>.json` and `<model_name>/samples_<task>_<time>.jsonl`.
        model_name: as the user named it.
        lm: answers every request from the store.
        tasks: by name, their requests built for this model.
        limit: the number of documents that the requests were built with.
        chat: what the requests were built with.
        model_info: what was loaded; goes into the results' "config".

    Raises:
        AnswersMissingError: when a task has not been finished.
        OSError: when the files cannot be written.
    """
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args(
        model_source="mambabench",
        model_args=f"pretrained={model_name}",
        system_instruction=chat.system_instruction,
        chat_template=lm.chat_template(True) if chat.apply_chat_template else None,
        fewshot_as_multiturn=chat.fewshot_as_multiturn,
    )
    with requests_as_built(tasks.values()):
        results = evaluate(
            lm=lm,
            task_dict={"tasks": dict(tasks)},
            limit=limit,
            bootstrap_iters=_BOOTSTRAP_ITERATIONS,
            log_samples=True,
            apply_chat_template=chat.apply_chat_template,
            system_instruction=chat.system_instruction,
            fewshot_as_multiturn=chat.fewshot_as_multiturn,
        )
    samples = results.pop("samples")
    results["config"] = {
        "model": "mambabench",
        "model_args": f"pretrained={model_name}",
        "limit": limit,
        "bootstrap_iters": _BOOTSTRAP_ITERATIONS,
        **model_info,
    }
    results["date"] = time.time()
    add_env_info(results)
    add_tokenizer_info(results, lm)
    target = folder / str(tracker.general_config_tracker.model_name_sanitized)
    earlier = [*target.glob("results_*.json"), *target.glob("samples_*.jsonl")]
    tracker.save_results_aggregated(results=results, samples=samples)
    for name, rows in samples.items():
        tracker.save_results_samples(task_name=name, samples=rows)
    # lm-eval logs a failure to write and goes on; a user who asked for files must hear of it.
    if not set(target.glob("results_*.json")) - set(earlier):
        raise OSError(f"lm-eval's results could not be written to {target}")
    for path in earlier:
        path.unlink()
