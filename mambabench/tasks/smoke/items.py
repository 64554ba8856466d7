"""Write the items of the smoke suite: held-out documents of the made-up world, cut into questions.

    python -m mambabench.tasks.smoke.items

rewrites `data/` from a fixed seed; the same code gives the same bytes. Lengths of the recall items are
counted with the bundled tokenizer, so it has to exist.

    >>> items = build_items(seed=ITEMS_SEED, count_tokens=lambda text: len(text.split()))
    >>> len(items["smoke_choice", "test"]), sorted(items["smoke_choice", "test"][0])
    (48, ['choices', 'label', 'prompt'])
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mambabench.assets import bundled_dir, smoke_dir
from mambabench.tasks.smoke import texts, words

ITEMS_SEED = 20231201
"""Any seed does: what is trained on is kept apart by the documents' keys, not by the seed."""

N_ITEMS = {
    "smoke_lastword": 80,
    "smoke_choice": 48,
    "smoke_fewshot": 48,
    "smoke_recall_128": 40,
    "smoke_recall_512": 24,
    "smoke_perplexity": 10,
    "smoke_generate": 40,
}
N_SHOTS = 4
PERPLEXITY_EVENTS = 60
"""Sentences of a story in `smoke_perplexity`: about 570 tokens, over twice the longest training document."""

Row = dict[str, Any]
_MOST_DRAWS = 50_000
_SHUFFLED = ("smoke_choice", "smoke_recall_128", "smoke_recall_512")
"""Tasks whose choices are drawn for each item, so that their order is free."""


def build_items(*, seed: int, count_tokens: Callable[[str], int]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of every (task, split)."""
    rng = random.Random(seed)
    return {
        ("smoke_lastword", "test"): list(_take(_lastword(rng), "smoke_lastword")),
        ("smoke_choice", "test"): list(_take(_choice(rng), "smoke_choice")),
        ("smoke_fewshot", "train"): _shots(rng),
        ("smoke_fewshot", "test"): list(_take(_fewshot(rng), "smoke_fewshot")),
        ("smoke_recall_128", "test"): list(_take(_recall(rng, 128, count_tokens), "smoke_recall_128")),
        ("smoke_recall_512", "test"): list(_take(_recall(rng, 512, count_tokens), "smoke_recall_512")),
        ("smoke_perplexity", "test"): list(_take(_long_stories(rng), "smoke_perplexity")),
        ("smoke_generate", "test"): list(_take(_generate(rng), "smoke_generate")),
    }


def full_texts(task: str, row: Row) -> str:
    """Return an item with its right answer as the text that a model must not have been trained on."""
    if task in ("smoke_lastword", "smoke_perplexity"):
        return str(row["text"])
    if task == "smoke_generate":
        return f"{row['prompt']} {row['answer']}"
    return f"{row['prompt']} {row['choices'][row['label']]}"


def write_items(folder: Path, items: dict[tuple[str, str], list[Row]]) -> None:
    """Write one JSON Lines file for each (task, split) under the layout of a data directory."""
    for (task, split), rows in items.items():
        path = folder / "mambabench" / task / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _take(rows: Iterator[tuple[str, Row]], task: str) -> Iterator[Row]:
    # Each key once: an item asked twice would make the interval narrower than it is.
    seen: set[str] = set()
    for _, (key, row) in zip(range(_MOST_DRAWS), rows, strict=False):
        if texts.is_held_out(key) and key not in seen:
            if task in _SHUFFLED:
                _put_right_answer(row, len(seen) % len(row["choices"]))
            seen.add(key)
            yield row
        if len(seen) == N_ITEMS[task]:
            return
    raise ValueError(f"{task}: the world holds fewer than {N_ITEMS[task]} different items")


def _lastword(rng: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        story = texts.story(rng, rng.randint(4, 8))
        yield story.text, {"text": story.text.removesuffix(".")}


def _choice(rng: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        passage, right, wrong, key = texts.jobs_question(rng)
        yield key, _with_choices(passage, right, wrong)


def _shots(rng: random.Random) -> list[Row]:
    # Shots are examples to learn from, so they come from the side that may be trained on.
    rows: list[Row] = []
    while len(rows) < N_SHOTS:
        thing, kind, key = texts.kinds_pair(rng)
        if not texts.is_held_out(key) and all(kind != list(words.KINDS)[row["label"]] for row in rows):
            rows.append(_kinds_row(thing, kind))
    return rows


def _fewshot(rng: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        thing, kind, key = texts.kinds_pair(rng)
        yield key, _kinds_row(thing, kind)


def _kinds_row(thing: str, kind: str) -> Row:
    kinds = list(words.KINDS)
    prompt = texts.kinds_line(thing, kind).removesuffix(f" {kind}")
    return {"prompt": prompt, "choices": kinds, "label": kinds.index(kind)}


def _recall(
    rng: random.Random, n_tokens: int, count_tokens: Callable[[str], int]
) -> Iterator[tuple[str, Row]]:
    while True:
        facts = texts.recall(rng, n_facts=1)
        if not texts.is_held_out(facts.passage):
            continue
        passage = facts.passage
        for sentence in texts.filler_sentences(rng):
            longer = f"{passage} {sentence}"
            if count_tokens(f"{longer} {facts.query}") > n_tokens:
                break
            passage = longer
        wrong = rng.sample([word for word in words.SECRET_WORDS if word != facts.answer], 3)
        yield facts.passage, _with_choices(f"{passage} {facts.query}", facts.answer, wrong)


def _long_stories(rng: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        text = texts.story(rng, PERPLEXITY_EVENTS).text
        yield text, {"text": text}


def _generate(rng: random.Random) -> Iterator[tuple[str, Row]]:
    while True:
        for doc in (texts.counting(rng), texts.copying(rng)):
            prompt, _, answer = doc.text.removesuffix(".").rpartition(":")
            yield doc.key, {"prompt": f"{prompt}:", "answer": answer.strip()}


def _with_choices(prompt: str, right: str, wrong: list[str]) -> Row:
    return {"prompt": prompt, "choices": [right.strip(), *(w.strip() for w in wrong)], "label": 0}


def _put_right_answer(row: Row, place: int) -> None:
    # Every place equally often: a model that always takes the first choice must score at chance.
    choices, label = row["choices"], row["label"]
    choices[label], choices[place] = choices[place], choices[label]
    row["label"] = place


def main() -> None:
    """Rewrite the committed items."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled_dir() / "mamba-tiny" / "tokenizer.json"))
    items = build_items(seed=ITEMS_SEED, count_tokens=lambda text: len(tokenizer.encode(text).ids))
    write_items(smoke_dir() / "data", items)
    for (task, split), rows in items.items():
        print(f"{task}/{split}: {len(rows)} rows")


if __name__ == "__main__":
    main()
