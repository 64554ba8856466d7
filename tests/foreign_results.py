"""Results files of lm-eval as its versions wrote them, small and by hand.

`write(folder, "0.4.2")` and later versions hold the same items of the same tasks:
`t_mc` (four choices), `t_gen` (one answer, scored behind two filters) and `t_ppl` (a log-likelihood each).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import Any

TIME = "2024-05-01T10-00-00.123456"
RIGHT = [1, 0, 1, 1]
LOG_LIKELIHOODS = [-1.5, -0.25, -3.0, -2.0]
SAMPLES = {"t_mc": 1, "t_gen": 2, "t_ppl": 1}
"""Filters of each task."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rows(task: str) -> list[dict[str, Any]]:
    """Return a task's samples as lm-eval holds them in memory, digests included."""
    found = []
    for number in range(4):
        found += [{**_row(task, number), "filter": f, **v} for f, v in _scores(task, number).items()]
    # lm-eval goes through the filters one by one.
    return sorted(found, key=lambda row: [*_scores(task, 0)].index(row["filter"]))


def _scores(task: str, number: int) -> dict[str, dict[str, Any]]:
    right = RIGHT[number]
    if task == "t_gen":
        strict = {"exact_match": float(right and number != 0), "metrics": ["exact_match"]}
        return {"strict": strict, "loose": {"exact_match": float(right), "metrics": ["exact_match"]}}
    if task == "t_ppl":
        value = LOG_LIKELIHOODS[number]
        return {"none": {"perplexity": value, "acc": right, "metrics": ["perplexity", "acc"]}}
    return {"none": {"acc": float(right), "acc_norm": float(1 - right), "metrics": ["acc", "acc_norm"]}}


def _row(task: str, number: int) -> dict[str, Any]:
    document = {"question": f"Wie heißt {number}?", "choices": ["a", "b"], "label": number % 2}
    context = f"Q: {document['question']}"
    target: Any = f"{number}"
    if task == "t_mc":
        arguments: list[Any] = [[context, f" {c}"] for c in ("a", "b")]
        answers: list[Any] = [[[-1.25 - number, False]], [[-2.5, True]]]
        target = number % 2
    elif task == "t_gen":
        arguments = [[context, {"until": ["\n"]}]]
        answers = [["0.5"]]
    else:
        arguments = [[context, f" {number}"]]
        answers = [[[LOG_LIKELIHOODS[number], bool(RIGHT[number])]]]
    return {
        "doc_id": number,
        "doc": document,
        "target": target,
        "arguments": arguments,
        "resps": answers,
        "filtered_resps": [answer[0] for answer in answers],
        "doc_hash": digest(json.dumps(document, indent=2, ensure_ascii=False)),
        "prompt_hash": digest(context),
        "target_hash": digest(str(target)),
    }


def results(model: str = "org/small", *, version: str = "0.4.8") -> dict[str, Any]:
    """Return a results file's content."""
    scored = {task: rows(task) for task in SAMPLES}
    kinds = {"t_mc": "multiple_choice", "t_gen": "generate_until", "t_ppl": "loglikelihood"}
    metrics = {"t_mc": ["acc", "acc_norm"], "t_gen": ["exact_match"], "t_ppl": ["perplexity", "acc"]}
    table: dict[str, dict[str, Any]] = {}
    for task, mine in scored.items():
        table[task] = {"alias": task}
        for name in dict.fromkeys(row["filter"] for row in mine):
            for metric in metrics[task]:
                values = [row[metric] for row in mine if row["filter"] == name]
                mean = sum(values) / len(values)
                table[task][f"{metric},{name}"] = math.exp(-mean) if metric == "perplexity" else mean
                table[task][f"{metric}_stderr,{name}"] = (
                    "N/A" if metric == "perplexity" else math.sqrt(mean * (1 - mean) / (len(values) - 1))
                )
    content: dict[str, Any] = {
        "results": table,
        "configs": {
            task: {
                "task": task,
                "output_type": kinds[task],
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": m, "aggregation": "perplexity" if m == "perplexity" else "mean"}
                    for m in metrics[task]
                ],
            }
            for task in scored
        },
        "versions": dict.fromkeys(scored, 1.0),
        "n-shot": dict.fromkeys(scored, 0),
        "config": {"model": "hf", "model_args": f"pretrained={model}", "limit": None},
    }
    if version >= "0.4.3":
        content |= {
            "n-samples": {task: {"original": 4, "effective": 4} for task in scored},
            "higher_is_better": {task: {m: m != "perplexity" for m in metrics[task]} for task in scored},
            "date": 1_714_550_400.0,
            "lm_eval_version": version,
            "model_name": model,
        }
    if version >= "0.4.4":
        content["task_hashes"] = {
            task: digest("".join(r["doc_hash"] + r["prompt_hash"] + r["target_hash"] for r in mine))
            for task, mine in scored.items()
        }
    return content


