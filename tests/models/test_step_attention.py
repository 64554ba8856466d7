"""Packed forwards of Transformers against each module's own forward, family by family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from builders import N_ROWS, N_TOKENS, llama_config, neox_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from mambabench.errors import UsageError
from mambabench.models import packed_attention
from mambabench.models.attention_support import supports
from mambabench.models.peak_memory import PeakMemory
from mambabench.models.stateful import State, Step
from mambabench.models.step_attention import AttentionSteps

POSITIONS = 512
_LLAMA: dict[str, Any] = llama_config(max_position_embeddings=POSITIONS).to_dict()
_COMMON: dict[str, Any] = {
    name: _LLAMA[name]
    for name in (
        "vocab_size", "initializer_range", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "intermediate_size", "max_position_embeddings", "bos_token_id", "eos_token_id",
        "pad_token_id",
    )
}  # fmt: skip
_GPT2 = GPT2Config(
    vocab_size=N_ROWS, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2,
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
_OPT = OPTConfig(
    vocab_size=N_ROWS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, init_std=0.2,
    max_position_embeddings=POSITIONS, word_embed_proj_dim=32, bos_token_id=0, eos_token_id=0, pad_token_id=1,
)  # fmt: skip
_GEMMA3 = Gemma3TextConfig(
    **_COMMON, head_dim=8, sliding_window=9, layer_types=["sliding_attention", "full_attention"],
    query_pre_attn_scalar=8,
)  # fmt: skip
_MOE = Qwen3MoeConfig(
    **_COMMON,
    head_dim=8,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    decoder_sparse_step=1,
)
FAMILIES: dict[str, Callable[[], Any]] = {
    "neox": lambda: GPTNeoXForCausalLM(neox_config(max_position_embeddings=POSITIONS)),
    "neox-serial": lambda: GPTNeoXForCausalLM(
        neox_config(max_position_embeddings=POSITIONS, use_parallel_residual=False)
    ),
    "llama": lambda: LlamaForCausalLM(llama_config(max_position_embeddings=POSITIONS)),
    "gpt2": lambda: GPT2LMHeadModel(_GPT2),
    "opt": lambda: OPTForCausalLM(_OPT),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_COMMON)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_COMMON, head_dim=8)),
    "qwen3-moe": lambda: Qwen3MoeForCausalLM(_MOE),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_COMMON, head_dim=8, sliding_window=None)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**_COMMON, head_dim=8, sliding_window=11)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_COMMON, head_dim=8)),
    "gemma3-window": lambda: Gemma3ForCausalLM(_GEMMA3),
}
each_family = pytest.mark.parametrize("family", FAMILIES)


def _seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().eval()
        for name, parameter in module.named_parameters():
            # Biases and norms begin as zeros and ones, with which a mistake in them would not show.
            if name.endswith("bias") or "norm" in name or "ln_" in name:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return module


@cache
def _module(family: str) -> Any:
    return _seeded(FAMILIES[family])


@cache
def _steps(family: str) -> AttentionSteps:
    return AttentionSteps(_module(family), vocab_size=N_TOKENS)


def _ids(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, N_TOKENS, (count,), generator=torch.Generator().manual_seed(seed))


def _shipped(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of one row by the module's own forward, without a mask or a batch."""
    with torch.inference_mode():
        return module(input_ids=ids[None], use_cache=False).logits[0, :, :N_TOKENS]


def _kept(step: Step) -> State:
    assert step.state is not None
    return step.state


def _close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 2e-5) -> bool:
    """Compare logits, whose standard deviation is about one."""
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=0, atol=atol)


@each_family
def test_a_family_is_supported(family: str) -> None:
    assert supports(_module(family)) is None


@each_family
def test_ragged_rows_equal_the_modules_own_forward(family: str) -> None:
    steps, lengths = _steps(family), [7, 1, 40, 13, 13, 2]
    rows = [_ids(length, seed) for seed, length in enumerate(lengths)]
    step = steps.step(torch.cat(rows), lengths)
    logits = steps.logits(step.hidden)
    for row, part in zip(rows, logits.split(lengths), strict=True):
        assert _close(part, _shipped(_module(family), row))
    assert _kept(step).lengths == tuple(lengths)
    assert logits.std() > 0.3


