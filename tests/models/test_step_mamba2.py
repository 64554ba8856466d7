"""Mamba-2 as a function of a state against transformers' own forward of the same weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from builders import N_ROWS, N_TOKENS, mamba2_config
from torch import Tensor
from transformers import Mamba2ForCausalLM

from mambabench.models.layers import row_starts
from mambabench.models.stateful import RecurrentState, State, Step
from mambabench.models.step_mamba2 import Mamba2Layer, Mamba2Steps

_INF = float("inf")
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups": {"n_groups": 4, "num_heads": 8},
    "biases": {"use_bias": True, "use_conv_bias": False, "tie_word_embeddings": False},
    "shape": {"conv_kernel": 2, "state_size": 5, "num_heads": 2, "head_dim": 48, "expand": 3},
    "limits": {"time_step_limit": (0.01, 0.5), "layer_norm_epsilon": 1e-3, "conv_kernel": 6},
}


def model(seed: int = 0, **changes: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: Any = Mamba2ForCausalLM(mamba2_config(**changes))
        for name, parameter in module.named_parameters():
            # What starts as a constant would not show that it is used.
            if "norm" in name or name.endswith((".D", "bias")):
                parameter.data += 0.3 * torch.randn(parameter.shape)
    return module.eval()


@pytest.fixture(scope="module", params=list(CONFIGS))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Mamba2Steps]:
    module = model(**CONFIGS[request.param])
    return module, Mamba2Steps(module, vocab_size=N_TOKENS)


def tokens(*lengths: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, N_TOKENS, (length,), generator=generator) for length in lengths]


def expected(module: Any, row: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = module(row[None]).logits[0, :, :N_TOKENS]
    return logits


def run(steps: Mamba2Steps, rows: list[Tensor], state: State | None = None, **options: Any) -> Step:
    return steps.step(torch.cat(rows), [len(row) for row in rows], state, **options)


def after(step: Step) -> State:
    assert step.state is not None
    return step.state


def assert_close(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    # Logits of these models are about ten in size.
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance


def test_ragged_rows_equal_transformers(pair: tuple[Any, Mamba2Steps]) -> None:
    module, steps = pair
    rows = tokens(1, 40, 3, 300, 2)
    logits = steps.logits(run(steps, rows).hidden)
    assert_close(logits, torch.cat([expected(module, row) for row in rows]))


@pytest.mark.parametrize("more", [1, 2, 7, 300])
def test_continuing_from_a_state_equals_one_forward(pair: tuple[Any, Mamba2Steps], more: int) -> None:
    module, steps = pair
    starts, ends = tokens(5, 1), tokens(more, 130, seed=2)
    state = after(run(steps, starts))
    step = run(steps, ends, state)
    want = [expected(module, torch.cat(both))[len(both[0]) :] for both in zip(starts, ends, strict=True)]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    assert after(step).lengths == (5 + more, 131)


def test_token_by_token_equals_one_forward() -> None:
    module = model()
    steps = Mamba2Steps(module, vocab_size=N_TOKENS)
    (row,) = tokens(12)
    state: State | None = None
    found = []
    for token in row:
        step = run(steps, [token[None]], state, consume=True)
        found.append(step.hidden)
        state = step.state
    assert_close(steps.logits(torch.cat(found)), expected(module, row))


def test_a_row_does_not_depend_on_its_neighbours(pair: tuple[Any, Mamba2Steps]) -> None:
    _, steps = pair
    rows = tokens(7, 150, 1)
    together = run(steps, rows)
    edges = row_starts([len(row) for row in rows])
    for i, (begin, end) in enumerate(pairwise(edges)):
        alone = run(steps, [rows[i]])
        assert_close(alone.hidden, together.hidden[begin:end], 1e-5)
        for a, b in zip(after(alone).layers, after(together).select([i]).layers, strict=True):
            assert isinstance(a, RecurrentState)
            assert isinstance(b, RecurrentState)
            assert a.rows == b.rows == 1
            for name, tensor in a.tensors().items():
                assert_close(tensor, b.tensors()[name], 1e-5)


def test_children_share_a_prefix(pair: tuple[Any, Mamba2Steps]) -> None:
    module, steps = pair
    prefixes, ends = tokens(9, 4), tokens(3, 1, 6, seed=3)
    state = after(run(steps, prefixes))
    step = run(steps, ends, state.select([1, 0, 1]))
    want = [
        expected(module, torch.cat([prefixes[p], end]))[len(prefixes[p]) :]
        for p, end in zip([1, 0, 1], ends, strict=True)
    ]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    twice = after(run(steps, tokens(2, 2, 2, 2), state.repeat(2)))
    assert twice.lengths == (11, 11, 6, 6)


def test_rows_that_have_seen_nothing_can_stand_beside_others(pair: tuple[Any, Mamba2Steps]) -> None:
    module, steps = pair
    (begun,) = tokens(5)
    ends = tokens(3, 4, seed=2)
    step = run(steps, ends, State.concat([steps.start(1), after(run(steps, [begun]))]))
    want = [expected(module, ends[0]), expected(module, torch.cat([begun, ends[1]]))[5:]]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    assert after(step).lengths == (3, 9)


def test_a_state_changes_only_when_it_is_given_up() -> None:
    steps = Mamba2Steps(model(), vocab_size=N_TOKENS)
    state = after(run(steps, tokens(9, 4)))
    copy = state.snapshot()
    ends = tokens(3, 5, seed=2)
    kept = run(steps, ends, state)
    for a, b in zip(state.layers, copy.layers, strict=True):
        assert all(torch.equal(t, b.tensors()[name]) for name, t in a.tensors().items())
    consumed = run(steps, ends, state, consume=True)
    assert torch.equal(kept.hidden, consumed.hidden)
    for a, b in zip(after(kept).layers, after(consumed).layers, strict=True):
        assert all(torch.equal(t, b.tensors()[name]) for name, t in a.tensors().items())


def test_read_and_keep_take_what_is_asked_for(pair: tuple[Any, Mamba2Steps]) -> None:
    _, steps = pair
    rows = tokens(6, 2, 140)
    whole = run(steps, rows)
    read = torch.tensor([147, 5, 5, 6])
    for keep in ([2, 0], [1, 1, 0]):
        part = run(steps, rows, read=read, keep=keep)
        assert_close(part.hidden, whole.hidden[read], 1e-5)
        assert after(part).lengths == tuple(len(rows[row]) for row in keep)
        for a, b in zip(after(part).layers, after(whole).select(keep).layers, strict=True):
            assert all(torch.equal(t, b.tensors()[name]) for name, t in a.tensors().items())
    none = run(steps, rows, read=read[:0], keep=[])
    assert none.state is None
    assert none.hidden.shape == (0, 32)


def test_sizes_are_as_stated(pair: tuple[Any, Mamba2Steps]) -> None:
    _, steps = pair
    state = after(run(steps, tokens(6, 2, 140)))
    assert state.nbytes == 3 * steps.state_size.fixed_bytes
    assert steps.state_size.bytes_per_token == 0


def test_logits_leave_padded_rows_out() -> None:
    steps = Mamba2Steps(model(), vocab_size=N_TOKENS)
    hidden = run(steps, tokens(3)).hidden
    whole = steps.logits(hidden)
    assert whole.shape == (3, N_TOKENS)
    assert N_ROWS > N_TOKENS
    assert torch.allclose(steps.logits(hidden, first=7, last=20), whole[:, 7:20], atol=1e-5)
    assert torch.allclose(steps.logits(hidden, first=290), whole[:, 290:], atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "groups"])
def test_bfloat16_is_no_less_exact_than_transformers(name: str) -> None:
    module = model(**CONFIGS[name]).to(torch.bfloat16)
    wide = model(**CONFIGS[name])
    wide.load_state_dict({k: v.float() for k, v in module.state_dict().items()})
    steps = Mamba2Steps(module, vocab_size=N_TOKENS)
    rows = tokens(90, 33, 150)
    exact = torch.cat([expected(wide, row) for row in rows])
    shipped = torch.cat([expected(module, row) for row in rows])
    step = run(steps, rows)
    assert step.hidden.dtype == torch.float32
    error = (steps.logits(step.hidden) - exact).square().mean().sqrt()
    shipped_error = (shipped.float() - exact).square().mean().sqrt()
    assert 0 < error <= 1.5 * shipped_error + 1e-6


def test_weights_are_shared() -> None:
    module = model()
    steps = Mamba2Steps(module, vocab_size=N_TOKENS)
    rows = tokens(5)
    before = run(steps, rows).hidden
    module.backbone.layers[0].mixer.in_proj.weight.data.mul_(1.5)
    assert not torch.allclose(run(steps, rows).hidden, before)


def test_mismatched_arguments_are_refused() -> None:
    steps = Mamba2Steps(model(), vocab_size=N_TOKENS)
    state = after(run(steps, tokens(2, 2)))
    with pytest.raises(ValueError, match="ids of shape"):
        steps.step(torch.zeros(3, dtype=torch.int64), [2])
    with pytest.raises(ValueError, match="a state of 2"):
        run(steps, tokens(3), state)
    with pytest.raises(ValueError, match="hidden_act"):
        Mamba2Steps(model(hidden_act="gelu"), vocab_size=N_TOKENS)


def variant_weights(d_ssm: int, *, channel_skip: bool, norm: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    d_model, d_inner, heads, n = 12, 24, d_ssm // 4, 5
    conv = d_ssm + 2 * n
    shapes = {
        "in_proj.weight": (2 * d_inner + 2 * n + heads, d_model), "out_proj.weight": (d_model, d_inner),
        "conv1d.weight": (conv, 1, 4), "conv1d.bias": (conv,), "dt_bias": (heads,), "A_log": (heads,),
        "D": (d_ssm if channel_skip else heads,),
    }  # fmt: skip
    if norm:
        shapes["norm.weight"] = (d_ssm,)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("d_ssm", [24, 16])
@pytest.mark.parametrize("channel_skip", [False, True])
@pytest.mark.parametrize(("norm", "gate_first"), [(True, True), (True, False), (False, True)])
def test_variants_of_mamba_ssm_equal_their_formula(
    d_ssm: int, channel_skip: bool, norm: bool, gate_first: bool
) -> None:
    from mambabench.kernels.packed import CpuKernels
    from mambabench.kernels.reference import ssd_reference

    w = variant_weights(d_ssm, channel_skip=channel_skip, norm=norm)
    layer = Mamba2Layer(w, CpuKernels(), d_state=5, n_groups=1, norm_eps=1e-5, gate_first=gate_first)
    x = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    got = layer.step(x, row_starts([9]), None, None)

    d = {name: tensor.double() for name, tensor in w.items()}
    heads = d_ssm // 4
    z0, x0, z, xbc, dt = torch.split(
        x.double() @ d["in_proj.weight"].T, [24 - d_ssm, 24 - d_ssm, d_ssm, d_ssm + 10, heads], dim=1
    )
    silu = torch.nn.functional.silu
    padded = torch.nn.functional.pad(xbc.T, (3, 0))[None]
    xbc = silu(torch.nn.functional.conv1d(padded, d["conv1d.weight"], d["conv1d.bias"], groups=d_ssm + 10))[
        0
    ].T
    u, b, c = torch.split(xbc, [d_ssm, 5, 5], dim=1)
    skip = d["D"].view(heads, 4) if channel_skip else d["D"][:, None].expand(heads, 4)
    y, _ = ssd_reference(
        u.reshape(9, heads, 4).numpy(), dt.numpy(), -d["A_log"].exp().numpy(), b[:, None].numpy(),
        c[:, None].numpy(), skip.numpy(), dt_bias=d["dt_bias"].numpy(),
    )  # fmt: skip
    out = torch.from_numpy(y).reshape(9, d_ssm)
    if norm:
        out = out * silu(z) if gate_first else out
        out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + 1e-5) * d["norm.weight"]
        out = out if gate_first else out * silu(z)
    else:
        out = out * silu(z)
    want = torch.cat([silu(z0) * x0, out], dim=1) @ d["out_proj.weight"].T
    assert_close(got.double(), want, 1e-5 * float(want.abs().max()))
