"""Long texts in pieces and in windows, against whole forwards of code that knows of neither."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import N_TOKENS, llama_config, mamba2_config, mamba_config, neox_config
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from models.test_step_hybrid import CONFIGS, N, exact, weights
from models.test_step_mamba import FALCON
from numpy.typing import NDArray
from transformers import (
    FalconMambaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    Mamba2ForCausalLM,
    MambaForCausalLM,
)

from mambabench.errors import NotANumberError, UsageError
from mambabench.models.fake import FakeModel
from mambabench.models.state_file import load_state, save_state
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.steps import steps_for
from mambabench.scoring import rolling, rolling_states
from mambabench.scoring.budget import Fit
from mambabench.scoring.rolling import (
    NoRoomError,
    Piece,
    Resume,
    RollingScorer,
    TextTooLongError,
    Window,
    disjoint_windows,
    sliding_windows,
)
from mambabench.units import size

Floats = NDArray[np.float64]
Whole = Callable[[torch.Tensor], torch.Tensor]
PREFIX = 0
ATOL = 1e-4
N_IDS = 157
"""More than the 128 positions in the tiny Transformers' configurations: rotary ones run on."""


def transformers_family(build: Callable[[], Any]) -> tuple[Any, Whole]:
    module = build().eval()

    def whole(ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = module(ids[None], use_cache=False).logits[0, :, :N_TOKENS]
        return logits

    return steps_for(module, vocab_size=N_TOKENS), whole


def hybrid(name: str) -> tuple[Any, Whole]:
    made = weights(CONFIGS[name])
    steps = HybridSteps(CONFIGS[name], made, vocab_size=N, dtype=torch.float32)
    return steps, lambda ids: exact(CONFIGS[name], made, ids)


FAMILIES: dict[str, Callable[[], tuple[Any, Whole]]] = {
    "mamba": lambda: transformers_family(lambda: MambaForCausalLM(mamba_config())),
    "falcon_mamba": lambda: transformers_family(lambda: FalconMambaForCausalLM(FALCON)),
    "mamba2": lambda: transformers_family(lambda: Mamba2ForCausalLM(mamba2_config())),
    "gpt_neox": lambda: transformers_family(lambda: GPTNeoXForCausalLM(neox_config())),
    "llama": lambda: transformers_family(lambda: LlamaForCausalLM(llama_config())),
    "hybrid_mamba2": lambda: hybrid("convolved"),
    "hybrid_mamba1": lambda: hybrid("mamba1"),
}


class Loaded:
    """The least that is needed of a loaded model."""

    def __init__(self, stateful: Any) -> None:
        self.stateful = stateful
        self.device = torch.device("cpu")
        self.record = SimpleNamespace(name="tiny")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Loaded, Whole]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        steps, whole = FAMILIES[request.param]()
    return Loaded(steps), whole


@pytest.fixture
def pieces_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what sets the tokens of a piece, with few rows of logits at once."""

    def of(n: int) -> None:
        monkeypatch.setattr(rolling, "fit_for", lambda *_: Fit(n, 5, 1 << 20))

    return of


def text(n: int = N_IDS, n_ids: int = N, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(1, n_ids, n).astype(np.int32)


def expected(whole: Whole, ids: NDArray[np.int32], window: Window) -> Floats:
    """Return a window's log-probabilities by one forward of its own."""
    fed = [PREFIX, *ids.tolist()][window.begin + 1 : window.end]
    logprobs = whole(torch.tensor(fed)).double().log_softmax(dim=1)[window.first - window.end :]
    targets = torch.from_numpy(ids[window.first : window.end].astype(np.int64))
    found: Floats = logprobs.gather(1, targets[:, None])[:, 0].numpy()
    return found


def joined(pieces: Iterable[Piece]) -> Floats:
    """Return the log-probabilities of pieces that must follow one another from the first token on."""
    parts: list[Floats] = []
    for piece in pieces:
        assert piece.first_token == sum(map(len, parts))
        parts.append(piece.logprobs)
    return np.concatenate(parts)


@pytest.mark.parametrize("n", [1, 7, 61, 156, 1000])
def test_a_text_in_pieces_equals_one_forward(
    n: int, family: tuple[Loaded, Whole], pieces_of: Callable[[int], None]
) -> None:
    model, whole = family
    pieces_of(n)
    ids = text(20) if n == 1 else text()
    scorer = RollingScorer(model)
    found = joined(scorer.full(ids, PREFIX))
    np.testing.assert_allclose(found, expected(whole, ids, Window(-1, 0, len(ids))), atol=ATOL, rtol=0)
    assert scorer.tokens_forwarded == scorer.longest_context_tokens == len(ids)
    assert scorer.resume_point is None


