"""Faults of the tools that this one replaces, each shown to be absent.

Numbers in brackets are issues of EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_llama, tiny_mamba, tiny_mamba2, tiny_neox
from lm_eval.api.instance import Instance

from mambabench.fingerprint import digest
from mambabench.models.fake import FakeModel
from mambabench.models.load import check, load
from mambabench.registry import resolve
from mambabench.schema import RunManifest, SettingsRecord
from mambabench.scoring.requests import LoglikelihoodRequest
from mambabench.scoring.scorer import Scorer
from mambabench.stats.intervals import wilson
from mambabench.store import Store
from mambabench.tasks.answering import Answerer, MemoryAnswers
from mambabench.tasks.lm_eval_backend import MambabenchLM

FAMILIES = {"mamba": tiny_mamba, "mamba2": tiny_mamba2, "gpt_neox": tiny_neox, "llama": tiny_llama}


def loaded(folder: Path, family: str, dtype: str = "float32") -> Any:
    return load(check(resolve(str(FAMILIES[family](folder))), dtype=dtype, device="cpu"))


def over(model: Any, answers: Any = None) -> MambabenchLM:
    return MambabenchLM.over(
        Answerer(MemoryAnswers() if answers is None else answers, model),
        tokenizer=model.tokenizer,
        max_length=model.max_length,
        model=model,
    )


def generation(prompt: str, **how: Any) -> Instance:
    return Instance("generate_until", {}, (prompt, {"max_gen_toks": 12, "until": [], **how}), 0, ("t", 0, 1))


def likelihood(context: str, continuation: str) -> Instance:
    return Instance("loglikelihood", {}, (context, continuation), 0, ("t", 0, 1))


def test_a_second_model_does_not_get_the_first_ones_answers(tmp_path: Path) -> None:
    """`--use_cache` is not keyed by model (2715, 4063)."""
    manifest = RunManifest(
        name="run", kind="zeroshot", command=(), created_utc="2026-01-01T00:00:00Z", identity=digest("run"),
        suite="s", suite_sha256="", models=("a", "b"), partial=False,
        settings=SettingsRecord(dtype="float32", device="cpu", batch_size=None, limit=None),
    )  # fmt: skip
    request = [likelihood("a", "b")]
    with Store(tmp_path / "results").open_run(manifest) as run:
        found = [
            over(FakeModel(seed=seed), run.answers(digest(seed), "settings")).loglikelihood(request)
            for seed in (0, 1)
        ]
        again = over(FakeModel(seed=99), run.answers(digest(0), "settings")).loglikelihood(request)
    assert found[0] != found[1]
    assert again == found[0]


def test_the_same_ids_split_elsewhere_are_another_question() -> None:
    """`logits_cache=True` gives the answer of one split to the other."""
    model = FakeModel()
    ids = tuple(model.tokenizer.encode("the same letters"))
    split = [LoglikelihoodRequest(ids[:k], ids[k:]) for k in (4, 9)]
    found = {i: a.logprob for batch in Scorer(model).score(split) for i, a in batch}
    rows = model.logits(torch.tensor([ids[:-1]]), len(ids) - 1)[0].double().log_softmax(-1)
    for i, k in enumerate((4, 9)):
        expected = sum(float(rows[p - 1, ids[p]]) for p in range(k, len(ids)))
        assert found[i] == pytest.approx(expected, abs=1e-4)
    assert abs(found[0] - found[1]) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_generation_equals_single_generation(tmp_path: Path, family: str) -> None:
    """The mamba_ssm backend pads on the left and drops the mask."""
    model = loaded(tmp_path / "m", family)
    prompts = ["the river", "a", "the old man and the boat", "of the dog", "b"]
    together = over(model).generate_until([generation(p) for p in prompts])
    alone = [over(model).generate_until([generation(p)])[0] for p in prompts]
    assert together == alone
    assert len(set(together)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_strings_and_sampling_are_heeded(tmp_path: Path, family: str) -> None:
    """The mamba_ssm backend ignores stop strings, and turns sampling into greedy choice."""
    model = loaded(tmp_path / "m", family)
    (free,) = over(model).generate_until([generation("the river")])
    stop = free[len(free) // 2]
    (stopped,) = over(model).generate_until([generation("the river", until=[stop])])
    assert stopped == free.split(stop)[0]
    sampled = {
        over(model).generate_until([generation("the river", do_sample=True, temperature=t)])[0]
        for t in (2.0, 3.0, 4.0)
    }
    assert sampled - {free}


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_ends_at_the_end_of_text(tmp_path: Path, family: str) -> None:
    """The mamba_ssm backend goes on to the maximal length."""
    model = loaded(tmp_path / "m", family)
    ids = torch.tensor([model.tokenizer.encode("the river")])
    from mambabench.models.base import SamplingOptions

    def run(eos: list[int]) -> list[int]:
        (new,) = model.generate(
            ids, max_new_tokens=9, options=SamplingOptions(), stop=lambda row, new: False, eos_ids=eos
        )
        return list(new)

    free = run([])
    assert len(free) == 9
    first = free.index(free[3])
    assert run([free[3]]) == free[: first + 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_softmax_is_taken_in_32_bits_whatever_the_models_dtype(tmp_path: Path, family: str) -> None:
    """lm-eval takes it in the logits' dtype, which differs by architecture."""
    model = loaded(tmp_path / "m", family, dtype="bfloat16")
    ids = tuple(model.tokenizer.encode("the old man went to the river"))
    ((_, answer),) = next(Scorer(model).score([LoglikelihoodRequest(ids[:2], ids[2:])]))
    steps = model.stateful
    hidden = steps.step(torch.tensor(ids[:-1]), [len(ids) - 1]).hidden[1:]
    rows = steps.logits(hidden).double().log_softmax(-1)
    expected = sum(float(rows[i, token]) for i, token in enumerate(ids[2:]))
    assert answer.logprob == pytest.approx(expected, abs=1e-4)


