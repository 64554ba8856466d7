"""Generated rows in the schema of the data sets that the shipped suites read, for tests without them.

    write_rows(tmp_path, n=8)    # tmp_path then serves as --data-dir for every shipped suite

The sentences mean little; what matters is that columns, types and oddities are those of the published
rows: labels as text or numbers, questions with three or five choices, RACE's problems as Python source.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mambabench.taskindex import TaskIndex

Row = dict[str, Any]

_THINGS = ("lamp", "river", "violin", "hammer", "garden", "train", "letter", "bridge", "candle", "mirror")
_VERBS = ("holds", "moves", "breaks", "paints", "finds", "carries", "sells", "cleans")
_PLACES = ("kitchen", "harbour", "school", "field", "tower", "market")


def write_rows(root: Path, *, n: int = 8, seed: int = 0) -> Path:
    """Write every data set of the shipped suites below `root`, `n` rows a split, and return `root`."""
    makers: dict[str, Callable[[random.Random, int], Row]] = {
        "Rowan/hellaswag/validation": _hellaswag,
        "baber/piqa/validation": _piqa,
        "allenai/ai2_arc/ARC-Easy/test": _arc,
        "allenai/ai2_arc/ARC-Challenge/test": _arc,
        "EleutherAI/lambada_openai/default/test": _lambada,
        "allenai/winogrande/winogrande_xl/validation": _winogrande,
        "allenai/openbookqa/main/test": _openbookqa,
        "aps/super_glue/boolq/validation": _boolq,
        "EleutherAI/race/high/test": _race,
        "truthfulqa/truthful_qa/multiple_choice/validation": _truthfulqa,
        "EleutherAI/wikitext_document_level/wikitext-2-raw-v1/test": _wikitext,
    }
    for name, make in makers.items():
        write_jsonl(root / f"{name}.jsonl", [make(_random(seed, name, i), i) for i in range(n)])
    index = TaskIndex.load()
    for task in index.leaves("mmlu"):
        subject = str(index.get(task).dataset_name)
        for split, count in (("dev", 5), ("test", n)):
            name = f"cais/mmlu/{subject}/{split}"
            rows = [_mmlu(_random(seed, name, i), subject) for i in range(count)]
            write_jsonl(root / f"{name}.jsonl", rows)
    return root


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    """Write rows one a line, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _random(seed: int, name: str, i: int) -> random.Random:
    return random.Random(f"{seed} {name} {i}")


def _clause(rng: random.Random) -> str:
    return f"the {rng.choice(_THINGS)} {rng.choice(_VERBS)} a {rng.choice(_THINGS)}"


def _sentence(rng: random.Random) -> str:
    return f"In the {rng.choice(_PLACES)} {_clause(rng)}."


def _hellaswag(rng: random.Random, i: int) -> Row:
    ctx_a, ctx_b = _sentence(rng), f"the {rng.choice(_THINGS)}"
    return {
        "ind": i,
        "activity_label": rng.choice(["Cleaning [header] windows", "Rowing"]),
        "ctx_a": ctx_a,
        "ctx_b": ctx_b,
        "ctx": f"{ctx_a} {ctx_b}",
        "endings": [f"{rng.choice(_VERBS)} a {rng.choice(_THINGS)} [title] slowly." for _ in range(4)],
        "source_id": f"wikihow~{i}",
        "split": "val",
        "split_type": "indomain",
        "label": str(rng.randrange(4)),
    }


def _piqa(rng: random.Random, i: int) -> Row:
    goal = f"How do I clean a {rng.choice(_THINGS)}?"
    return {"goal": goal, "sol1": _sentence(rng), "sol2": _sentence(rng), "label": rng.randrange(2)}


def _arc(rng: random.Random, i: int) -> Row:
    # Published rows have three to five choices, lettered or numbered.
    labels = [list("ABCD"), list("1234"), list("ABC"), list("ABCDE")][i % 4]
    choices = {"text": [_clause(rng) for _ in labels], "label": labels}
    question = f"Which {rng.choice(_THINGS)} is in the {rng.choice(_PLACES)}?"
    return {"id": f"generated_{i}", "question": question, "choices": choices, "answerKey": rng.choice(labels)}


def _lambada(rng: random.Random, i: int) -> Row:
    thing = rng.choice(_THINGS)
    return {"text": f"He had lost his {thing}. {_sentence(rng)} “There,” she said, “lies your {thing}"}


def _winogrande(rng: random.Random, i: int) -> Row:
    first, second = rng.sample(_THINGS, 2)
    return {
        "sentence": f"The {first} did not fit beside the {second} because the _ was too large.",
        "option1": first,
        "option2": second,
        "answer": rng.choice(["1", "2"]),
    }


def _openbookqa(rng: random.Random, i: int) -> Row:
    labels = list("ABCD")
    choices = {"text": [_clause(rng) for _ in labels], "label": labels}
    return {
        "id": f"7-{i}",
        "question_stem": f"A {rng.choice(_THINGS)} is useful when",
        "choices": choices,
        "answerKey": rng.choice(labels),
    }


def _boolq(rng: random.Random, i: int) -> Row:
    question = f"is there a {rng.choice(_THINGS)} in the {rng.choice(_PLACES)}"
    passage = f"{_sentence(rng)} {_sentence(rng)}"
    return {"question": question, "passage": passage, "idx": i, "label": rng.randrange(2)}


def _race(rng: random.Random, i: int) -> Row:
    questions = ["What is the text about?", "The writer says that  _  .", "We learn from the text that"]
    problems = [
        {"question": q, "answer": rng.choice("ABCD"), "options": [_clause(rng) for _ in range(4)]}
        for q in questions[: 1 + i % 3]
    ]
    return {"article": f"{_sentence(rng)} It's {_sentence(rng)}", "problems": repr(problems)}


def _truthfulqa(rng: random.Random, i: int) -> Row:
    n = 4 + i % 3
    choices = [_sentence(rng) for _ in range(n)]
    return {
        "question": f"What happens to a {rng.choice(_THINGS)} in the {rng.choice(_PLACES)}?",
        "mc1_targets": {"choices": choices, "labels": [1] + [0] * (n - 1)},
        "mc2_targets": {"choices": choices, "labels": [1, 1] + [0] * (n - 2)},
    }


def _mmlu(rng: random.Random, subject: str) -> Row:
    return {
        "question": f" Which {rng.choice(_THINGS)} is known in {subject.replace('_', ' ')}?",
        "subject": subject,
        "choices": [_clause(rng) for _ in range(4)],
        "answer": rng.randrange(4),
    }


def _wikitext(rng: random.Random, i: int) -> Row:
    body = " \n ".join(f"{_sentence(rng)[:-1]} , {rng.randrange(9)} @,@ 000 ." for _ in range(3))
    return {"page": f" = {rng.choice(_THINGS).title()} = \n \n {body} \n"}