@pytest.mark.parametrize("n", [9, 40, 1000])
def test_windows_equal_forwards_of_their_own(
    n: int, family: tuple[Loaded, Whole], pieces_of: Callable[[int], None]
) -> None:
    model, whole = family
    pieces_of(n)
    ids = text()
    windows = [*sliding_windows(50, 16, 5), Window(20, 22, 90), Window(3, 4, 5), *disjoint_windows(70, 32)]
    scorer = RollingScorer(model)
    pieces = list(scorer.windows(ids, PREFIX, windows))
    assert [piece.first_token for piece in pieces] == [window.first for window in windows]
    for piece, window in zip(pieces, windows, strict=True):
        np.testing.assert_allclose(piece.logprobs, expected(whole, ids, window), atol=ATOL, rtol=0)
    assert scorer.tokens_forwarded == sum(window.n_fed for window in windows)
    assert scorer.longest_context_tokens == 69


@settings(max_examples=100)
@given(st.integers(0, 60), st.integers(1, 20))
def test_disjoint_windows_are_those_of_lm_eval(n: int, window: int) -> None:
    tokens = list(range(100, 100 + n))
    theirs = [
        make_disjoint_window(pair)
        for pair in get_rolling_token_windows(tokens, PREFIX, window, context_len=1)
    ]
    ours = disjoint_windows(n, window)
    assert [([PREFIX, *tokens][w.begin + 1 : w.first + 1], tokens[w.first : w.end]) for w in ours] == theirs


@settings(max_examples=100)
@given(st.data(), st.integers(0, 60), st.integers(1, 20))
def test_sliding_windows_predict_each_token_once_from_enough(data: Any, n: int, window: int) -> None:
    stride = data.draw(st.integers(1, window))
    found = sliding_windows(n, window, stride)
    assert [t for w in found for t in range(w.first, w.end)] == list(range(n))
    assert all(w.n_fed <= window for w in found)
    # A token has what its window shows of the text before it, or all there is.
    assert all(w.begin == -1 or w.first - w.begin >= window - stride + 1 for w in found)
    assert all(w.end - w.first <= (window if w.first == 0 else stride) for w in found)