@each_family
def test_rows_go_on_from_their_states(family: str) -> None:
    steps, module = _steps(family), _module(family)
    before, after = [20, 3, 33, 8], [1, 2, 7, 300]
    rows = [_ids(a + b, seed) for seed, (a, b) in enumerate(zip(before, after, strict=True))]
    first = steps.step(torch.cat([row[:n] for row, n in zip(rows, before, strict=True)]), before)
    ends = torch.cat([row[n:] for row, n in zip(rows, before, strict=True)])
    second = steps.step(ends, after, _kept(first))
    assert _kept(second).lengths == (21, 5, 40, 308)
    parts = steps.logits(second.hidden).split(after)
    for row, start, part in zip(rows, before, parts, strict=True):
        assert _close(part, _shipped(module, row)[start:])
    third = steps.step(torch.cat([row[:2] for row in rows]), [2] * 4, _kept(second))
    for row, part in zip(rows, steps.logits(third.hidden).split(2), strict=True):
        assert _close(part, _shipped(module, torch.cat([row, row[:2]]))[-2:])


@each_family
def test_siblings_of_one_prefix(family: str) -> None:
    steps, module = _steps(family), _module(family)
    contexts = [_ids(25, 1), _ids(12, 2)]
    lengths = [4, 6, 1, 5, 9, 3, 2, 8]
    ends = [_ids(length, 10 + i) for i, length in enumerate(lengths)]
    before = _kept(steps.step(torch.cat(contexts), [25, 12]))
    step = steps.step(torch.cat(ends), lengths, before.repeat(4))
    for i, part in enumerate(steps.logits(step.hidden).split(lengths)):
        whole = torch.cat([contexts[i // 4], ends[i]])
        assert _close(part, _shipped(module, whole)[-lengths[i] :])
    # The parent is as it was.
    again = steps.step(ends[4], [9], before.select([1]))
    assert _close(steps.logits(again.hidden), _shipped(module, torch.cat([contexts[1], ends[4]]))[-9:])


@each_family
def test_decoding_in_place(family: str) -> None:
    steps, module = _steps(family), _module(family)
    prompts = [5, 17, 9]
    rows = [_ids(n + 50, seed) for seed, n in enumerate(prompts)]
    state = _kept(steps.step(torch.cat([r[:n] for r, n in zip(rows, prompts, strict=True)]), prompts))
    logits = []
    for i in range(50):
        step = steps.step(
            torch.stack([r[n + i] for r, n in zip(rows, prompts, strict=True)]), [1] * 3, state, consume=True
        )
        state = _kept(step)
        logits.append(steps.logits(step.hidden))
    for row, (ids, n) in enumerate(zip(rows, prompts, strict=True)):
        assert _close(torch.stack([step[row] for step in logits]), _shipped(module, ids)[n:])
    assert state.nbytes == sum(state.lengths) * steps.state_size.bytes_per_token


class _NothingFromTheHost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets no operation touch a tensor of the host, nor read a number from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type == "meta" for tensor in tensors), f"{func} waits for the device"
        return result


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwen3-moe"])
def test_steps_after_the_first_send_nothing_to_the_device(family: str) -> None:
    """The device is "meta", which computes nothing, but has no product of experts."""
    steps = AttentionSteps(_seeded(FAMILIES[family]).to("meta"), vocab_size=N_TOKENS)
    state = _kept(steps.step(_ids(11).to("meta"), [5, 4, 2]))
    ids = _ids(3).to("meta")
    state = _kept(steps.step(ids, [1] * 3, state, consume=True))
    for _ in range(3):
        with _NothingFromTheHost():
            step = steps.step(ids, [1] * 3, state, consume=True)
            steps.logits(step.hidden)
        state = _kept(step)
    assert state.lengths == (9, 8, 6)


def test_fresh_rows_beside_rows_that_go_on() -> None:
    steps, module = _steps("llama"), _module("llama")
    rows = [_ids(9, 1), _ids(14, 2), _ids(6, 3)]
    first = steps.step(rows[1][:10], [10])
    mixed = State.concat([steps.start(1), _kept(first), steps.start(1)])
    step = steps.step(torch.cat([rows[0], rows[1][10:], rows[2]]), [9, 4, 6], mixed)
    want = torch.cat([_shipped(module, rows[0]), _shipped(module, rows[1])[10:], _shipped(module, rows[2])])
    assert _close(steps.logits(step.hidden), want)
    begun = steps.step(torch.stack([row[0] for row in rows]), [1] * 3, steps.start(3), consume=True)
    assert _close(steps.logits(begun.hidden), torch.stack([_shipped(module, row)[0] for row in rows]))


def test_reading_and_keeping_some() -> None:
    steps = _steps("neox")
    ids, lengths = _ids(20), [4, 9, 7]
    whole = steps.step(ids, lengths)
    read = torch.tensor([12, 3, 3, 19])
    some = steps.step(ids, lengths, read=read, keep=[2, 0])
    assert torch.equal(some.hidden, whole.hidden[read])
    assert _kept(some).lengths == (7, 4)
    assert steps.step(ids, lengths, keep=[]).state is None
    more = _ids(5, 1)
    expected = steps.step(more, [3, 2], _kept(whole).select([2, 0])).hidden
    assert torch.equal(steps.step(more, [3, 2], _kept(some)).hidden, expected)
    assert torch.equal(steps.logits(whole.hidden, first=10, last=17), steps.logits(whole.hidden)[:, 10:17])
    assert steps.logits(whole.hidden).shape == (20, N_TOKENS)


def test_states_are_values() -> None:
    steps = _steps("llama")
    one = _kept(steps.step(_ids(8), [8]))
    two = _kept(steps.step(_ids(5, 1), [5]))
    more = _ids(6, 2)
    expected = steps.step(more, [2, 4], State.concat([one, two])).hidden
    both = State.concat([one.snapshot(), two.repeat(2)]).select([0, 2])
    assert torch.equal(steps.step(more, [2, 4], both).hidden, expected)
    steps.step(more[:2], [1, 1], both, consume=True)
    assert torch.equal(steps.step(more, [2, 4], State.concat([one, two])).hidden, expected)


def test_memory_is_counted_once() -> None:
    steps = _steps("llama")
    # Two layers of two key heads of eight numbers, keys and values.
    assert steps.state_size.bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert steps.state_size.fixed_bytes == 0
    prefix = _kept(steps.step(_ids(70), [70], keep=[0]))
    assert prefix.nbytes == 70 * 256
    assert prefix.repeat(4).nbytes == 70 * 256
    children = _kept(steps.step(_ids(10, 1), [1, 2, 3, 4], prefix.repeat(4)))
    assert children.nbytes == 80 * 256
    assert children.snapshot().nbytes == 80 * 256


@pytest.mark.parametrize("family", ["neox", "llama", "gpt2", "qwen3-moe"])
def test_activations_take_what_is_said(family: str) -> None:
    """On a model wide enough for its activations to outweigh the masks."""
    changes = {"n_embd": 128} if family == "gpt2" else {"hidden_size": 128, "intermediate_size": 512}
    config = type(_module(family).config)(**{**_module(family).config.to_dict(), **changes})
    module = _seeded(lambda: type(_module(family))(config))
    steps = AttentionSteps(module, vocab_size=N_TOKENS)
    with PeakMemory(module) as memory:
        state = _kept(steps.step(_ids(280), [70] * 4))
    said = 280 * steps.activation_bytes_per_token
    assert 0.75 * said < memory.peak_bytes - state.nbytes < said
    with PeakMemory(module) as memory:
        steps.step(_ids(320), [20] * 16, state.repeat(4), keep=[])
    said = 320 * steps.activation_bytes_per_token
    # A layer puts a copy of each prefix beside its continuations.
    assert 0.6 * said < memory.peak_bytes < said + state.nbytes / len(state.layers)


@each_family
def test_a_row_does_not_depend_on_its_neighbours(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, row = _steps(family), _ids(15)
    alone = steps.step(row, [15]).hidden
    for call_pairs in (0, 1 << 20):
        monkeypatch.setitem(packed_attention._CALL_PAIRS, "cpu", call_pairs)
        for others in ([3], [15, 40], [16, 14, 13]):
            ids = torch.cat([_ids(sum(others), 1), row])
            step = steps.step(ids, [*others, 15], read=torch.arange(sum(others), sum(others) + 15))
            assert torch.allclose(step.hidden, alone, rtol=0, atol=2e-5)


@each_family
def test_the_module_stays_as_shipped(family: str) -> None:
    module = _seeded(FAMILIES[family])
    ids = _ids(30).view(2, 15)
    implementation = module.config._attn_implementation
    with torch.inference_mode():
        before = module(input_ids=ids, use_cache=False).logits
    steps = AttentionSteps(module, vocab_size=N_TOKENS)
    state = _kept(steps.step(ids.flatten(), [15, 15]))
    with torch.inference_mode():
        assert torch.equal(module(input_ids=ids, use_cache=False).logits, before)
    with pytest.raises(IndexError):
        steps.step(torch.tensor([N_ROWS + 5, 1]), [1, 1], state)
    assert module.config._attn_implementation == implementation == "sdpa"
    with torch.inference_mode():
        assert torch.equal(module(input_ids=ids, use_cache=False).logits, before)


@pytest.mark.parametrize("family", ["neox", "llama", "gpt2", "mistral-window"])
def test_bf16_is_as_exact_as_the_module(family: str) -> None:
    """Errors against a float32 forward of the same rounded weights, over rows and a state."""
    narrow = _seeded(FAMILIES[family]).to(torch.bfloat16)
    wide = _seeded(FAMILIES[family])
    wide.load_state_dict(narrow.state_dict())
    steps = AttentionSteps(narrow, vocab_size=N_TOKENS)
    lengths = [60, 31, 90]
    rows = [_ids(length, seed) for seed, length in enumerate(lengths)]
    state = _kept(steps.step(torch.cat([row[:20] for row in rows]), [20] * 3))
    ends = [length - 20 for length in lengths]
    step = steps.step(torch.cat([row[20:] for row in rows]), ends, state)
    assert step.hidden.dtype == steps.dtype == torch.bfloat16
    exact = torch.cat([_shipped(wide, row)[20:] for row in rows])
    shipped = torch.cat([_shipped(narrow, row)[20:] for row in rows]).float()
    error = (steps.logits(step.hidden).float() - exact).square().mean().sqrt()
    own = (shipped - exact).square().mean().sqrt()
    assert 0 < own < 0.1
    assert error <= 1.5 * own + 1e-6
    assert steps.state_size.bytes_per_token * 2 == _steps(family).state_size.bytes_per_token


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_row_longer_than_the_learned_positions(family: str) -> None:
    steps = _steps(family)
    state = _kept(steps.step(_ids(POSITIONS), [POSITIONS]))
    with pytest.raises(UsageError, match="513 tokens does not fit the model's 512 positions"):
        steps.step(_ids(1), [1], state)
    with pytest.raises(UsageError, match="positions"):
        steps.step(_ids(520), [7, 513])
    rotary = _steps("llama")
    assert rotary.step(_ids(520), [520]).hidden.shape == (520, 32)


@pytest.mark.parametrize(
    ("lengths", "rows", "message"),
    [([3, 3], None, "6 tokens"), ([5, 0], None, "at least one"), ([5], 2, "state of 2")],
)
def test_arguments_that_do_not_fit(lengths: Sequence[int], rows: int | None, message: str) -> None:
    steps = _steps("neox")
    state = None if rows is None else _kept(steps.step(_ids(rows), [1] * rows))
    with pytest.raises(ValueError, match=message):
        steps.step(_ids(5), lengths, state)


def test_outside_of_a_step_our_attention_refuses() -> None:
    module = _seeded(FAMILIES["llama"])
    module.config._attn_implementation = "mambabench_packed"
    with pytest.raises(RuntimeError, match=r"AttentionSteps\.step"):
        module(input_ids=_ids(3)[None])