def _texts(value: Any) -> Any:
    return [_texts(item) for item in value] if isinstance(value, list) else str(value)


def line(row: dict[str, Any], version: str) -> dict[str, Any]:
    """Return a sample as a version writes it."""
    row = copy.deepcopy(row)
    if version <= "0.4.4":
        del row["filter"], row["metrics"]
    if version <= "0.4.2":
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            del row[name]
        return row
    parts = [{f"arg_{j}": part for j, part in enumerate(one)} for one in row["arguments"]]
    row["arguments"] = {f"gen_args_{i}": one for i, one in enumerate(parts)}
    row["resps"], row["filtered_resps"] = _texts(row["resps"]), _texts(row["filtered_resps"])
    if version >= "0.4.5":
        row["target"] = str(row["target"])
    return row


def write(
    folder: Path,
    version: str = "0.4.8",
    *,
    model: str = "org/small",
    time: str = TIME,
    content: dict[str, Any] | None = None,
    samples: bool = True,
) -> Path:
    """Write an output folder as a version lays it out; return the results file."""
    content = content or results(model, version=version)
    if version <= "0.4.2":
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "results.json"
        for task in SAMPLES if samples else ():
            name = f"pretrained__{model.replace('/', '__')}_{task}.jsonl"
            (folder / name).write_text(json.dumps([line(r, version) for r in rows(task)], indent=2))
    else:
        inside = folder / model.replace("/", "__")
        inside.mkdir(parents=True, exist_ok=True)
        path = inside / f"results_{time}.json"
        for task in SAMPLES if samples else ():
            lines = [json.dumps(line(r, version), ensure_ascii=False) for r in rows(task)]
            (inside / f"samples_{task}_{time}.jsonl").write_text("\n".join(lines) + "\n")
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False))
    return path


def old(pretrained: str, revision: str, **more: Any) -> dict[str, Any]:
    """Return the content of a results file of a version before 0.4."""
    results = {
        "piqa": shares(1838, acc=1000, acc_norm=990),
        "lambada_openai": {**shares(5153, acc=1700), "ppl": 38.25, "ppl_stderr": 1.5},
        "hendrycksTest-anatomy": shares(135, acc=30, acc_norm=40),
    }
    return {
        "results": results,
        "versions": dict.fromkeys(results, 0),
        "config": {
            "model": "hf-causal",
            "model_args": f"use_accelerate=True,pretrained={pretrained},revision={revision}",
            "num_fewshot": 0,
            "limit": None,
            "description_dict": {},
            **more,
        },
    }


def shares(n: int, **right: int) -> dict[str, float]:
    """Return metrics of n items with their standard errors, as lm-eval computes them."""
    found: dict[str, float] = {}
    for metric, count in right.items():
        share = count / n
        found |= {metric: share, f"{metric}_stderr": math.sqrt(share * (1 - share) / (n - 1))}
    return found
