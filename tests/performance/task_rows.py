"""Tasks answered by `lm_eval --model hf` and by mambabench: time, tokens, logit rows and memory of both.

    python tests/performance/speed.py --row mamba-130m/hellaswag ...

Each side runs in a fresh process, in the environment that its own command line gives it, over the same
checkpoint and the same rows. Timed is what lies between built requests and answers; both are warmed up with
some documents, and take turns. lm-eval runs with its best batch size, searched beforehand on part of
the documents in a process of its own, and with its logits cache, which saves it three of MMLU's four
forwards. Memory is the peak above imports, rows and weights, seen from outside.

The answers must agree within 1e-3 + 1e-6 times their size. lm-eval counts the rows that only pad the
vocabulary as possible tokens, so a further pass of ours, which is not timed, counts them, too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from performance import tables
from performance.children import Child, our_environment, their_environment

SIZES = (1, 8, 32, 64)
SEARCH_DOCUMENTS = 8
WARM_DOCUMENTS = 2
QUICK_DOCUMENTS = 3
OUR_REPEATS = 3
AGAIN_BELOW_S = 40.0
"""lm-eval's time up to which a row is timed once more."""
_WORSE = 1.15
"""A batch size that takes so much longer a token ends the search."""
_MEMORY_SHARE = 0.4
"""Of the free memory, for lm-eval's logits and their softmax."""


@dataclass(frozen=True)
class Row:
    """What is compared, and the targets.

    Args:
        model: name in the registry.
        title: of the task.
        tasks: lm-eval's names with the number of worked examples; null for the task's own.
        documents: of each task.
        at_least: how many times as fast ours must be.
        aim: how many times it should be.
    """

    model: str
    title: str
    tasks: tuple[tuple[str, int | None], ...]
    documents: int
    at_least: float
    aim: float


_HELLASWAG = (("hellaswag", None),)
# Of the 57 subjects, those whose prompts with five examples are of median length.
_MMLU = (("mmlu_elementary_mathematics", 5), ("mmlu_moral_disputes", 5))

ROWS = {
    f"{row.model}/{row.tasks[0][0].split('_')[0]}": row
    for row in (
        Row("mamba-130m", "HellaSwag, 40 documents", _HELLASWAG, 40, 8, 12),
        Row("mamba-130m", "MMLU 5-shot, 40 questions of 2 subjects", _MMLU, 20, 20, 30),
        Row("mamba-130m", "ARC-E, 60 documents", (("arc_easy", None),), 60, 7, 10),
        Row("mamba-130m", "PIQA, 60 documents", (("piqa", None),), 60, 4.5, 6),
        Row("mamba-130m", "LAMBADA, 100 documents", (("lambada_openai", None),), 100, 3.5, 5),
        Row("mamba2-130m", "HellaSwag, 40 documents", _HELLASWAG, 40, 7, 10),
        Row("mamba2-130m", "MMLU 5-shot, 40 questions of 2 subjects", _MMLU, 20, 15, 25),
        Row("pythia-160m", "HellaSwag, 40 documents", _HELLASWAG, 40, 2, 2.5),
        Row("pythia-160m", "MMLU 5-shot, 40 questions of 2 subjects", _MMLU, 20, 5, 6),
    )
}
"""Rows by name, such as "mamba-130m/hellaswag"."""


def side(which: str) -> Child:
    """Start one side, "ours" or "lm-eval"; it waits for its setting."""
    environment = our_environment() if which == "ours" else their_environment()
    return Child([sys.executable, str(Path(__file__).with_name("sides.py")), which], environment)


def setting(row: Row, data: str, quick: bool) -> dict[str, Any]:
    """Return the request that tells a side its row; the model's directory comes with it."""
    documents = QUICK_DOCUMENTS if quick else row.documents
    return {"do": "load", "tasks": row.tasks, "documents": documents, "data_dir": data}