@pytest.mark.parametrize(("window", "stride"), [(8, 0), (8, 9)])
def test_a_stride_must_fit_its_window(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        sliding_windows(20, window, stride)


@pytest.mark.parametrize("window", [(-2, 0, 4), (4, 4, 6), (2, 3, 3)])
def test_a_window_predicts_something_from_something(window: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no window"):
        Window(*window)


def test_a_text_is_gone_on_with_by_another_process_to_the_last_bit(
    family: tuple[Loaded, Whole], pieces_of: Callable[[int], None], tmp_path: Path
) -> None:
    model, _ = family
    pieces_of(40)
    ids = text()
    undisturbed = joined(RollingScorer(model).full(ids, PREFIX))
    scorer = RollingScorer(model)
    pieces = scorer.full(ids, PREFIX)
    first = [next(pieces), next(pieces)]
    point = scorer.resume_point
    assert point is not None
    save_state(point.state, tmp_path / "state", checkpoint="c")
    later = RollingScorer(model)
    resume = Resume(point.position_tokens, load_state(tmp_path / "state", checkpoint="c"))
    rest = list(later.full(ids, PREFIX, resume=resume))
    np.testing.assert_array_equal(joined([*first, *rest]), undisturbed)
    assert later.tokens_forwarded == N_IDS - 80
    assert later.longest_context_tokens == N_IDS


def test_a_point_of_another_text_is_refused(pieces_of: Callable[[int], None]) -> None:
    model = Loaded(FAMILIES["mamba"]()[0])
    pieces_of(40)
    scorer = RollingScorer(model)
    next(scorer.full(text(), PREFIX))
    point = scorer.resume_point
    assert point is not None
    for wrong in (text(39), text()):
        resume = Resume(point.position_tokens + (len(wrong) == N_IDS), point.state)
        with pytest.raises(ValueError, match="no place"):
            RollingScorer(model).full(wrong, PREFIX, resume=resume)


def test_keys_and_values_are_written_where_there_is_room_for_all(pieces_of: Callable[[int], None]) -> None:
    pieces_of(10)
    scorer = RollingScorer(Loaded(FAMILIES["llama"]()[0]))
    blocks = set()
    for _ in scorer.full(text(), PREFIX):
        if scorer.resume_point is not None:
            blocks |= {piece.block for chain in scorer.resume_point.state.layers[0].chains for piece in chain}
    (block,) = blocks
    assert block.k.shape[2] == N_IDS


def test_logits_and_states_take_no_more_than_their_share(pieces_of: Callable[[int], None]) -> None:
    model = Loaded(FAMILIES["mamba"]()[0])
    rows, sizes = [], []
    logits = model.stateful.logits

    def counted(hidden: torch.Tensor, **how: Any) -> torch.Tensor:
        rows.append(len(hidden))
        found: torch.Tensor = logits(hidden, **how)
        return found

    model.stateful.logits = counted
    pieces_of(20)
    scorer = RollingScorer(model)
    for _ in scorer.full(text(400), PREFIX):
        if scorer.resume_point is not None:
            sizes.append(scorer.resume_point.state.allocated_bytes)
    assert max(rows) == 5
    assert sum(rows) == 400
    assert len(set(sizes)) == 1


def test_a_window_s_context_takes_no_logits(pieces_of: Callable[[int], None]) -> None:
    model = Loaded(FAMILIES["gpt_neox"]()[0])
    rows = []
    logits = model.stateful.logits
    model.stateful.logits = lambda hidden, **how: (rows.append(len(hidden)), logits(hidden, **how))[1]
    pieces_of(30)
    list(RollingScorer(model).windows(text(), PREFIX, [Window(0, 15, 17), Window(0, 99, 101)]))
    assert sum(rows) == 4


def test_windows_that_do_not_fit_together_go_apart(pieces_of: Callable[[int], None]) -> None:
    model = Loaded(FAMILIES["mamba"]()[0])
    pieces_of(1000)
    ids, windows = text(), disjoint_windows(N_IDS, 20)
    undisturbed = joined(RollingScorer(model).windows(ids, PREFIX, windows))
    step, notes = model.stateful.step, list[str]()

    def bounded(ids: torch.Tensor, lengths: list[int], *state: Any, **how: Any) -> Any:
        if len(lengths) > 3:
            raise torch.OutOfMemoryError
        return step(ids, lengths, *state, **how)

    model.stateful.step = bounded
    found = joined(RollingScorer(model, note=notes.append).windows(ids, PREFIX, windows))
    np.testing.assert_allclose(found, undisturbed, atol=1e-5, rtol=0)
    assert notes[0] == "out of memory with 8 sequences; going on with 4"


def test_without_tokens_there_are_no_pieces() -> None:
    none = np.empty(0, np.int32)
    for model in (Loaded(FAMILIES["mamba"]()[0]), FakeModel()):
        scorer = RollingScorer(model)
        assert list(scorer.full(none, PREFIX)) == []
        assert list(scorer.windows(none, PREFIX, [])) == []
        with pytest.raises(ValueError, match="behind the text"):
            scorer.windows(none, PREFIX, [Window(-1, 0, 1)])


def test_a_model_as_shipped_forwards_whole_texts_up_to_its_window() -> None:
    model = FakeModel(max_length=N_IDS)
    ids = text(n_ids=257)

    def whole(fed: torch.Tensor) -> torch.Tensor:
        return model.logits(fed[None], len(fed))[0]

    scorer = RollingScorer(model)
    found = joined(scorer.full(ids, PREFIX))
    np.testing.assert_allclose(found, expected(whole, ids, Window(-1, 0, N_IDS)), atol=1e-5, rtol=0)
    assert scorer.longest_context_tokens == scorer.tokens_forwarded == N_IDS
    windows = [*sliding_windows(N_IDS, 32, 9), Window(5, 9, 30), Window(100, 101, 102)]
    for piece, window in zip(scorer.windows(ids, PREFIX, windows), windows, strict=True):
        assert piece.first_token == window.first
        np.testing.assert_allclose(piece.logprobs, expected(whole, ids, window), atol=1e-5, rtol=0)
    with pytest.raises(TextTooLongError, match=r"158 tokens is too long for fake.*157 at once.*sliding"):
        scorer.full(text(N_IDS + 1), PREFIX)
    notes: list[str] = []
    RollingScorer(model, memory_bytes=1 << 20, note=notes.append)
    assert notes == ["--memory-budget does not bound fake, which runs as shipped"]


def test_a_state_that_cannot_fit_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llama, mamba = (Loaded(FAMILIES[name]()[0]) for name in ("llama", "mamba"))
    token_bytes = llama.stateful.state_size.bytes_per_token
    monkeypatch.setattr(rolling_states, "free_bytes", lambda device: 100 * token_bytes)
    assert len(joined(RollingScorer(llama).full(text(100), PREFIX))) == 100
    with pytest.raises(NoRoomError, match=rf"101 tokens take {re.escape(size(101 * token_bytes))}, and"):
        RollingScorer(llama).full(text(101), PREFIX)
    assert len(joined(RollingScorer(mamba).full(text(101), PREFIX))) == 101


def test_no_text_goes_past_learned_positions(pieces_of: Callable[[int], None]) -> None:
    config = GPT2Config(vocab_size=N_TOKENS, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    module = GPT2LMHeadModel(config).eval()
    pieces_of(40)
    scorer = RollingScorer(Loaded(steps_for(module, vocab_size=N_TOKENS)))
    assert len(joined(scorer.full(text(64), PREFIX))) == 64
    with pytest.raises(UsageError, match="64 positions"):
        list(scorer.full(text(65), PREFIX))


def test_logits_that_are_no_numbers_end_it() -> None:
    module = GPTNeoXForCausalLM(neox_config()).eval()
    steps = steps_for(module, vocab_size=N_TOKENS)
    module.get_output_embeddings().weight.data[7] = float("nan")
    with pytest.raises(NotANumberError):
        list(RollingScorer(Loaded(steps)).full(text(9), PREFIX))
