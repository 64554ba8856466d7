"""The model type `mambabench` of lm-eval: any loaded model, with answers that survive an interruption.

Tokenisation and windows follow lm-eval's own Hugging Face backend, so that both ask a model the same
questions; the scoring differs: 32-bit softmax for every family, no padded vocabulary, no left padding.

    import lm_eval, mambabench.tasks.lm_eval_backend
    lm_eval.simple_evaluate(model="mambabench", model_args="pretrained=mamba-130m", tasks=["piqa"])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

# lm-eval registers its own backends when this is imported, but only while no other is registered.
import lm_eval.models  # noqa: F401
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import model_registry
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mambabench.errors import MambabenchError, UsageError
from mambabench.models.base import SamplingOptions
from mambabench.scoring.generate import Generator
from mambabench.scoring.requests import GenerationRequest, LoglikelihoodAnswer, LoglikelihoodRequest
from mambabench.scoring.scorer import Scorer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import LoadedModel

_R = TypeVar("_R", LoglikelihoodRequest, GenerationRequest)
_E = TypeVar("_E", Scorer, Generator)

_DEFAULT_NEW_TOKENS = 256
_NAMED_OPTIONS = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}


class Answers(Protocol):
    """Where answers are kept; `mambabench.store.AnswerLog` keeps them on disk."""

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer filed under `key`, or null."""
        ...

    def append(self, items: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """File answers so that they outlive the process."""
        ...


class MemoryAnswers:
    """Answers kept for as long as the process lives."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer filed under `key`, or null."""
        return self._by_key.get(key)

    def append(self, items: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """File answers."""
        self._by_key.update(items)


class AnswersMissingError(MambabenchError):
    """A question has no stored answer and there is no model to ask."""


class MambabenchLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's view of a model: strings in, log-likelihoods and text out.

    Args:
        pretrained: what `--model` takes: a registry name, `hf:org/name`, or a directory. A plain
            `org/name` that is neither is taken for a Hub id, as lm-eval's users write it.
        revision: commit, branch or tag of the Hub repository.
        tokenizer: directory or Hub id of another tokenizer.
        weights: "pretrained" or "random".
        dtype: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda" or "cuda:i".
        batch_size: most sequences in a forward; "auto" or null lets the lengths decide.
        max_length: longest window in tokens; null for the model's own.
        max_gen_toks: most tokens to generate where the task does not say.
        max_batch_size: accepted because lm-eval always passes it; unused.

    Raises:
        MambabenchError: when the checkpoint cannot be loaded.
    """

    backend = "causal"

    def __init__(
        self,
        pretrained: str,
        *,
        revision: str | None = None,
        tokenizer: str | None = None,
        weights: str = "pretrained",
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = _DEFAULT_NEW_TOKENS,
        max_batch_size: int | None = None,
    ) -> None:
        from mambabench.models.load import check, load
        from mambabench.registry import resolve

        if weights not in ("pretrained", "random"):
            raise UsageError(f"weights '{weights}' is neither 'pretrained' nor 'random'")
        ref = resolve(_as_model_text(pretrained, revision))
        plan = check(
            ref,
            weights="random" if weights == "random" else "pretrained",
            dtype=dtype,
            device=device or "auto",
            tokenizer=tokenizer,
            max_length=max_length,
        )
        model = load(plan)
        self._set_up(model.tokenizer, model.max_length, model, MemoryAnswers(), _parse_batch_size(batch_size))
        self._max_gen_toks = max_gen_toks

    @classmethod
    def over(
        cls,
        *,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        answers: Answers,
        model: LoadedModel | None = None,
        batch_size: int | None = None,
        advance: Callable[[int], None] = lambda n: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> MambabenchLM:
        """Build the backend over parts that exist already.

        Args:
            tokenizer: turns text into ids.
            max_length: longest window in tokens.
            answers: looked into before the model is asked, and added to after every batch.
            model: asked what is not answered yet; null when everything must be.
            batch_size: most sequences in a forward; null lets the lengths decide.
            advance: called with the number of requests of lm-eval that have just been answered.
            note: called with a sentence when something worth knowing happens.
        """
        lm = cls.__new__(cls)
        lm._set_up(tokenizer, max_length, model, answers, batch_size)
        lm._advance = advance
        if lm._scorer is not None:
            lm._scorer._note = note
        return lm

    def _set_up(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        model: LoadedModel | None,
        answers: Answers,
        batch_size: int | None,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.answers = answers
        self.batch_size = batch_size or "auto"
        self.n_answered_before = 0
        self._model = model
        self._scorer = Scorer(model, batch_size=batch_size) if model is not None else None
        self._generator = Generator(model, batch_size=batch_size) if model is not None else None
        self._max_gen_toks = _DEFAULT_NEW_TOKENS
        self._advance: Callable[[int], None] = lambda n: None
        if model is not None:
            self._device = model.device

    @property
    def tokens_forwarded(self) -> int:
        """Token positions that went through the model so far, padding included."""
        counters = (self._scorer, self._generator)
        return sum(c.tokens_forwarded for c in counters if c is not None)

    @property
    def eot_token_id(self) -> int:
        """Id that ends a text."""
        ids = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id)
        return int(next((i for i in ids if i is not None), 0))

    @property
    def prefix_token_id(self) -> int:
        """Id that stands before a text without context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def max_gen_toks(self) -> int:
        """Most tokens generated where the task does not say."""
        return self._max_gen_toks

    @property
    def tokenizer_name(self) -> str:
        """Name that keeps lm-eval's own request caches apart."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what was loaded, for lm-eval's results file."""
        if self._model is None:
            return {}
        record = self._model.record
        return {
            "model_num_parameters": record.n_parameters,
            "model_dtype": record.dtypes.get("matmul", ""),
            "model_revision": record.revision or "",
            "model_sha": record.revision or "",
            "mambabench": record.model_dump(mode="json"),
        }

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Turn a conversation into one prompt with the tokenizer's chat template.

        Raises:
            UsageError: when the tokenizer has no chat template.
        """
        from mambabench.tasks.chat import render_chat

        return render_chat(self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Encode as the tokenizer does by itself, without a second start-of-text token."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [LoglikelihoodRequest(tuple(c), tuple(k)) for _, c, k in requests]
        answers = self._answer_loglikelihoods(asked, [1] * len(asked))
        results = [(a.logprob, a.is_greedy) for a in answers]
        for (texts, _, _), result in zip(requests, results, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, result)
        return results

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return for each (context, continuation) its log-likelihood and whether it is greedy."""
        result: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return result

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return each text's log-likelihood, in windows that overlap by one token."""
        asked: list[LoglikelihoodRequest] = []
        counts = []
        for request in requests:
            windows = [
                make_disjoint_window(w)
                for w in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
            ]
            asked += [LoglikelihoodRequest(tuple(c), tuple(k)) for c, k in windows]
            counts.append(len(windows))
        last_windows = [w for n in counts for w in [0] * (n - 1) + [1] * min(n, 1)]
        answers = iter(self._answer_loglikelihoods(asked, last_windows))
        totals = [sum(next(answers).logprob for _ in range(n)) for n in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return each prompt's continuation, cut before its first stop string."""
        draws: Counter[str] = Counter()
        asked = []
        for request in requests:
            prompt, how = request.args
            asked.append(self._generation_request(prompt, how, draws))
        texts = self._answer_generations(asked)
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _generation_request(self, prompt: str, how: dict[str, Any], draws: Counter[str]) -> GenerationRequest:
        options = dict(normalize_gen_kwargs(how, self.max_gen_toks))
        eos = self.tokenizer.decode(self.eot_token_id)
        stop = handle_stop_sequences(options.pop("until", None), eos=eos)
        max_new_tokens = int(options.pop("max_gen_toks"))
        room = self.max_length - max_new_tokens
        if room <= 0:
            raise UsageError(
                f"{max_new_tokens} tokens to generate leave no room for a prompt "
                f"in a window of {self.max_length}",
                hint="Raise the window with --max-length.",
            )
        special = {"add_special_tokens": False} if has_bos_prefix(prompt, self.tokenizer.bos_token) else {}
        context = list(self.tokenizer.encode(prompt, **special))[-room:] or [self.prefix_token_id]
        sampling = _sampling(options)
        repeat = 0
        if sampling.do_sample:
            # Draws of one sampled prompt must differ from each other, yet be found again on a re-run.
            same = repr((prompt, sorted(how.items(), key=repr)))
            repeat = draws[same]
            draws[same] += 1
        return GenerationRequest(tuple(context), max_new_tokens, tuple(stop), sampling, repeat)

    def _answer_loglikelihoods(
        self, asked: Sequence[LoglikelihoodRequest], worth: Sequence[int]
    ) -> list[LoglikelihoodAnswer]:
        unique, missing = self._file(asked, worth)
        if missing:
            engine = self._need(self._scorer, len(missing), "log-likelihoods")
            # All of a batch is forwarded again even if some of it is known: the same batch gives the
            # same bits.
            batches = [b for b in engine.batches(unique) if any(unique[i].key in missing for i in b)]
            for answers in engine.score(unique, batches):
                self._keep([(unique[i].key, vars(a)) for i, a in answers], missing)
        return [LoglikelihoodAnswer(**self._known(r.key)) for r in asked]

    def _answer_generations(self, asked: Sequence[GenerationRequest]) -> list[str]:
        unique, missing = self._file(asked, [1] * len(asked))
        if missing:
            engine = self._need(self._generator, len(missing), "generated texts")
            batches = [b for b in engine.batches(unique) if any(unique[i].key in missing for i in b)]
            for texts in engine.generate(unique, batches):
                self._keep([(unique[i].key, {"text": t}) for i, t in texts], missing)
        return [str(self._known(r.key)["text"]) for r in asked]

    def _file(self, asked: Sequence[_R], worth: Sequence[int]) -> tuple[list[_R], dict[str, int]]:
        """Return the distinct requests, and what each unanswered key is worth in lm-eval's requests."""
        unique = list({r.key: r for r in asked}.values())
        per_key = Counter[str]()
        for r, n in zip(asked, worth, strict=True):
            per_key[r.key] += n
        missing = {k: n for k, n in per_key.items() if self.answers.get(k) is None}
        known = per_key.total() - sum(missing.values())
        self.n_answered_before += known
        self._advance(known)
        return unique, missing

    def _keep(self, answers: Sequence[tuple[str, dict[str, Any]]], missing: dict[str, int]) -> None:
        new = [(key, answer) for key, answer in answers if key in missing]
        self.answers.append(new)
        self._advance(sum(missing[key] for key, _ in new))

    def _need(self, engine: _E | None, n: int, what: str) -> _E:
        if engine is None:
            raise AnswersMissingError(f"{n} {what} are not in the store")
        return engine

    def _known(self, key: str) -> dict[str, Any]:
        answer = self.answers.get(key)
        if answer is None:
            raise AnswersMissingError("an answer that was just stored cannot be read back")
        return answer


def _sampling(options: dict[str, Any]) -> SamplingOptions:
    do_sample = bool(options.pop("do_sample", False))
    named = {k: options.pop(k) for k in list(options) if k in _NAMED_OPTIONS}
    if not do_sample:
        named.pop("temperature", None)
    return SamplingOptions(do_sample=do_sample, extra=options, **named)


def _as_model_text(pretrained: str, revision: str | None) -> str:
    from pathlib import Path

    from mambabench.registry import load_registry

    text = pretrained
    name = pretrained.partition("@")[0]
    if name.count("/") == 1 and not name.startswith("hf:") and not Path(name).exists():
        by_hub_id = {s.hub_id: s.name for s in load_registry().values() if s.hub_id and not s.bundled}
        text = by_hub_id.get(name, f"hf:{name}") + pretrained[len(name) :]
    return f"{text}@{revision}" if revision and revision != "main" else text


def _parse_batch_size(batch_size: int | str | None) -> int | None:
    if batch_size is None or str(batch_size).startswith("auto"):
        return None
    return int(batch_size)


if "mambabench" not in model_registry:
    model_registry.register("mambabench")(MambabenchLM)