def test_no_batch_size_is_probed() -> None:
    """`batch_size=auto` forwards the longest batch five times and can take the process down."""
    calls = []

    class Counting(FakeModel):
        def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
            calls.append(tuple(input_ids.shape))
            return super().logits(input_ids, keep)

    lm = over(Counting(max_length=128))
    lm.loglikelihood([likelihood("a" * n, "b") for n in range(1, 60)])
    assert len(calls) == 1


def test_nothing_is_counted_twice_in_a_distributed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multi-node runs count documents twice (1081); we are one process, and say so."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    lm = over(FakeModel())
    assert (lm.rank, lm.world_size) == (0, 1)


@pytest.mark.parametrize("successes", [0, 20])
def test_certainty_is_never_claimed_from_a_few_items(successes: int) -> None:
    """An accuracy of 0 or 1 gets a standard error of 0 (4070)."""
    interval = wilson(successes, 20)
    assert interval.high - interval.low > 0.1


def test_another_prompt_is_another_question() -> None:
    """`cache_requests` ignores changes of the prompt (4084); ours are filed by their ids."""
    answers = MemoryAnswers()
    first = over(FakeModel(), answers).loglikelihood([likelihood("Question: a", " b")])
    second = over(FakeModel(), answers).loglikelihood([likelihood("Query: a", " b")])
    assert first != second


def test_an_unknown_task_is_answered_at_once_with_a_suggestion() -> None:
    """lm-eval needs 7 seconds, and offers nothing."""
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mambabench", "zeroshot", "--model", "mamba-tiny", "--task", "hellaswagg"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown task 'hellaswagg'. Closest: hellaswag")
    assert len(done.stderr.splitlines()) == 1
    # Two seconds on an idle machine; the bound leaves room for a busy one.
    assert time.perf_counter() - began_s < 6
