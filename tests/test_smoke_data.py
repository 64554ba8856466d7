"""The smoke suite's items: made by the code, held out, well formed, within a bundled model's reach."""

from __future__ import annotations

import itertools
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from mambabench.assets import bundled_dir, smoke_dir, suites_dir
from mambabench.models.mamba import MambaLM, MambaShape
from mambabench.tasks.smoke import items, texts, words

MODELS = ("mamba-tiny", "pythia-tiny")
TASKS = tuple(items.N_ITEMS)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(bundled_dir() / "mamba-tiny" / "tokenizer.json"))


def count_tokens(text: str) -> int:
    return len(tokenizer().encode(text).ids)


def rows(task: str, split: str = "test") -> list[dict[str, Any]]:
    path = smoke_dir() / "data" / "mambabench" / task / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_committed_items_are_what_the_code_makes(tmp_path: Path) -> None:
    items.write_items(tmp_path, items.build_items(seed=items.ITEMS_SEED, count_tokens=count_tokens))
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.jsonl")}
    data = smoke_dir() / "data"
    committed = {p.relative_to(data): p.read_bytes() for p in data.rglob("*.jsonl")}
    assert made == committed


def test_no_item_is_in_the_training_text() -> None:
    corpus = "\n\n".join(itertools.islice(texts.training_documents(1), 20_000))
    for task in TASKS:
        for row in rows(task):
            assert items.full_texts(task, row) not in corpus


def test_the_key_is_what_keeps_items_out() -> None:
    # Of the small kinds an unfiltered sample of this size holds every question.
    rng = random.Random(0)
    unfiltered = {texts.counting(rng).text for _ in range(20_000)}
    counts = [row for row in rows("smoke_generate") if row["prompt"].startswith("Count")]
    assert len(counts) >= 10
    assert all(f"{row['prompt']} {row['answer']}." in unfiltered for row in counts)
    pairs = {texts.kinds_pair(rng)[0] for _ in range(20_000)}
    assert all(
        row["prompt"].splitlines()[0].removeprefix("Thing: ") in pairs for row in rows("smoke_fewshot")
    )


def test_training_documents_answer_no_held_out_question_about_jobs() -> None:
    titles = {job.title: i for i, job in enumerate(words.JOBS)}
    places = {job.place: job.title for job in words.JOBS}
    checked = 0
    for text in itertools.islice(texts.training_documents(2), 10_000):
        mentioned = [w.strip(".,") for w in text.split(". Every")[0].split() if w.strip(".,") in titles]
        if len(mentioned) != 2 or "secret" in text:
            continue
        for place, title in places.items():
            if f" to {place} to " in text and title in mentioned:
                checked += 1
                key = f"jobs {mentioned[0]} {mentioned[1]} {mentioned.index(title)}"
                assert not texts.is_held_out(key), text
    assert checked > 500


@pytest.mark.parametrize("task", TASKS)
def test_items_are_well_formed(task: str) -> None:
    found = rows(task)
    assert len(found) == items.N_ITEMS[task]
    assert len({json.dumps(row) for row in found}) == len(found)
    for row in found:
        if "choices" in row:
            assert len(set(row["choices"])) == len(row["choices"])
            assert 0 <= row["label"] < len(row["choices"])
    labels = [row["label"] for row in found if "label" in row]
    if labels:
        most = max(labels.count(label) for label in set(labels))
        even = -(-len(labels) // len(found[0]["choices"]))
        # Kinds are drawn, the others put in turn: always giving the same answer must not pay.
        assert most <= (2 * even if task == "smoke_fewshot" else even)


def test_a_last_word_stands_earlier_in_its_story() -> None:
    for row in rows("smoke_lastword"):
        story, _, last = row["text"].rpartition(" ")
        assert last in story.replace(".", "").replace(",", "").split()


@pytest.mark.parametrize(("task", "length"), [("smoke_recall_128", 128), ("smoke_recall_512", 512)])
def test_recall_items_have_their_length_and_one_right_answer(task: str, length: int) -> None:
    for row in rows(task):
        assert length - 16 < count_tokens(row["prompt"]) <= length
        query = row["prompt"].rpartition(". ")[2]
        assert row["prompt"].startswith(f"{query} {row['choices'][row['label']]}.")
        assert [choice for choice in row["choices"] if choice in row["prompt"].replace(".", "").split()] == [
            row["choices"][row["label"]]
        ]


def test_shots_are_of_different_kinds_and_no_questions() -> None:
    shots = rows("smoke_fewshot", "train")
    assert len({row["label"] for row in shots}) == len(shots) == items.N_SHOTS
    asked = {row["prompt"] for row in rows("smoke_fewshot")}
    assert not asked & {row["prompt"] for row in shots}


def test_every_task_has_its_yaml_its_data_and_its_place_in_the_suite() -> None:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in smoke_dir().glob("*.yaml")}
    assert set(found) == set(TASKS)
    suite = yaml.safe_load((suites_dir() / "smoke.yaml").read_text())
    assert [entry["task"] for entry in suite["tasks"]] == list(TASKS)
    types = set()
    for name, config in found.items():
        types.add(config["output_type"])
        assert (config["task"], config["dataset_path"]) == (name, f"mambabench/{name}")
        for split in {config["test_split"], config.get("fewshot_split", config["test_split"])}:
            assert rows(name, split)
        metrics = {entry["metric"] for entry in config["metric_list"]}
        (entry,) = (e for e in suite["tasks"] if e["task"] == name)
        assert set(entry["metrics"]) <= metrics
    assert types == {"loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until"}


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_can_be_encoded_and_comes_back(text: str) -> None:
    encoded = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(encoded.ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("name", MODELS)
def test_bundled_folders(name: str) -> None:
    folder = bundled_dir() / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 0, 0)
    assert loaded("Hello")["input_ids"] == tokenizer().encode("Hello").ids
    assert AutoConfig.from_pretrained(folder).vocab_size == len(loaded) == tokenizer().get_vocab_size()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F32"}  # noqa: SIM118


def test_both_models_have_the_same_tokenizer() -> None:
    one, two = ((bundled_dir() / name / "tokenizer.json").read_bytes() for name in MODELS)
    assert one == two


@cache
def mamba_tiny() -> MambaLM:
    folder = bundled_dir() / "mamba-tiny"
    model = MambaLM(MambaShape.from_transformers(AutoConfig.from_pretrained(folder)))
    weights = load_file(folder / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["backbone.embeddings.weight"])
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def accuracy(task: str, n_items: int) -> float:
    """Score with the package's own model, one prompt at a time and the choices from its state."""
    model = mamba_tiny()
    right = 0
    for row in rows(task)[:n_items]:
        logits, state = model(torch.tensor([tokenizer().encode(row["prompt"]).ids]), keep=1)
        scores = []
        for choice in row["choices"]:
            ids = tokenizer().encode(f" {choice}").ids
            tail = model(torch.tensor([ids[:-1]]), state)[0] if len(ids) > 1 else logits[:, :0]
            predicted = torch.cat([logits, tail], dim=1)[0].log_softmax(-1)
            scores.append(predicted[range(len(ids)), ids].sum().item())
        right += scores.index(max(scores)) == row["label"]
    return right / n_items


@pytest.mark.parametrize(
    ("task", "at_least"),
    [("smoke_choice", 0.8), ("smoke_recall_128", 0.7), ("smoke_recall_512", 0.5)],
)
def test_mamba_tiny_is_far_above_chance(task: str, at_least: float) -> None:
    assert accuracy(task, 24) >= at_least
