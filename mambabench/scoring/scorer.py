"""Log-likelihoods by the plain forward: batches of similar length, logits only where they are read.

The batches follow from the requests alone, never from what happens to be answered already: an
interrupted run that goes on forms the same batches as an undisturbed one, so that its answers
are the same to the last bit.

    >>> plan_batches([5, 9, 5], [2, 2, 2], BatchLimits(tokens=10, logit_rows=100))
    [(1,), (0, 2)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.models.base import check_numbers
from mambabench.scoring.memory import in_halves
from mambabench.scoring.requests import LoglikelihoodAnswer, LoglikelihoodRequest

if TYPE_CHECKING:
    import torch

    from mambabench.models.base import LoadedModel

_ROWS_PER_SOFTMAX = 1024


@dataclass(frozen=True)
class BatchLimits:
    """How much goes into one forward.

    Args:
        tokens: most token positions, padding included.
        logit_rows: most rows of logits, padding included.
        sequences: most sequences; null leaves it to the other two.
    """

    tokens: int
    logit_rows: int
    sequences: int | None = None

    @classmethod
    def for_model(cls, model: LoadedModel, batch_size: int | None) -> BatchLimits:
        """Choose limits for a model's device and vocabulary.

        A processor gains nothing beyond a few thousand tokens a batch; a GPU does up to tens of
        thousands. Logits are kept below 256 MiB or 2 GiB as 32-bit floats.
        """
        on_gpu = model.device.type == "cuda"
        logit_bytes = (2 << 30) if on_gpu else (256 << 20)
        return cls(
            tokens=32_768 if on_gpu else 4_096,
            logit_rows=max(1, logit_bytes // (4 * model.vocab_size)),
            sequences=batch_size,
        )


def plan_batches(lengths: Sequence[int], rows: Sequence[int], limits: BatchLimits) -> list[tuple[int, ...]]:
    """Group requests into batches, longest first, so that padding is small and memory peaks early.

    Args:
        lengths: tokens to forward for each request.
        rows: trailing positions whose logits each request reads.
        limits: bounds on a batch; a request that exceeds them alone gets a batch of its own.

    Returns:
        Indices into `lengths`, every one exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], -rows[i], i))
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    width = keep = 0
    for i in order:
        new_width = max(width, lengths[i])
        # Right padding puts the rows that a short request reads further from the batch's end.
        new_keep = max(keep, rows[i] + new_width - lengths[i])
        n = len(current) + 1
        fits = (
            n * new_width <= limits.tokens
            and n * new_keep <= limits.logit_rows
            and (limits.sequences is None or n <= limits.sequences)
        )
        if current and not fits:
            batches.append(tuple(current))
            current, new_width, new_keep = [], lengths[i], rows[i]
        current.append(i)
        width, keep = new_width, new_keep
    if current:
        batches.append(tuple(current))
    return batches


class Scorer:
    """Answers log-likelihood requests with one model.

    Args:
        model: any loaded model.
        batch_size: most sequences in a forward; null lets the lengths decide.
        note: called with a sentence when something worth knowing happens, such as a halved batch.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.limits = BatchLimits.for_model(model, batch_size)
        self.tokens_forwarded = 0
        self._note = note

    def batches(self, requests: Sequence[LoglikelihoodRequest]) -> list[tuple[int, ...]]:
        """Return the batches that `score` forwards, as indices into `requests`."""
        lengths = [len(self._input(r)) for r in requests]
        rows = [len(r.continuation) for r in requests]
        return plan_batches(lengths, rows, self.limits)

    def score(
        self, requests: Sequence[LoglikelihoodRequest], batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[list[tuple[int, LoglikelihoodAnswer]]]:
        """Yield each batch's answers as (index into `requests`, answer) when they are known.

        Contexts that do not fit into the model's window lose tokens on the left.

        Args:
            requests: what to score.
            batches: which batches to forward, by default all of `self.batches(requests)`.

        Raises:
            ValueError: when a continuation is empty, or alone longer than the window.
            NotANumberError: when the model's logits are not numbers.
        """
        for batch in self.batches(requests) if batches is None else batches:
            yield from in_halves(lambda part: self._score_batch(requests, part), tuple(batch), self._note)

    def _input(self, request: LoglikelihoodRequest) -> tuple[int, ...]:
        """Return the ids to forward: all but the last, cut on the left to the window."""
        n = len(request.continuation)
        if not request.context or n == 0:
            raise ValueError("a context or a continuation without tokens cannot be scored")
        if n > self.model.max_length:
            raise ValueError(
                f"a continuation of {n} tokens is longer than the model's window of {self.model.max_length}"
            )
        return (request.context + request.continuation)[-(self.model.max_length + 1) : -1]

    def _score_batch(
        self, requests: Sequence[LoglikelihoodRequest], batch: tuple[int, ...]
    ) -> list[tuple[int, LoglikelihoodAnswer]]:
        import torch

        inputs = [self._input(requests[i]) for i in batch]
        width = max(len(ids) for ids in inputs)
        # Padding repeats a real id: its positions are never read, and every id is in the embedding.
        padded = torch.tensor(
            [list(ids) + [ids[-1]] * (width - len(ids)) for ids in inputs], dtype=torch.int64
        )
        starts = [len(ids) - len(requests[i].continuation) for ids, i in zip(inputs, batch, strict=True)]
        keep = width - min(starts)
        with torch.inference_mode():
            logits = self.model.logits(padded.to(self.model.device), keep)
            self.tokens_forwarded += padded.numel()
            answers = []
            for row, i in enumerate(batch):
                continuation = requests[i].continuation
                first = starts[row] - (width - keep)
                answers.append((i, _read(logits[row, first : first + len(continuation)], continuation)))
        return answers


def _read(logits: torch.Tensor, continuation: tuple[int, ...]) -> LoglikelihoodAnswer:
    """Read one continuation off its rows of logits, in 32-bit floats whatever the model's dtype.

    Args:
        logits: [n, vocab_size].
        continuation: n ids.
    """
    import torch

    total = 0.0
    greedy = True
    targets = torch.tensor(continuation, dtype=torch.int64, device=logits.device)
    for begin in range(0, len(continuation), _ROWS_PER_SOFTMAX):
        rows = logits[begin : begin + _ROWS_PER_SOFTMAX].float()
        wanted = targets[begin : begin + _ROWS_PER_SOFTMAX]
        # On a processor this op adds up the vocabulary in 32 bits, which moves a log-probability by about
        # 7e-6; lm-eval's does the same, and agreeing with it to the last digits is worth more.
        logprobs = rows.log_softmax(dim=1).gather(1, wanted[:, None])
        check_numbers(logprobs)
        total += float(logprobs.double().sum())
        greedy = greedy and bool((rows.argmax(dim=1) == wanted).all())
    return LoglikelihoodAnswer(total, greedy)
