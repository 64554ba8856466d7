"""The backend over a model whose answers are known: what is asked, what is kept, what is asked again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lm_eval.models
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mambabench.errors import NotANumberError, UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.fake import FakeModel
from mambabench.tasks.answering import Answerer, AnswersMissingError, MemoryAnswers
from mambabench.tasks.lm_eval_backend import MambabenchLM


def instance(kind: str, *args: Any, doc_id: int = 0, repeats: int = 1) -> Instance:
    return Instance(kind, {}, args, 0, ("task", doc_id, repeats))  # type: ignore[arg-type]


def backend(model: FakeModel | None = None, answers: Any = None, seed: int = 0, **how: Any) -> MambabenchLM:
    model = model or FakeModel(max_length=64)
    answerer = Answerer(MemoryAnswers() if answers is None else answers, model, **how)
    return MambabenchLM.over(
        answerer, tokenizer=model.tokenizer, max_length=model.max_length, model=model, seed=seed
    )


def silent(answers: MemoryAnswers) -> MambabenchLM:
    """A backend without a model."""
    return MambabenchLM.over(Answerer(answers), tokenizer=FakeModel().tokenizer, max_length=64)


def by_hand(model: FakeModel, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    ids = [*context, *continuation]
    rows = model.logits(torch.tensor([ids[:-1]]), len(continuation))[0].double().log_softmax(-1)
    picked = [float(rows[i, token]) for i, token in enumerate(continuation)]
    return sum(picked), all(int(r.argmax()) == t for r, t in zip(rows, continuation, strict=True))


PAIRS = [
    ("a river", " and a boat"),
    ("a river", " and a"),
    ("b ", "trailing space"),
    ("", "no context"),
    ("x", "y"),
]


def test_log_likelihoods_of_text() -> None:
    model = FakeModel(max_length=64)
    lm = backend(model)
    found = lm.loglikelihood([instance("loglikelihood", *p) for p in PAIRS])
    encode = model.tokenizer.encode
    for (context, continuation), (logprob, greedy) in zip(PAIRS, found, strict=True):
        before = context.rstrip() if context.rstrip() else context
        ids = encode(context + continuation)
        cut = len(encode(before)) if context else 0
        expected = by_hand(model, ids[:cut] or [0], ids[cut:])
        assert logprob == pytest.approx(expected[0], abs=1e-5)
        assert greedy == expected[1]


def test_rolling_log_likelihood_counts_each_token_once() -> None:
    model = FakeModel(max_length=16)
    text = "all work and no play makes a dull boy. " * 3
    (found,) = backend(model).loglikelihood_rolling([instance("loglikelihood_rolling", text)])
    windows = [
        make_disjoint_window(w) for w in get_rolling_token_windows(model.tokenizer.encode(text), 0, 16, 1)
    ]
    assert sum(len(k) for _, k in windows) == len(text)
    assert found == pytest.approx(sum(by_hand(model, c, k)[0] for c, k in windows), abs=1e-4)


def test_an_empty_text_has_likelihood_one() -> None:
    assert backend().loglikelihood_rolling([instance("loglikelihood_rolling", "")]) == [0]


def test_generated_text_ends_before_a_stop_string_and_leaves_room_for_itself() -> None:
    model = FakeModel(max_length=64)
    how = {"until": ["e"], "max_gen_toks": 40}
    prompts = ["short", "a prompt that is far longer than what the window leaves for it"]
    texts = backend(model).generate_until([instance("generate_until", p, how) for p in prompts])
    for prompt, text in zip(prompts, texts, strict=True):
        ids = model.tokenizer.encode(prompt)[-24:]
        whole = []
        for _ in range(40):
            whole.append(int(model.logits(torch.tensor([ids + whole]), 1)[0, -1].argmax()))
            if whole[-1] == 0:
                break
        assert text == model.tokenizer.decode(whole, skip_special_tokens=True).split("e")[0]


def test_a_window_without_room_for_the_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="256 tokens to generate leave no room"):
        backend().generate_until([instance("generate_until", "x", {"until": ["."]})])


def test_repeated_samples_differ_and_are_found_again() -> None:
    answers = MemoryAnswers()
    how = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 12}
    requests = [instance("generate_until", "x", how)] * 4
    first = backend(answers=answers).generate_until(requests)
    assert len(set(first)) == 4
    assert silent(answers).generate_until(requests) == first
    assert backend(seed=1).generate_until(requests) != first


class Interrupted(Exception):
    pass


class BreaksAfter(MemoryAnswers):
    """Keeps answers, and dies after a number of batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def append(self, items: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        super().append(items)


def test_an_interrupted_call_goes_on_where_it_was_with_the_same_bits() -> None:
    requests = [instance("loglikelihood", "a" * (1 + i % 7), "b" * (1 + i % 5), doc_id=i) for i in range(35)]
    whole = backend(batch_size=4).loglikelihood(requests)
    answers = BreaksAfter(3)
    with pytest.raises(Interrupted):
        backend(answers=answers, batch_size=4).loglikelihood(requests)
    answers.left = 1000
    lm = backend(answers=answers, batch_size=4)
    assert lm.loglikelihood(requests) == whole
    assert lm._answerer.n_answered_before > 0
    again = backend(answers=answers, batch_size=4)
    assert again.loglikelihood(requests) == whole
    assert again._answerer.tokens_forwarded == 0


def test_progress_adds_up_to_the_number_of_requests() -> None:
    done: list[int] = []
    lm = backend(advance=done.append, batch_size=2)
    requests = [instance("loglikelihood", *p) for p in PAIRS * 3]
    lm.loglikelihood(requests)
    lm.loglikelihood_rolling(
        [instance("loglikelihood_rolling", "word " * 60), instance("loglikelihood_rolling", "w")]
    )
    assert sum(done) == len(requests) + 2


def test_without_a_model_only_stored_answers_are_given() -> None:
    with pytest.raises(AnswersMissingError, match="1 log-likelihoods are not in the store"):
        silent(MemoryAnswers()).loglikelihood([instance("loglikelihood", "a", "b")])


def test_registered_with_lm_eval_beside_its_own_backends() -> None:
    assert lm_eval.models is not None
    assert get_model("mambabench") is MambabenchLM
    assert get_model("hf") is not MambabenchLM


def test_lm_evals_cache_hook_is_fed() -> None:
    kept: list[tuple[str, Any, Any]] = []

    class Hook:
        def add_partial(self, kind: str, args: Any, result: Any) -> None:
            kept.append((kind, args, result))

    lm = backend()
    lm.set_cache_hook(Hook())
    ((logprob, greedy),) = lm.loglikelihood([instance("loglikelihood", "a", "b")])
    assert kept == [("loglikelihood", ("a", "b"), (logprob, greedy))]
    assert math.isfinite(logprob)


def test_ids_that_the_checkpoint_names_end_a_text() -> None:
    model = FakeModel(max_length=64)
    prompt = torch.tensor([model.tokenizer.encode("x")])
    (free,) = model.generate(
        prompt, max_new_tokens=20, options=SamplingOptions(), stop=lambda row, new: False, eos_ids=[]
    )
    last = free[4]
    lm = MambabenchLM.over(
        Answerer(MemoryAnswers(), model),
        tokenizer=model.tokenizer,
        max_length=64,
        eos_ids=[last],
        model=model,
    )
    (text,) = lm.generate_until([instance("generate_until", "x", {"until": [], "max_gen_toks": 20})])
    assert text == model.tokenizer.decode(free[: free.index(last) + 1], skip_special_tokens=True)


def test_an_empty_continuation_is_refused_alone_and_among_others() -> None:
    for others in ([], [instance("loglikelihood", "a", "b")]):
        with pytest.raises(ValueError, match="without tokens"):
            backend().loglikelihood([*others, instance("loglikelihood", "a", "")])


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_what_is_not_a_number_is_no_answer(kind: str) -> None:
    class Broken(FakeModel):
        def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
            return super().logits(input_ids, keep) * math.nan

    lm = backend(Broken(max_length=64))
    args = ("a", "b") if kind == "loglikelihood" else ("a", {"until": [], "max_gen_toks": 3})
    with pytest.raises(NotANumberError, match="try --dtype"):
        getattr(lm, kind)([instance(kind, *args)])
