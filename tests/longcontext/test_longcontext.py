"""A long-context run on tiny checkpoints: what is kept, what goes on after an interruption, what cannot."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import N_TOKENS, build_tokenizer, tiny_mamba, tiny_neox, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import mambabench.bench.devices
import mambabench.models.load
from mambabench.errors import CellsFailedError, CheckpointError, UsageError
from mambabench.long_schema import RecallRecord
from mambabench.longcontext import recall_cells
from mambabench.longcontext.options import CostPart, LongOptions, LongOutcome, LossPart, RecallPart
from mambabench.longcontext.recall import requests_of
from mambabench.longcontext.recall_cells import groups, worth_of
from mambabench.longcontext.run import published_of, run_longcontext
from mambabench.references import perplexities_by_length, sources
from mambabench.registry import load_registry
from mambabench.store import AnswerLog, StoredRun
from mambabench.tasks.recall.sample import Question, Sample
from mambabench.tasks.recall.task import RecallLengthError
from mambabench.tasks.recall.tasks import TASKS, TokenizerEncoder

Run = Callable[..., LongOutcome]
STANDIN = Path(__file__).parent.with_name("standin_child.py")
RECALL = RecallPart(tasks=("selective_copying", "copying"), n_samples=4, n_depths=2)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_mamba(folder / "mamba")
    tiny_neox(folder / "neox")
    config = GPT2Config(
        vocab_size=304, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(build_tokenizer(folder / "gpt2"))
    tiny_mamba(folder / "bare", config={"vocab_size": 16}, with_tokenizer=False)
    words = " ".join(f"word{i % 97} and {i * 7919 % 1000}," for i in range(900))
    (folder / "book.txt").write_text(words)
    return folder


@pytest.fixture
def run(checkpoints: Path, tmp_path: Path) -> Run:
    def call(*models: str, child: Sequence[str] | None = None, **how: Any) -> LongOutcome:
        options = LongOptions(
            models=tuple(str(checkpoints / name) for name in models),
            lengths_tokens=(64, 128),
            recall=RECALL,
            out=tmp_path / "results",
            device="cpu",
            verify=False,
        )
        return run_longcontext(replace(options, **how), child=child)

    return call


def cells(outcome: LongOutcome) -> dict[tuple[str, str, int], RecallRecord]:
    return {(r.model, r.task, r.length_tokens): r for r in outcome.recall}


def rows(outcome: LongOutcome) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    stored = StoredRun(outcome.path)
    return {key: stored.read_long_rows(r) for key, r in cells(outcome).items() if r.status == "ok"}


def refuse_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mambabench.models.load, "load", lambda plan: pytest.fail("weights were read"))


@pytest.mark.parametrize("task", ["copying", "needle"])
def test_rows_are_what_transformers_computes(run: Run, checkpoints: Path, task: str) -> None:
    outcome = run(
        "mamba", lengths_tokens=(96,), recall=RecallPart(tasks=(task,), n_samples=4, n_depths=2), seed=3
    )
    record, found = cells(outcome)["mamba", task, 96], rows(outcome)["mamba", task, 96]
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoints / "mamba")
    encoder = TokenizerEncoder(tokenizer(), N_TOKENS)
    samples = list(TASKS[task].samples(encoder, 96, n=4, n_depths=2, seed=3))
    assert len(found) == sum(len(sample.questions) for sample in samples)
    for row in found:
        question = samples[row["sample"]].questions[row["question"]]
        context = samples[row["sample"]].ids[: question.end_tokens].astype(np.int64).tolist()
        expected, greedy = [], []
        for choice in question.choices:
            with torch.inference_mode():
                logits = model(torch.tensor([[*context, *choice]])).logits[0, :-1, :N_TOKENS]
            read = logits[len(context) - 1 :].double().log_softmax(-1)
            expected.append(sum(read[place, id_].item() for place, id_ in enumerate(choice)))
            greedy.append(read.argmax(-1).tolist() == list(choice))
        assert row["logprobs"] == pytest.approx(expected, abs=5e-4)
        assert row["is_greedy"] == greedy[0]
        assert row["rank"] == 1 + sum(value > expected[0] for value in expected[1:])
    by_sample = [[row["credit"] for row in found if row["sample"] == index] for index in range(4)]
    assert record.metrics[0].metric == "accuracy"
    assert record.metrics[0].value == pytest.approx(np.mean([np.mean(credits_) for credits_ in by_sample]))
    assert (record.n_samples, record.n_questions, record.status) == (4, len(found), "ok")
    assert sum(depth.n_questions for depth in record.depths) == len(found)
    n_choice_tokens = sum(len(choice) for s in samples for q in s.questions for choice in q.choices)
    # Shared prefixes are forwarded once: hardly more than the samples and the choices themselves.
    assert 4 * 95 <= record.n_tokens_forwarded <= 4 * 96 + n_choice_tokens


def test_the_same_command_repeats_nothing_and_more_adds_to_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("mamba", "neox")
    assert (first.n_computed, len(first.recall)) == (8, 8)
    assert [r.length_tokens for r in first.table.rows_of("mamba")] == [64, 128]
    first.raise_for_failures()
    with monkeypatch.context() as patched:
        refuse_to_load(patched)
        again = run("mamba", "neox")
    assert (again.path, again.n_computed, again.recall) == (first.path, 0, first.recall)
    assert again.table == first.table
    longer = run("mamba", "neox", lengths_tokens=(64, 96, 128))
    assert (longer.path, longer.n_computed) == (first.path, 4)
    assert {key: r for key, r in cells(longer).items() if key[2] != 96} == cells(first)
    # More samples are the first ones and others besides: answers to those are there.
    more = run("mamba", lengths_tokens=(64,), recall=RECALL.model_copy(update={"n_samples": 6}))
    fewer = run("mamba", lengths_tokens=(64,))
    for task in RECALL.tasks:
        record = cells(more)["mamba", task, 64]
        assert record.samples_sha256 != cells(fewer)["mamba", task, 64].samples_sha256
        assert (
            rows(more)["mamba", task, 64][: len(rows(fewer)["mamba", task, 64])]
            == (rows(fewer)["mamba", task, 64])
        )
    assert run("mamba", seed=1).path != more.path


@pytest.mark.parametrize("n_batches", [1, 3])
def test_an_interrupted_run_goes_on_and_ends_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_batches: int
) -> None:
    whole = run("mamba", out=tmp_path / "undisturbed")
    append, left = AnswerLog.append, n_batches

    def until_interrupted(log: AnswerLog, items: Any) -> None:
        nonlocal left
        append(log, items)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AnswerLog, "append", until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("mamba")
    rest = run("mamba")
    assert rows(rest) == rows(whole)
    assert [r.metrics for r in rest.recall] == [r.metrics for r in whole.recall]
    forwarded = [sum(r.n_tokens_forwarded for r in outcome.recall) for outcome in (rest, whole)]
    assert forwarded[0] < forwarded[1]


def test_equal_weights_under_another_name_are_known(
    run: Run, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("mamba")
    shutil.copytree(checkpoints / "mamba", tmp_path / "copy")
    refuse_to_load(monkeypatch)
    second = run(str(tmp_path / "copy"))
    assert {r.model for r in second.recall} == {"copy"}
    assert [r.metrics for r in second.recall] == [r.metrics for r in first.recall]
    row = second.table.row("copy", 64)
    assert row.recall_mean == first.table.row("mamba", 64).recall_mean is not None


def test_lengths_that_cannot_be_are_rows_and_no_failures(run: Run) -> None:
    lengths, part = (16, 128, 129), RecallPart(tasks=("selective_copying",), n_samples=2)
    outcome = run("gpt2", "neox", lengths_tokens=lengths, recall=part)
    said = {(model, n): (r.status, r.detail) for (model, _, n), r in cells(outcome).items()}
    assert (
        said["gpt2", 16] == said["neox", 16] == ("unsupported", "selective_copying takes 32 tokens at least")
    )
    # The answer to a question at the last position is read off it.
    assert said["gpt2", 128] == ("ok", "")
    assert said["gpt2", 129] == ("unsupported", "gpt2 has learned positions for 128 tokens only")
    assert said["neox", 129] == ("ok", "")
    past = [cells(outcome)["neox", "selective_copying", n].past_training_length for n in (128, 129)]
    assert past == [False, True]
    outcome.raise_for_failures()
    with pytest.raises(
        UsageError, match=r"nothing can be computed .*: gpt2 has learned positions for 128 to"
    ):
        run("gpt2", lengths_tokens=(129, 256), recall=part)


def test_answers_beyond_the_learned_positions_show_with_the_samples(run: Run) -> None:
    (record,) = run("gpt2", lengths_tokens=(128,), recall=RecallPart(tasks=("needle",), n_samples=1)).recall
    assert (record.status, record.n_questions) == ("unsupported", 0)
    assert record.detail == "133 tokens to forward, and gpt2 has learned positions for 128"


def test_an_answer_may_reach_past_the_training_length(run: Run) -> None:
    # Trained on 128; the right answer takes six tokens, of which the last is not forwarded.
    part = RecallPart(tasks=("needle", "selective_copying"), n_samples=2)
    outcome = run("neox", lengths_tokens=(123, 124, 128), recall=part)
    past = {(task, n): r.past_training_length for (_, task, n), r in cells(outcome).items()}
    assert [past["needle", n] for n in (123, 124, 128)] == [False, True, True]
    assert [past["selective_copying", n] for n in (123, 124, 128)] == [False] * 3


def test_a_run_of_which_nothing_can_be_made_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecallLengthError, match="copying cannot be made 2 tokens long"):
        run("mamba", lengths_tokens=(1, 2))
    needle = RecallPart(tasks=("needle",), n_samples=1)
    with pytest.raises(RecallLengthError, match=r"needle cannot be made 64 tokens long.* that works is"):
        run("mamba", lengths_tokens=(64,), recall=needle)
    assert not (tmp_path / "results").exists()


def test_a_length_that_a_tokenizer_cannot_make_is_a_row(run: Run) -> None:
    outcome = run("mamba", lengths_tokens=(64, 128), recall=RecallPart(tasks=("needle",), n_samples=1))
    short, long = outcome.recall
    assert (short.status, long.status) == ("unsupported", "ok")
    assert "needle cannot be made 64 tokens long: " in short.detail


def test_a_model_without_tokenizer_is_asked_in_symbols_only(run: Run) -> None:
    heads = RecallPart(tasks=("induction_heads",), n_samples=3)
    outcome = run("bare", recall=heads)
    assert [(r.status, r.n_questions, r.chance) for r in outcome.recall] == [("ok", 3, 1 / 15)] * 2
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        run("bare", recall=RecallPart(tasks=("induction_heads", "needle")))


def test_what_runs_out_of_memory_fails_and_longer_is_not_tried(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, kinds = requests_of, iter([torch.OutOfMemoryError, MemoryError])

    def short(samples: Any) -> Any:
        if samples[0].length_tokens >= 96:
            raise next(kinds)("no room")
        return whole(samples)

    lengths = (64, 96, 128)
    with monkeypatch.context() as patched:
        patched.setattr(recall_cells, "requests_of", short)
        outcome = run("mamba", lengths_tokens=lengths)
    said = {key[1:]: (r.status, r.detail) for key, r in cells(outcome).items()}
    for task in RECALL.tasks:
        assert said[task, 64] == ("ok", "")
        # Another task of that length may take less.
        assert said[task, 96] == ("failed", "out of memory: no room")
        assert said[task, 128] == ("failed", "not tried: 96 tokens did not fit into the memory: no room")
    with pytest.raises(CellsFailedError, match=r"4 of 6 cells failed, first .*copying at 96 tokens: out of"):
        outcome.raise_for_failures()
    again = run("mamba", lengths_tokens=lengths)
    assert again.n_computed == 4
    again.raise_for_failures()


def test_a_state_larger_than_the_memory_is_not_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the two layers' keys and values 512 bytes a token: 65,536 after 128 tokens.
    monkeypatch.setattr(mambabench.bench.devices, "free_bytes", lambda: 60_000)
    outcome = run("mamba", "neox")
    said = {(key[0], key[2]): (r.status, r.detail) for key, r in cells(outcome).items()}
    assert said["mamba", 128] == said["neox", 64] == ("ok", "")
    assert said["neox", 128][0] == "failed"
    assert "out of memory: the state after 128 tokens takes" in said["neox", 128][1]


def test_an_error_stays_in_its_cells(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: Any) -> Any:
        if plan.name == "mamba":
            raise CheckpointError("its weights are damaged")
        return load(plan)

    load = mambabench.models.load.load
    monkeypatch.setattr(mambabench.models.load, "load", broken)
    outcome = run("mamba", "neox")
    assert {(r.model, r.status, r.detail) for r in outcome.recall} == {
        ("mamba", "failed", "its weights are damaged"), ("neox", "ok", ""),
    }  # fmt: skip


def test_a_text_is_predicted_after_every_context(run: Run, checkpoints: Path) -> None:
    book = {"data": str(checkpoints / "book.txt"), "loss": LossPart(target_tokens=20, n_blocks=4)}
    outcome = run("mamba", "gpt2", recall=None, lengths_tokens=(32, 64, 128, 1 << 20), **book)
    said = {(r.model, r.context_tokens): r.status for r in outcome.losses}
    assert [said["mamba", n] for n in (32, 64, 128, 1 << 20)] == ["ok", "ok", "ok", "unsupported"]
    assert [said["gpt2", n] for n in (32, 64, 128, 1 << 20)] == ["ok", "ok", "unsupported", "unsupported"]
    outcome.raise_for_failures()
    assert outcome.table.row("mamba", 64).bits_per_byte is not None
    assert outcome.published == {}
    both = run("mamba", "gpt2", lengths_tokens=(32, 64, 128, 1 << 20), recall=None, **book)
    assert both.n_computed == 0
    with pytest.raises(UsageError, match=r"book.txt is too short: no document of it has 1,048,576 tokens"):
        run("mamba", lengths_tokens=(1 << 20,), recall=None, **book)


def test_cost_is_measured_at_the_same_lengths_and_kept(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "jobs"
    child = (sys.executable, "-S", "-E", str(STANDIN), str(log), "[]")

    def measured() -> list[tuple[str, int]]:
        jobs = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return [(j["point"]["model"], j["point"]["prompt_len_tokens"]) for j in jobs]

    how = {"child": child, "cost": CostPart(gen_len_tokens=4, repeats=2)}
    first = run("gpt2", "neox", **how)
    assert measured() == [("gpt2", 64), ("neox", 64), ("neox", 128)]
    assert first.n_computed == 8 + 3
    assert first.cost is not None
    row = first.table.row("neox", 128)
    assert row.ttft_s is not None
    assert row.ttft_s.value == pytest.approx(0.01)
    assert row.recall_mean is not None
    longer = run("gpt2", "neox", lengths_tokens=(64, 96, 128), **how)
    assert measured() == [("gpt2", 96), ("neox", 96)]
    assert longer.cost is not None
    assert (longer.path, longer.cost.path) == (first.path, first.cost.path)
    assert len(longer.cost.table.rows) == 6
    way = "cost is that of the fastest way of running each model, not of --engine as-shipped"
    assert way not in longer.notes
    assert way in run("gpt2", "neox", engine="as-shipped", lengths_tokens=(64,), **how).notes
    assert measured() == []


def test_a_comparison_that_comes_too_late_is_noted(run: Run) -> None:
    first = run("mamba", lengths_tokens=(64,))
    note = (
        "mamba was computed without a comparison with the model as shipped, and nothing is left to compute: "
        f"delete {first.path} to have it compared"
    )
    again = run("mamba", lengths_tokens=(64,), verify=True)
    assert (again.n_computed, again.path) == (0, first.path)
    assert note not in first.notes
    assert again.notes == (*first.notes, note)
    # What is computed after a comparison is computed by the same code as what was there.
    more = run("mamba", verify=True)
    assert more.n_computed > 0
    assert note not in more.notes


@given(
    ends=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True), max_size=8),
    most_tokens=st.integers(1, 300),
)
@settings(max_examples=50, deadline=None)
def test_groups_hold_every_sample_once_and_fit(ends: list[list[int]], most_tokens: int) -> None:
    def tokens(some: list[Sample]) -> int:
        return sum(len(q.choices) * (q.end_tokens + 1) for s in some for q in s.questions)

    samples = [
        Sample(
            "t", max(places), index, np.zeros(max(places), np.int32),
            tuple(Question(end, ((1,), (2,), (3,)), 0, 0.0) for end in sorted(places)),
        )
        for index, places in enumerate(ends)
    ]  # fmt: skip
    found = list(groups(samples, most_tokens=most_tokens))
    assert [sample for group in found for sample in group] == samples
    assert all(len(group) == 1 or tokens(group) <= most_tokens for group in found)
    # None could have taken the next one's first sample.
    assert all(tokens([*group, following[0]]) > most_tokens for group, following in pairwise(found))
    assert sum(worth_of(samples)) == sum(sample.length_tokens for sample in samples)


@pytest.mark.parametrize(
    ("change", "n_expected"),
    [
        ({}, 6),
        ({"weights": "random"}, 0),
        ({"adapter": "lora"}, 0),
        ({"spec": None}, 0),
        ({"revision": "step1000"}, 0),
        ({"tokenizer": "another"}, 0),
        ({"corpus": None}, 0),
    ],
    ids=str,
)
def test_published_perplexities_stand_beside_the_loss_of_the_models_as_released(
    change: dict[str, Any], n_expected: int
) -> None:
    about = {
        "spec": load_registry()["mamba-2.8b"], "weights": "pretrained", "adapter": None, "revision": None,
        "tokenizer": None, "corpus": object(), **change,
    }  # fmt: skip
    checkpoint = SimpleNamespace(
        name="mine", ref=SimpleNamespace(revision=about["revision"]),
        **{key: about[key] for key in ("spec", "weights", "adapter")},
    )  # fmt: skip
    options = SimpleNamespace(tokenizer=about["tokenizer"])
    plan: Any = SimpleNamespace(corpus=about["corpus"], options=options, checkpoints=[checkpoint])
    found = published_of(plan)
    assert sum(map(len, found.values())) == n_expected
    if n_expected:
        assert [reference.length_tokens for reference in found["mine"]] == sorted(
            reference.length_tokens for reference in perplexities_by_length("mamba-2.8b")
        )
        assert all(reference.source in sources() for reference in found["mine"])
