"""Log-likelihoods with shared prefixes: each segment of the plan is forwarded once, from its parent's state.

Batches follow from the questions alone, never from what happens to be answered already: an interrupted
run that goes on forms the same batches as an undisturbed one, so that its answers are the same to the
last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mambabench.models.stateful import State, StatefulModel, Step
from mambabench.scoring import trie
from mambabench.scoring.budget import Fit
from mambabench.scoring.memory import give_back, in_halves
from mambabench.scoring.questions import Questions
from mambabench.scoring.readout import read_in_chunks
from mambabench.scoring.requests import LoglikelihoodAnswer
from mambabench.scoring.trie_inputs import Bools, Int32s, Int64s

if TYPE_CHECKING:
    from torch import Tensor

    from mambabench.scoring.trie_plan import Batch, Plan

Answered = list[tuple[int, LoglikelihoodAnswer]]
Floats = npt.NDArray[np.float64]


class SharedScorer:
    """Answers questions with a model that goes on from states.

    Args:
        model: forwards from a state.
        max_length: longest window in tokens.
        fit: what fits into the memory.
        batch_size: most rows in a forward; null leaves it to the memory.
        split_tokens: what starting from a kept state costs, in forwarded tokens.
        note: called with a sentence when something worth knowing happens.
    """

    def __init__(
        self,
        model: StatefulModel,
        *,
        max_length: int,
        fit: Fit,
        batch_size: int | None,
        split_tokens: float,
        note: Callable[[str], None],
    ) -> None:
        self.fit = fit
        self.tokens_forwarded = 0
        self.logit_rows = 0
        self._model = model
        self._max_length = max_length
        self._costs = fit.costs(model.state_size, batch_size, split_tokens=split_tokens)
        self._note = note

    def plan(self, questions: Questions) -> Plan:
        """Return the plan by which the questions are answered.

        Raises:
            ValueError: a continuation is longer than the window.
        """
        return trie.plan(questions.sequences(self._max_length), self._costs)

    def score(self, questions: Questions, wanted: Bools, tokens_of: Int64s) -> Iterator[Answered]:
        """Yield the wanted answers, batch by batch, as (index into `questions`, answer).

        Args:
            questions: all that is asked, whether answered before or not.
            wanted: [n] which answers are missing.
            tokens_of: [n] is increased by the tokens forwarded for each question; what several share counts
                for the first of them.

        Raises:
            ValueError: a continuation is longer than the window.
            NotANumberError: the model's logits are not numbers.
        """
        plan = self.plan(questions)
        needed = plan.batches_for(wanted)
        plan = plan.only(needed)
        reading = _Reading(questions, wanted, self._max_length)
        live: dict[int, tuple[State, int]] = {}
        for index in np.flatnonzero(needed):
            work = plan.work(int(index))
            np.add.at(tokens_of, plan.owner[work.segments], work.lengths)
            self.tokens_forwarded += len(work.ids)
            self._forward(work, live, reading)
            for segment in work.released:
                live.pop(int(segment), None)
            give_back()
            if answered := reading.finished(work):
                yield answered

    def _forward(self, work: Batch, live: dict[int, tuple[State, int]], reading: _Reading) -> None:
        """Forward a batch, read it, and keep the states that later batches start from."""
        starts = np.append(0, np.cumsum(work.lengths, dtype=np.int64))

        def some(rows: tuple[int, ...]) -> None:
            self._rows(work, starts, rows[0], rows[-1] + 1, live, reading)

        for _ in in_halves(some, tuple(range(len(work.segments))), self._note):
            pass

    def _rows(
        self,
        work: Batch,
        starts: Int64s,
        first: int,
        last: int,
        live: dict[int, tuple[State, int]],
        reading: _Reading,
    ) -> None:
        import torch

        begin, end = starts[first], starts[last]
        keep = np.flatnonzero(work.keeps_state[first:last]).tolist()
        low, high = np.searchsorted(work.rows, [begin, end])
        device = self._model.device
        step = self._stepped(
            torch.from_numpy(work.ids[begin:end].astype(np.int64)).to(device),
            work.lengths[first:last].tolist(),
            self._states(work.parents[first:last].tolist(), live),
            read=work.rows[low:high] - begin,
            keep=keep,
        )
        order = np.argsort(work.read_row, kind="stable")
        rows = work.read_row[order]
        found = []
        for top in range(low, high, self.fit.logit_rows):
            bottom = min(top + self.fit.logit_rows, high)
            mine = order[slice(*np.searchsorted(rows, [top, bottom]))]
            found.append((mine, *self._read(step.hidden[top - low : bottom - low], work, mine, top, reading)))
        # Only now, since rows that fail for lack of memory are tried again in smaller parts.
        self.logit_rows += int(high - low)
        for mine, logprobs, is_best in found:
            reading.add(work, mine, logprobs, is_best)
        if step.state is not None:
            for row, position in enumerate(keep):
                live[int(work.segments[first + position])] = step.state, row

    def _stepped(
        self, ids: Tensor, lengths: list[int], state: State | None, *, read: Int64s, keep: list[int]
    ) -> Step:
        """Forward rows, giving up `state`; one that alone is longer than a batch goes in pieces."""
        import torch

        bound = self.fit.batch_tokens if self._must_cut(lengths) else len(ids)
        hidden = []
        for begin in range(0, len(ids), bound):
            end = min(begin + bound, len(ids))
            is_whole, is_last = bound == len(ids), end == len(ids)
            here = read[slice(*np.searchsorted(read, [begin, end]))] - begin
            step = self._model.step(
                ids[begin:end],
                lengths if is_whole else [end - begin],
                state,
                read=torch.from_numpy(here).to(ids.device),
                keep=keep if is_last else None,
                consume=True,
            )
            state = step.state
            hidden.append(step.hidden)
        return Step(hidden[0] if len(hidden) == 1 else torch.cat(hidden), state)

    def _must_cut(self, lengths: list[int]) -> bool:
        """Return whether a row goes in pieces: not where the state between them takes what they save."""
        each, size = self._model.activation_bytes_per_token, self._model.state_size
        n = lengths[0]
        in_pieces = self.fit.batch_tokens * each + size.fixed_bytes + n * size.bytes_per_token
        return len(lengths) == 1 and n > self.fit.batch_tokens and in_pieces < n * each

    def _states(self, parents: list[int], live: dict[int, tuple[State, int]]) -> State | None:
        """Gather the states that the rows start from; null when all begin here."""
        if all(parent < 0 for parent in parents):
            return None
        fresh = self._model.start(1)
        return State.gather([(fresh, 0) if parent < 0 else live[parent] for parent in parents])

    def _read(
        self, hidden: Tensor, work: Batch, mine: Int64s, top: int, reading: _Reading
    ) -> tuple[Floats, Bools]:
        """Return the log-probabilities that some reads ask for, and whether each is the best of its row."""
        import torch

        device = hidden.device
        rows = torch.from_numpy(work.read_row[mine] - top).to(device)
        targets = torch.from_numpy(reading.targets(work, mine).astype(np.int64)).to(device)
        with torch.inference_mode():
            logprobs, is_best = read_in_chunks(
                lambda first, last: self._model.logits(hidden, first=first, last=last),
                self._model.vocab_size,
                rows,
                targets,
            )
        return logprobs.cpu().numpy(), is_best.cpu().numpy()


class _Reading:
    """Sums of log-probabilities as they come in; a continuation may be read in several batches."""

    def __init__(self, questions: Questions, wanted: Bools, max_length: int) -> None:
        n = len(questions)
        self._questions = questions
        self._wanted = wanted
        self._max_length = max_length
        self._total = np.zeros(n)
        self._is_greedy = np.ones(n, np.bool_)
        self._missing = questions.n_continuation.astype(np.int64)

    def targets(self, work: Batch, mine: Int64s) -> Int32s:
        """Return the ids whose log-probabilities some reads of a batch ask for."""
        return self._questions.targets(work.read_sequence[mine], work.read_position[mine], self._max_length)

    def add(self, work: Batch, mine: Int64s, logprobs: Floats, is_best: Bools) -> None:
        """Add what some reads of a batch found."""
        sequences = work.read_sequence[mine]
        np.add.at(self._total, sequences, logprobs)
        np.logical_and.at(self._is_greedy, sequences, is_best)
        np.subtract.at(self._missing, sequences, 1)

    def finished(self, work: Batch) -> Answered:
        """Return the wanted answers that a batch completed."""
        seen = np.unique(work.read_sequence)
        done = seen[(self._missing[seen] == 0) & self._wanted[seen]]
        return [(int(i), LoglikelihoodAnswer(float(self._total[i]), bool(self._is_greedy[i]))) for i in done]
