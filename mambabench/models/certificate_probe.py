"""What a certificate is measured on: rows of ids, run by the shipped code and by the fast path.

The fast path is used on them as scoring and generation use it, in three ways; each is compared on its own.

    probe = make_probe(model, model.module, token_ids(model.tokenizer, model.vocab_size))
    for answer in KINDS["from a state"](model.stateful, probe):
        answer.places, answer.logits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mambabench.errors import NotANumberError
from mambabench.models.base import NO_NUMBER_HINT
from mambabench.models.stateful import State, StatefulModel
from mambabench.models.wide_forward import shipped_logits, wide_logits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import LoadedModel

_PARAMETERS_PER_THREAD = 1 << 29
"""Of a smaller model a loop's steps are too short to share: beside other programs, threads that wait for each
other make them fifty times slower."""
_TRUNK_TOKENS = 9
_BRANCH_TOKENS = (7, 4, 1)
"""Of the rows that go on from the trunk; several lengths, and one token for itself."""
_OWN_TOKENS, _OWN_SPLIT = 6, 2
"""Of a row that shares nothing; its prefix is shorter than a convolution's window."""
_MORE_ROWS = 8, 20
"""Side by side token by token, besides one and two: a processor's programs for up to 4 rows, for up to 16,
and for more differ from each other, and so may a GPU's."""
_LONG_TOKENS, _LONG_COMPARED = 134, 8
"""A model that scans in chunks gets a row longer than the 128 tokens of ours, compared at its end. Where a
device computes long rows in another way, a recurrent model gets one that is as long behind a short prefix."""
_TEXT = (
    "The river rose in the night, and by the morning nobody in the village could say where its banks were. "
    "Anna asked her brother for 3 boats; he had only two, he said, and one of them was not his own."
)


@dataclass(frozen=True)
class Probe:
    """Rows of ids, with what the shipped code gives for the last positions of each."""

    rows: list[list[int]]
    compared: list[int]
    """Last positions of each row that are compared."""
    exact: list[Tensor]
    """In 64 bits, for each row [compared, vocab_size]."""
    shipped: list[Tensor]
    n_threads: int
    """As many as the model's size is worth."""

    def places(self, row: int, first: int, last: int) -> list[tuple[int, int]]:
        """Return (row, position) of what is compared between two positions of a row."""
        start = len(self.rows[row]) - self.compared[row]
        return [(row, position) for position in range(max(first, start), last)]


@dataclass(frozen=True)
class Answer:
    """Logits of the fast path [n, vocab_size], and the (row, position) of each."""

    places: list[tuple[int, int]]
    logits: Tensor


def make_probe(model: LoadedModel, module: Any, source: Iterator[int], *, reference: Any = None) -> Probe:
    """Make the rows and run them as shipped and in 64 bits.

    Args:
        model: whose name, device and vocabulary are used.
        module: its shipped code with its weights.
        source: of ids; it can be asked again for other rows.
        reference: the code that is run in 64 bits, over the same weights; `module` when absent.

    Raises:
        NotANumberError: the shipped logits are not finite.
        CertificateError: the module cannot be run in 64 bits.
    """
    trunk = list(islice(source, _TRUNK_TOKENS))
    rows = [trunk + list(islice(source, n)) for n in _BRANCH_TOKENS]
    rows.append(list(islice(source, _OWN_TOKENS)))
    both = module if reference is None else reference, module
    n_threads = 1 + sum(parameter.numel() for parameter in module.parameters()) // _PARAMETERS_PER_THREAD
    with at_most_threads(n_threads):
        exact, shipped = _both(model, both, rows, keep=max(map(len, rows)))
        if n_long := _long_row_tokens(model, both[0]):
            long = [list(islice(source, n_long))]
            more = _both(model, both, long, keep=_LONG_COMPARED)
            rows, exact, shipped = rows + long, exact + more[0], shipped + more[1]
    return Probe(rows, [logits.shape[0] for logits in exact], exact, shipped, n_threads)


def _long_row_tokens(model: LoadedModel, reference: Any) -> int:
    """Return the length of the long row; 0 for none."""
    is_recurrent = model.stateful is not None and model.stateful.state_size.fixed_bytes > 0
    if is_recurrent and (long := _all_long_tokens(model.device)):
        return _TRUNK_TOKENS + long
    return 0 if getattr(reference.config, "chunk_size", None) is None else _LONG_TOKENS


def _all_long_tokens(device: torch.device) -> int:
    """Return the length from which on a device's scans take another way; 0 where they take one only."""
    if device.type != "cuda":
        return 0
    from mambabench.kernels.gpu.choice import ALL_LONG_TOKENS

    return ALL_LONG_TOKENS


