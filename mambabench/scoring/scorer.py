"""Log-likelihoods of requests: by shared states where the model has them, by the plain forward elsewhere.

for answers in Scorer(model).score(requests):
    for index, answer in answers:
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mambabench.scoring.budget import Fit, default_budget_bytes, split_tokens
from mambabench.scoring.memory import map_blocks_from
from mambabench.scoring.plain import PlainScorer
from mambabench.scoring.questions import Questions
from mambabench.scoring.requests import LoglikelihoodAnswer, LoglikelihoodRequest
from mambabench.scoring.shared import SharedScorer
from mambabench.scoring.trie_inputs import Bools, Int64s

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.stateful import StatefulModel

_LARGE_BLOCK_BYTES = 32 << 20
"""Without a budget only the largest buffers, logits for one, are given back at once."""
_SMALL_BLOCK_BYTES = 1 << 20
"""With one every activation is, which takes a tenth to a fifth longer."""


class Scorer:
    """Answers log-likelihood requests with one model.

    Args:
        model: any loaded model.
        batch_size: most sequences in a forward; null lets lengths and memory decide.
        memory_bytes: room for states, activations and logits; null for `default_budget_bytes`.
        max_length: longest window in tokens; null for the model's own.
        note: called with a sentence when something worth knowing happens, such as a halved batch.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int | None = None,
        memory_bytes: int | None = None,
        max_length: int | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        window = model.max_length if max_length is None else max_length
        self._engine: SharedScorer | PlainScorer
        stateful = model.stateful
        if stateful is None:
            self._engine = PlainScorer(model, batch_size=batch_size, max_length=window, note=note)
            if memory_bytes is not None:
                note(f"--memory-budget does not bound {model.record.name}, which runs as shipped")
            return
        self._engine = SharedScorer(
            stateful,
            max_length=window,
            fit=fit_for(model, stateful, memory_bytes),
            batch_size=batch_size,
            split_tokens=split_tokens(stateful.state_size, model.record.n_parameters),
            note=note,
        )

    @property
    def tokens_forwarded(self) -> int:
        """Token positions that went through the model so far, padding included."""
        return self._engine.tokens_forwarded

    @property
    def logit_rows(self) -> int:
        """Rows of logits computed so far."""
        return self._engine.logit_rows

    def score(
        self,
        asked: Questions | Sequence[LoglikelihoodRequest],
        wanted: Bools | None = None,
        *,
        tokens_of: Int64s | None = None,
    ) -> Iterator[list[tuple[int, LoglikelihoodAnswer]]]:
        """Yield answers as (index into `asked`, answer) as they become known.

        Contexts that do not fit into the model's window lose tokens on the left.

        Args:
            asked: the questions; batches are formed from all of them.
            wanted: [n] which answers are missing, by default all; others may be yielded again.
            tokens_of: [n] int64, increased by the tokens forwarded for each question.

        Raises:
            ValueError: when a continuation is empty, or alone longer than the window.
            NotANumberError: when the model's logits are not numbers.
        """
        questions = asked if isinstance(asked, Questions) else Questions.of(asked)
        if wanted is None:
            wanted = np.ones(len(questions), np.bool_)
        if tokens_of is None:
            tokens_of = np.zeros(len(questions), np.int64)
        yield from self._engine.score(questions, wanted, tokens_of)


def fit_for(model: LoadedModel, stateful: StatefulModel, memory_bytes: int | None) -> Fit:
    """Return what fits into the memory, and let the process give freed memory back from now on.

    Args:
        model: on its device.
        stateful: the same as a function of a state.
        memory_bytes: room for states, activations and logits; null for `default_budget_bytes`.
    """
    if model.device.type == "cpu":
        map_blocks_from(_LARGE_BLOCK_BYTES if memory_bytes is None else _SMALL_BLOCK_BYTES)
    return Fit.within(
        default_budget_bytes(model.device) if memory_bytes is None else memory_bytes,
        activation_bytes_per_token=stateful.activation_bytes_per_token,
        vocab_size=stateful.vocab_size,
        on_gpu=model.device.type == "cuda",
        workspace_bytes=stateful.workspace_bytes,
    )