def measure(row: Row, model: str, data: str, *, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure a row and return its figures as JSON values.

    Args:
        row: what to compare.
        model: directory of the checkpoint.
        data: as `--data-dir` takes it.
        quick: few documents, no repeats.
        say: told of the progress.
    """
    given = setting(row, data, quick)
    with side("ours") as ours, side("lm-eval") as theirs:
        with side("lm-eval") as searched:
            everyone = (ours, theirs, searched)
            for child in everyone:
                child.send(**given, model=model)
            loaded, *_ = [child.hear() for child in everyone]
            ours.memory.start()
            theirs.memory.start()
            facts = ours.ask(do="facts") | loaded
            sizes = SIZES[:2] if quick else SIZES
            size, search = best_batch_size(
                sizes, facts, lambda request: searched.ask(do="answer", **request), say
            )
        timed = _in_turns(ours, theirs, size, quick, say)
        memory = {"lm-eval": theirs.memory.above_bytes, "ours": ours.memory.above_bytes}
        padded = ours.ask(do="answer", padded=True)["answers"]
    difference, disagreeing = compare(padded, timed["lm-eval"][0]["answers"])
    if disagreeing:
        say(f"DISAGREEMENT: {disagreeing} of {len(padded)} answers, by up to {difference:.2g}")
    return {
        **facts,
        **{f"{who}_s": [run["wall_s"] for run in runs] for who, runs in timed.items()},
        **{f"{who}_tokens": runs[0]["tokens"] for who, runs in timed.items()},
        **{f"{who}_logit_rows": runs[0]["logit_rows"] for who, runs in timed.items()},
        **{f"{who}_memory_bytes": n for who, n in memory.items()},
        "batch_size": size,
        "search": search,
        "difference": difference,
        "disagreeing": disagreeing,
        "agrees": not disagreeing,
    }


def _in_turns(
    ours: Child, theirs: Child, size: int, quick: bool, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Let both sides answer everything in turns, so that a change of the machine's load touches both."""
    ours.ask(do="answer", documents=WARM_DOCUMENTS)
    theirs.ask(do="answer", documents=WARM_DOCUMENTS, batch_size=size)
    timed: dict[str, list[dict[str, Any]]] = {"ours": [], "lm-eval": []}
    for i in range(1 if quick else OUR_REPEATS):
        timed["ours"].append(ours.ask(do="answer"))
        say(f"mambabench: {timed['ours'][-1]['wall_s']:.2f} s")
        if i == 0 or (i == 1 and timed["lm-eval"][0]["wall_s"] < AGAIN_BELOW_S):
            timed["lm-eval"].append(theirs.ask(do="answer", batch_size=size))
            say(f"lm-eval: {timed['lm-eval'][-1]['wall_s']:.2f} s, batch size {size}")
    return timed


def best_batch_size(
    sizes: Sequence[int],
    facts: dict[str, Any],
    answer: Callable[[dict[str, Any]], dict[str, Any]],
    say: Callable[[str], None],
) -> tuple[int, list[dict[str, Any]]]:
    """Return lm-eval's fastest batch size on part of the documents, and what each took.

    A batch size is tried on enough documents to fill a batch. Since these differ, times are compared by
    request.

    Args:
        sizes: to be tried, increasing; the search ends early where larger ones only get slower.
        facts: "documents", "forwards", "longest_tokens" and "vocab_rows" of the row.
        answer: asks lm-eval's side.
        say: told of the progress.
    """
    free_bytes = psutil.virtual_memory().available
    forwards_each = facts["forwards"] / facts["documents"]
    answer({"documents": WARM_DOCUMENTS, "batch_size": sizes[0]})
    tried: list[dict[str, Any]] = []
    for size in sizes:
        needed = 2 * 4 * size * facts["longest_tokens"] * facts["vocab_rows"]
        if tried and needed > _MEMORY_SHARE * free_bytes:
            say(f"batch size {size} left out: its logits take {tables.mib(needed)}")
            break
        documents = min(facts["documents"], max(SEARCH_DOCUMENTS, math.ceil(size / forwards_each)))
        found = answer({"documents": documents, "batch_size": size})
        each_s = found["wall_s"] / len(found["answers"])
        tried.append({"size": size, "documents": documents, "wall_s": found["wall_s"], "each_s": each_s})
        say(f"lm-eval, batch size {size}: {each_s:.3f} s a request ({documents} documents)")
        if each_s > _WORSE * min(t["each_s"] for t in tried):
            break
        if size >= facts["forwards"]:
            break
    best = min(tried, key=lambda t: float(t["each_s"]))
    return int(best["size"]), tried


def compare(ours: Sequence[Sequence[Any]], theirs: Sequence[Sequence[Any]]) -> tuple[float, int]:
    """Return the largest difference of log-likelihoods, and how many answers differ by more than allowed.

    >>> compare([[-1.0, True], [-2.0, False]], [[-1.0005, True], [-2.5, False]])
    (0.5, 1)
    """
    pairs = list(zip(ours, theirs, strict=True))
    differences = [abs(a[0] - b[0]) for a, b in pairs]
    wrong = sum(
        # A difference that is no number is no agreement either.
        not d <= 1e-3 + 1e-6 * abs(b[0]) or a[1] != b[1]
        for d, (a, b) in zip(differences, pairs, strict=True)
    )
    return max(differences), wrong


_TIME = (
    "model, task", "requests", "lm-eval (batch)", "mambabench", "times as fast", "at least", "aim", "met",
    "max. difference",
)  # fmt: skip
_WORK = (
    "model, task", "tokens: lm-eval", "ours", "minimum", "ours / minimum (at most 1.10)",
    "logit rows: lm-eval", "ours", "read", "peak memory: lm-eval", "ours", "ours / lm-eval (HellaSwag: 0.5)",
)  # fmt: skip


def report(rows: dict[str, Any]) -> list[str]:
    """Return the two tables of rows: times, then tokens, logit rows and memory."""
    times, work, searches = [], [], []
    for name, f in rows.items():
        row = ROWS[name]
        title = f"{row.model}, {row.title}"
        ratio = median(f["lm-eval_s"]) / median(f["ours_s"])
        times.append(
            [
                title,
                f"{f['requests']}",
                f"{tables.seconds(f['lm-eval_s'])} ({f['batch_size']})",
                tables.seconds(f["ours_s"]),
                tables.ratio(f["lm-eval_s"], f["ours_s"]),
                f"{row.at_least:g}",
                f"{row.aim:g}",
                "aim" if ratio >= row.aim else "yes" if ratio >= row.at_least else "no",
                f"{f['difference']:.1g}" + ("" if f["agrees"] else f": {f['disagreeing']} DISAGREE"),
            ]
        )
        memory = [f["lm-eval_memory_bytes"], f["ours_memory_bytes"]]
        work.append(
            [
                title,
                *(f"{n:,}" for n in (f["lm-eval_tokens"], f["ours_tokens"], f["tokens_minimum"])),
                f"{f['ours_tokens'] / f['tokens_minimum']:.3f}",
                *(f"{n:,}" for n in (f["lm-eval_logit_rows"], f["ours_logit_rows"], f["rows_read"])),
                *map(tables.mib, memory),
                f"{memory[1] / max(1, memory[0]):.2f}",
            ]
        )
        found = ", ".join(f"{t['size']}: {t['each_s']:.3f} s" for t in f["search"])
        searches.append(f"- {title}: {found}")
    return [
        tables.markdown(_TIME, times),
        tables.markdown(_WORK, work),
        "lm-eval's seconds a request by batch size, on part of the documents:\n\n" + "\n".join(searches),
    ]