def _both(
    model: LoadedModel, modules: tuple[Any, Any], rows: list[list[int]], *, keep: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return each row's last logits in 64 bits and as shipped, by a module each.

    `keep` counts from the longest row's end.
    """
    longest = max(map(len, rows))
    batch = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    both = []
    for forward, module in zip((wide_logits, shipped_logits), modules, strict=True):
        logits = forward(module, batch, keep=keep, vocab_size=model.vocab_size)
        both.append([logits[i, : keep - (longest - len(row))] for i, row in enumerate(rows)])
        if not bool(logits.isfinite().all()):
            raise NotANumberError(
                f"{model.record.name} as shipped gives no finite logits, in {dtype_name(logits.dtype)}",
                hint=NO_NUMBER_HINT,
            )
    return both[0], both[1]


def _whole(stateful: StatefulModel, probe: Probe) -> Iterator[Answer]:
    """Run all rows in one call, from the start, as a batch without shared prefixes is, on all threads."""
    rows = range(len(probe.rows))
    yield _forward(stateful, probe, rows, [0] * len(rows), keep=())[0]


def _from_a_state(stateful: StatefulModel, probe: Probe) -> Iterator[Answer]:
    """Keep states of prefixes and let several rows go on from each, in more than one call."""
    one, several, single, own, *long = range(len(probe.rows))
    ways = [(row, cut) for row in long for cut in _long_cuts(len(probe.rows[row]))]
    heads = [one, own, *(row for row, _ in ways)]
    cuts = [_TRUNK_TOKENS, _OWN_SPLIT, *(cut for _, cut in ways)]
    state = _prefixes(stateful, probe, heads, cuts)
    yield _forward(stateful, probe, heads, cuts, state, keep=())[0]
    # The state was only lent, and is as it was.
    siblings = State.gather([(state, 0), (state, 0)])
    yield _forward(stateful, probe, [single, several], [_TRUNK_TOKENS] * 2, siblings, keep=())[0]


def _long_cuts(n_tokens: int) -> list[int]:
    """Return where the long row is cut: where length matters, once to be long before a state, once after."""
    return [n_tokens // 2] if n_tokens == _LONG_TOKENS else [_TRUNK_TOKENS, n_tokens - _LONG_COMPARED]


def _token_by_token(stateful: StatefulModel, probe: Probe) -> Iterator[Answer]:
    """Append one token at a time to states that are given up, as generation does, in batches of all sizes."""
    own = len(_BRANCH_TOKENS)
    yield from _steps(stateful, probe, [(0, _TRUNK_TOKENS)], _OWN_TOKENS - _OWN_SPLIT)
    # Rows change places when others leave a batch.
    pair = [(0, _TRUNK_TOKENS), (own, _OWN_SPLIT)]
    yield from _steps(stateful, probe, pair, _OWN_TOKENS - _OWN_SPLIT, swap=2)
    # Every place in a row has a state of its own, so that a few rows that are known exactly make many.
    every = [(row, start) for row in (own, 0, 1) for start in range(1, len(probe.rows[row]) - 1)]
    for rows in _MORE_ROWS:
        # From all over the list, of which the parts are of equal depth.
        yield from _steps(stateful, probe, [every[i * len(every) // rows] for i in range(rows)], 2)


def _steps(
    stateful: StatefulModel,
    probe: Probe,
    batch: Sequence[tuple[int, int]],
    n_steps: int,
    *,
    swap: int | None = None,
) -> Iterator[Answer]:
    """Forward one token of each (row, its tokens before) at a time; turn the batch round before a step."""
    rows, starts = [row for row, _ in batch], [start for _, start in batch]
    state = _prefixes(stateful, probe, rows, starts)
    for step in range(n_steps):
        if step == swap:
            rows, starts, state = rows[::-1], starts[::-1], state.select(range(len(rows))[::-1])
        ends = [start + 1 for start in starts]
        answer, after = _forward(stateful, probe, rows, starts, state, stops=ends, consume=True)
        assert after is not None
        starts, state = ends, after
        yield answer


KINDS: dict[str, Callable[[StatefulModel, Probe], Iterator[Answer]]] = {
    "whole": _whole,
    "from a state": _from_a_state,
    "token by token": _token_by_token,
}
"""The ways in which the fast path is used."""


def _prefixes(stateful: StatefulModel, probe: Probe, rows: Sequence[int], stops: Sequence[int]) -> State:
    """Return the states after the rows' first tokens."""
    ids = [token for row, stop in zip(rows, stops, strict=True) for token in probe.rows[row][:stop]]
    nothing = torch.empty(0, dtype=torch.int64, device=stateful.device)
    with at_most_threads(probe.n_threads):
        state = stateful.step(torch.tensor(ids, device=stateful.device), stops, read=nothing).state
    assert state is not None
    return state


def _forward(
    stateful: StatefulModel,
    probe: Probe,
    rows: Sequence[int],
    starts: Sequence[int],
    state: State | None = None,
    *,
    stops: Sequence[int] | None = None,
    keep: Sequence[int] | None = None,
    consume: bool = False,
) -> tuple[Answer, State | None]:
    """Forward parts of rows on from a state; return the logits that can be compared, and the new state."""
    ends = [len(probe.rows[row]) for row in rows] if stops is None else stops
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    read: list[int] = []
    for row, start, end in zip(rows, starts, ends, strict=True):
        found = probe.places(row, start, end)
        read += [len(ids) + position - start for _, position in found]
        ids += probe.rows[row][start:end]
        places += found
    with at_most_threads(torch.get_num_threads() if state is None else probe.n_threads):
        step = stateful.step(
            torch.tensor(ids, device=stateful.device),
            [end - start for start, end in zip(starts, ends, strict=True)],
            state,
            read=torch.tensor(read, dtype=torch.int64, device=stateful.device),
            keep=keep,
            consume=consume,
        )
        return Answer(places, stateful.logits(step.hidden)), step.state


@contextmanager
def at_most_threads(n_threads: int) -> Iterator[None]:
    """Let torch use fewer threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, n_threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def token_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Iterator[int]:
    """Give ids without end: those of a text, with every fourth from anywhere in the vocabulary instead."""
    encoded: Any = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    text = [token for token in encoded if token < vocab_size] or [0]
    for place in count(1):
        # Multiples of a large odd number are spread evenly (Knuth, TAOCP vol. 3, section 6.4).
        anywhere = (place * 2654435761 % 2**32) * vocab_size >> 32
        yield anywhere if place % 4 == 0 else text[place % len(text)]


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name, for example "float32"."""
    return str(dtype).removeprefix("torch.")
