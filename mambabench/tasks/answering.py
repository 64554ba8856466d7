"""Requests to answers: looked up first, then asked of the model, and kept as each batch ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mambabench.errors import MambabenchError
from mambabench.scoring.generate import Generator
from mambabench.scoring.requests import GenerationRequest, LoglikelihoodAnswer, LoglikelihoodRequest
from mambabench.scoring.scorer import Scorer

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel

_R = TypeVar("_R", LoglikelihoodRequest, GenerationRequest)
_E = TypeVar("_E", Scorer, Generator)


class AnswersMissingError(MambabenchError):
    """A question has no stored answer and there is no model to ask."""


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


class Answerer:
    """Answers requests from a store and, where it has none, from a model.

    Args:
        answers: looked into before the model is asked, and added to after every batch.
        model: asked what is not answered yet; null when everything must be.
        batch_size: most sequences in a forward; null lets the lengths decide.
        advance: called with the number of requests that have just been answered.
        note: called with a sentence when something worth knowing happens.
    """

    def __init__(
        self,
        answers: Answers,
        model: LoadedModel | None = None,
        *,
        batch_size: int | None = None,
        advance: Callable[[int], None] = lambda n: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.n_answered_before = 0
        self._answers = answers
        self._advance = advance
        self._scorer = self._generator = None
        if model is not None:
            self._scorer = Scorer(model, batch_size=batch_size, note=note)
            self._generator = Generator(model, batch_size=batch_size, note=note)

    @property
    def tokens_forwarded(self) -> int:
        """Token positions that went through the model so far, padding included."""
        return sum(e.tokens_forwarded for e in (self._scorer, self._generator) if e is not None)

    def loglikelihoods(
        self, asked: Sequence[LoglikelihoodRequest], worth: Sequence[int]
    ) -> list[LoglikelihoodAnswer]:
        """Answer log-likelihood requests in order.

        Args:
            asked: requests; equal ones are forwarded once.
            worth: what each counts for in the progress.

        Raises:
            AnswersMissingError: when something is not stored and there is no model.
        """
        unique, missing = self._sort_out(asked, worth)
        if missing:
            engine = _needed(self._scorer, len(missing), "log-likelihoods")
            # All of a batch is forwarded again even if some of it is known: the same batch gives the
            # same bits.
            batches = [b for b in engine.batches(unique) if any(unique[i].key in missing for i in b)]
            for answers in engine.score(unique, batches):
                self._keep([(unique[i].key, vars(a)) for i, a in answers], missing)
        return [LoglikelihoodAnswer(**self._known(r.key)) for r in asked]

    def texts(self, asked: Sequence[GenerationRequest]) -> list[str]:
        """Answer generation requests in order.

        Raises:
            AnswersMissingError: when something is not stored and there is no model.
        """
        unique, missing = self._sort_out(asked, [1] * len(asked))
        if missing:
            engine = _needed(self._generator, len(missing), "generated texts")
            batches = [b for b in engine.batches(unique) if any(unique[i].key in missing for i in b)]
            for texts in engine.generate(unique, batches):
                self._keep([(unique[i].key, {"text": t}) for i, t in texts], missing)
        return [str(self._known(r.key)["text"]) for r in asked]

    def _sort_out(self, asked: Sequence[_R], worth: Sequence[int]) -> tuple[list[_R], dict[str, int]]:
        """Return the distinct requests, and what each unanswered key is worth."""
        unique = list({r.key: r for r in asked}.values())
        per_key = Counter[str]()
        for r, n in zip(asked, worth, strict=True):
            per_key[r.key] += n
        missing = {k: n for k, n in per_key.items() if self._answers.get(k) is None}
        known = per_key.total() - sum(missing.values())
        self.n_answered_before += known
        self._advance(known)
        return unique, missing

    def _keep(self, answers: Sequence[tuple[str, dict[str, Any]]], missing: dict[str, int]) -> None:
        new = [(key, answer) for key, answer in answers if key in missing]
        self._answers.append(new)
        self._advance(sum(missing[key] for key, _ in new))

    def _known(self, key: str) -> dict[str, Any]:
        answer = self._answers.get(key)
        if answer is None:
            raise AnswersMissingError("an answer that was just stored cannot be read back")
        return answer


def _needed(engine: _E | None, n: int, what: str) -> _E:
    if engine is None:
        raise AnswersMissingError(f"{n} {what} are not in the store")
    return engine
