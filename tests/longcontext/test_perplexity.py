"""Perplexity of documents against plain forwards, and runs that stop, go on and repeat nothing."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import build_tokenizer, tiny_mamba, tiny_neox
from transformers import GPT2Config, GPT2LMHeadModel

import mambabench.models.load
from mambabench.errors import CellsFailedError, StoreError, UsageError
from mambabench.long_schema import PerplexityRecord
from mambabench.longcontext import perplexity_cell, perplexity_kept
from mambabench.longcontext.perplexity import run_perplexity
from mambabench.longcontext.perplexity_options import PerplexityOptions, PerplexityOutcome, context_for
from mambabench.models.check import check
from mambabench.registry import resolve
from mambabench.scoring import rolling_states
from mambabench.scoring.rolling import RollingScorer
from mambabench.store import Store

Run = Callable[..., PerplexityOutcome]
WORDS = ("the", "quick", "brown", "river", "“boat”", "naïve", "ahead", "jumps", "1827", "日本")


def prose(n_words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("perplexity")
    tiny_mamba(folder / "mamba")
    tiny_neox(folder / "neox")
    config = GPT2Config(vocab_size=304, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    build_tokenizer(folder / "gpt2")
    tiny_neox(folder / "coarse", n_tokens=280)
    (folder / "texts").mkdir()
    for i, n in enumerate((12, 150, 90)):
        (folder / "texts" / f"{i}.txt").write_text(prose(n, seed=i))
    (folder / "book.txt").write_text(prose(700))
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    def call(*models: str, data: str = "texts", **how: Any) -> PerplexityOutcome:
        return run_perplexity(
            PerplexityOptions(
                models=tuple(str(folder / name) for name in models),
                data=str(folder / data),
                **{"out": tmp_path / "results", "verify": False, **how},
            )
        )

    return call


def values_of(outcome: PerplexityOutcome, place: int = 0) -> list[np.ndarray[Any, Any]]:
    """Return the kept log-probabilities of each document."""
    [stored] = [s for s in Store(outcome.path.parent).runs() if s.path == outcome.path]
    record = outcome.records[place]
    lengths = [row["n_tokens"] for row in stored.read_long_rows(record)]
    return np.split(stored.read_long_values(record), np.cumsum(lengths)[:-1])


def plainly(model: Any, ids: list[int], first_seen: int, first: int, end: int) -> list[float]:
    """Predict tokens `first` to `end` from those since `first_seen`, where -1 is the id before the text."""
    whole = [model.tokenizer.bos_token_id, *ids]
    part = torch.tensor([whole[first_seen + 1 : end + 1]])
    with torch.inference_mode():
        logits = model.logits(part[:, :-1], keep=part.shape[1] - 1)[0].double().log_softmax(-1)
    found = logits.gather(1, part[0, 1:, None])[:, 0]
    return found[first - end :].tolist()


def sliding(position: int, n_tokens: int) -> int:
    """Return the first token seen under windows of 128 and strides of 64."""
    return -1 if position < 128 else min(64 * (position // 64), n_tokens - 64) + 63 - 128


def disjoint(position: int, n_tokens: int) -> int:
    """Return the first token seen under windows of 50, the last of which is filled up on the left."""
    return -1 if position < 50 else min(50 * (position // 50), n_tokens - 50) - 1


@pytest.mark.parametrize(
    ("family", "how", "first_seen"),
    [
        ("mamba", {}, None),
        ("neox", {"context": "full"}, None),
        ("neox", {}, sliding),
        ("mamba", {"context": "disjoint", "window_tokens": 50}, disjoint),
    ],
)
def test_tokens_are_predicted_from_what_the_table_says(
    run: Run, folder: Path, family: str, how: dict[str, Any], first_seen: Callable[[int, int], int] | None
) -> None:
    outcome = run(family, **how)
    model = mambabench.models.load.load(check(resolve(str(folder / family))))
    for place, found in enumerate(values_of(outcome)):
        text = (folder / "texts" / f"{place}.txt").read_text()
        ids = model.tokenizer.encode(text, add_special_tokens=False)
        n = len(ids)
        assert len(found) == n
        if first_seen is None:
            assert found == pytest.approx(plainly(model, ids, -1, 0, n), abs=1e-4)
            continue
        for p in {0, *random.Random(place).sample(range(n), 8), n - 1}:
            assert found[p] == pytest.approx(plainly(model, ids, first_seen(p, n), p, p + 1)[0], abs=1e-4)
    record = outcome.records[0]
    assert record.longest_document_tokens == max(map(len, values_of(outcome)))
    assert record.past_training_length == (family == "neox" and record.context.mode == "full")


def test_figures_follow_from_the_kept_values(run: Run, folder: Path) -> None:
    outcome = run("mamba")
    texts = [path.read_text() for path in sorted((folder / "texts").iterdir())]
    kept = [part.astype(np.float64) for part in values_of(outcome)]
    total = -sum(part.sum() for part in kept)
    found = {metric.metric: metric for metric in outcome.records[0].metrics}
    n_bytes = sum(len(text.encode()) for text in texts)
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(
        {
            "bits_per_byte": total / n_bytes / math.log(2),
            "byte_perplexity": math.exp(total / n_bytes),
            "word_perplexity": math.exp(total / sum(len(text.split()) for text in texts)),
            "token_perplexity": math.exp(total / sum(map(len, kept))),
        }
    )
    assert all(m.interval_low < m.value < m.interval_high and m.n == 3 for m in found.values())  # type: ignore[operator]
    for place in outcome.records[0].positions:
        inside = np.concatenate([part[place.first_token : place.end_token] for part in kept])
        assert place.loss_nats == pytest.approx(-inside.mean())
        assert place.n_tokens == len(inside)
        assert place.n_documents == sum(len(part) > place.first_token for part in kept)
        assert (place.interval_low is None) == (place.n_documents < 2)
    assert sum(place.n_tokens for place in outcome.records[0].positions) == outcome.records[0].n_tokens


def test_one_document_has_no_interval(run: Run) -> None:
    outcome = run("mamba", data="book.txt")
    assert all(m.interval_low is None for m in outcome.records[0].metrics)
    assert any("No intervals" in note and "directory" in note for note in outcome.table.notes)


def test_the_same_command_repeats_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("mamba", "neox", limit=1)
    assert (first.n_computed, first.table.partial) == (2, True)
    monkeypatch.setattr(mambabench.models.load, "load", lambda plan: pytest.fail("weights were read"))
    again = run("mamba", "neox", limit=1)
    assert (again.n_computed, again.path, again.table) == (0, first.path, first.table)


class _StopError(BaseException):
    """A kill, which nothing may catch."""


@pytest.mark.parametrize(
    ("family", "how"), [("mamba", {}), ("neox", {"context": "full"}), ("neox", {"context": "sliding"})]
)
def test_an_interrupted_run_goes_on_inside_a_document_to_the_same_bits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, how: dict[str, Any]
) -> None:
    monkeypatch.setattr(perplexity_kept, "_MARK_EVERY_S", 0.0)
    monkeypatch.setattr(perplexity_kept, "_SHARE_OF_TIME", 0)
    monkeypatch.setattr(perplexity_cell, "_GROUP_TOKENS", {"cpu": 1024})
    undisturbed = run(family, data="book.txt", out=tmp_path / "undisturbed", **how)
    forwarded: list[int] = []
    with monkeypatch.context() as patch:
        for name in ("full", "windows"):
            whole = getattr(RollingScorer, name)

            def stopping(self: Any, *args: Any, whole: Any = whole, **kwargs: Any) -> Iterator[Any]:
                for piece in whole(self, *args, **kwargs):
                    yield piece
                    forwarded.append(len(piece.logprobs))
                    if sum(forwarded) > 1500:
                        raise _StopError

            patch.setattr(RollingScorer, name, stopping)
        with pytest.raises(_StopError):
            run(family, data="book.txt", **how)
    n_tokens = undisturbed.records[0].n_tokens
    [left] = (tmp_path / "results").glob("*/perplexity/*.progress")
    sure = perplexity_kept.ProgressRecord.model_validate_json(left.read_text()).n_tokens
    assert 0 < sure < n_tokens
    # What was written after the mark must not count.
    with left.with_suffix(".f32").open("ab") as stream:
        stream.write(b"half a mark")
    left.with_name(f"{left.name.removesuffix('.progress')}.7.state").write_bytes(b"of no mark")
    seen: list[int] = []
    predicted = perplexity_kept.Kept.append
    monkeypatch.setattr(
        perplexity_kept.Kept,
        "append",
        lambda self, values: (seen.append(len(values)), predicted(self, values)),
    )
    resumed = run(family, data="book.txt", **how)
    assert sum(seen) == n_tokens - sure
    assert values_of(resumed)[0].tobytes() == values_of(undisturbed)[0].tobytes()
    assert resumed.records[0].metrics == undisturbed.records[0].metrics
    assert resumed.records[0].n_tokens_forwarded >= undisturbed.records[0].n_tokens_forwarded
    assert sorted(path.suffix for path in (resumed.path / "perplexity").iterdir()) == [
        ".f32",
        ".json",
        ".parquet",
    ]


@pytest.mark.parametrize(("family", "how"), [("mamba", {}), ("neox", {"context": "sliding"})])
def test_a_mark_inside_a_document_says_nothing_of_the_next_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, how: dict[str, Any]
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i, n in enumerate((700, 500, 20)):
        (texts / f"{i}.txt").write_text(prose(n, seed=i))
    monkeypatch.setattr(perplexity_cell, "_GROUP_TOKENS", {"cpu": 1024})
    undisturbed = run(family, data=str(texts), out=tmp_path / "undisturbed", **how)
    monkeypatch.setattr(perplexity_kept, "_MARK_EVERY_S", 0.0)
    monkeypatch.setattr(perplexity_kept, "_SHARE_OF_TIME", 0)
    # A document's end so soon after a mark makes no mark of its own.
    monkeypatch.setattr(perplexity_kept, "_LEAST_BETWEEN_DOCUMENTS_S", 60.0)
    inside: list[int] = []
    mark = perplexity_kept.Kept.mark

    def noted(self: Any, document: int, position_tokens: int, *args: Any) -> None:
        inside.append(position_tokens)
        mark(self, document, position_tokens, *args)

    monkeypatch.setattr(perplexity_kept.Kept, "mark", noted)
    outcome = run(family, data=str(texts), **how)
    assert inside[0] > 0
    assert outcome.records[0].detail == ""
    for found, expected in zip(values_of(outcome), values_of(undisturbed), strict=True):
        assert found.tobytes() == expected.tobytes()


def test_what_a_model_has_no_positions_for_is_unsupported_without_loading_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = mambabench.models.load.load

    def refusing(plan: Any) -> Any:
        return pytest.fail("weights were read") if plan.name == "gpt2" else load(plan)

    monkeypatch.setattr(mambabench.models.load, "load", refusing)
    full = run("gpt2", "mamba", context="full")
    wide = run("gpt2", "mamba", context="sliding", window_tokens=65)
    for outcome, words in ((full, "a document has"), (wide, "the window is 65 tokens")):
        outcome.raise_for_failures()
        record, other = outcome.records
        assert other.status == "ok"
        assert record.status == "unsupported"
        assert words in record.detail
        assert "learned positions for 64 only" in record.detail
        assert record.detail in outcome.table.notes[0]


def test_nothing_but_unsupported_models_is_refused_and_leaves_no_run(run: Run, tmp_path: Path) -> None:
    for how in ({"context": "full"}, {"context": "sliding", "window_tokens": 65}):
        with pytest.raises(UsageError, match=r"nothing can be computed: .*gpt2 has learned positions for 64"):
            run("gpt2", **how)
    with pytest.raises(UsageError, match=r"nothing can be computed: .*as shipped takes 128 at once"):
        run("neox", engine="as-shipped", context="full")
    assert not list(tmp_path.iterdir())
    # A document that is short enough is no obstacle, and its notes are told once.
    [record] = run("gpt2", context="sliding", window_tokens=64, max_tokens=40).records
    assert record.status == "ok"
    assert len(record.warnings) == 1


def test_a_model_as_shipped_slides(run: Run) -> None:
    assert run("mamba", engine="as-shipped").records[0].context.mode == "sliding"


def test_what_memory_has_no_room_for_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(rolling_states, "free_bytes", lambda device: 1000)
        outcome = run("neox", context="full")
    [record] = outcome.records
    assert record.status == "failed"
    assert re.search(r"out of memory: .* take [\d.]+ [kM]B, and 1 kB are free", record.detail)
    with pytest.raises(CellsFailedError, match="tries"):
        outcome.raise_for_failures()
    again = run("neox", context="full")
    assert again.path == outcome.path
    assert [record.status for record in again.records] == ["ok"]


def test_a_text_that_only_the_loaded_model_shows_to_be_too_long_is_unsupported(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = mambabench.models.load.load

    def without_states(plan: Any) -> Any:
        model = load(plan)
        model.stateful = None
        return model

    monkeypatch.setattr(mambabench.models.load, "load", without_states)
    [record] = run("neox", context="full").records
    assert record.status == "unsupported"
    assert "is too long for neox" in record.detail


def test_short_documents_are_predicted_whole_and_noted(run: Run) -> None:
    some = run("neox").records[0]
    every = run("neox", limit=1).records[0]
    assert "1 of 3 documents is shorter than the window of 128 tokens" in some.warnings[0]
    assert "every document is shorter" in every.warnings[0]


def test_all_models_get_the_same_beginnings(run: Run, folder: Path) -> None:
    outcome = run("neox", "coarse", max_tokens=40)
    fine, coarse = outcome.records
    assert fine.n_bytes == coarse.n_bytes
    assert fine.partial
    assert coarse.longest_document_tokens <= 40
    assert coarse.longest_document_tokens > 30
    [stored] = Store(outcome.path.parent).runs()
    texts = [path.read_text().encode() for path in sorted((folder / "texts").iterdir())]
    for record, name in ((fine, "neox"), (coarse, "coarse")):
        tokenizer = check(resolve(str(folder / name))).tokenizer
        for row, text in zip(stored.read_long_rows(record), texts, strict=True):
            beginning = text[: row["n_bytes"]].decode()
            assert row["n_tokens"] == len(tokenizer.encode(beginning, add_special_tokens=False))
    assert any("Tokenizers differ" in note for note in outcome.table.notes)


def test_a_failed_model_leaves_the_others(run: Run, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    tiny_mamba(broken, config={"num_hidden_layers": 1})
    weights = broken / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4000:] = b"\xff" * 4000
    weights.write_bytes(bytes(content))
    outcome = run(str(broken), "mamba")
    assert [record.status for record in outcome.records] == ["failed", "ok"]
    assert "not a number" in outcome.records[0].detail
    with pytest.raises(Exception, match="1 of 2 models failed"):
        outcome.raise_for_failures()
    assert run(str(broken), "mamba").n_computed == 1


OPTIONS = PerplexityOptions(models=("m",), data="d")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"window_tokens": 9}, "--window goes with --context sliding or disjoint"),
        ({"context": "disjoint", "stride_tokens": 9}, "--stride goes with --context sliding"),
        ({"context": "sliding", "window_tokens": 1}, "a window of 1 token leaves no context"),
        (
            {"context": "sliding", "window_tokens": 8, "stride_tokens": 9},
            "a stride of 9 tokens is longer than",
        ),
        ({"engine": "as-shipped", "memory_budget_bytes": 10**9}, "--memory-budget bounds the shared engine"),
    ],
)
def test_options_that_cannot_work_together(how: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(OPTIONS, **how).check()


def test_context_follows_the_kind_of_state() -> None:
    def label(
        options: PerplexityOptions = OPTIONS, kv: int | None = 0, family: str = "mamba", **how: Any
    ) -> str:
        plan: Any = SimpleNamespace(family=family, engine="shared", max_length=512, name="m", **how)
        sizes: Any = SimpleNamespace(kv_elements_per_token=kv, training_length_tokens=2048)
        return context_for(options, plan, None if kv is None else sizes).label

    assert label() == label(kv=None) == "full context"
    assert label(kv=64) == "sliding window of 2048, stride 1024"
    assert label(kv=None, family="llama") == "sliding window of 512, stride 256"
    assert label(replace(OPTIONS, context="disjoint")) == "windows of 2048"
    with pytest.raises(UsageError, match="longer than the window of m, 2048"):
        label(replace(OPTIONS, context="sliding", stride_tokens=4096))


def test_records_are_kept_by_fingerprint(run: Run) -> None:
    outcome = run("mamba", limit=1)
    [stored] = Store(outcome.path.parent).runs()
    assert stored.long_records(PerplexityRecord) == list(outcome.records)
    path = stored.long_values_path(outcome.records[0])
    path.write_bytes(path.read_bytes()[:-8])
    n = outcome.records[0].n_tokens
    with pytest.raises(
        StoreError, match=rf"holds {n - 2} values for {n} tokens\. Delete the record beside it"
    ):
        stored.read_long_values(outcome.records[0])
    path.unlink()
    with pytest.raises(StoreError, match="cannot read the log-probabilities"):
        stored.read_long_values(outcome.records[0])
