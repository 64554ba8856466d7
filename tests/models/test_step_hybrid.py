"""mamba_ssm's hybrids as a function of a state, against a plain float64 forward and mamba_ssm's own code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mamba_ssm_code import needs_mamba_ssm, run_beside
from torch import Tensor

from mambabench.errors import CheckpointError
from mambabench.kernels.reference import selective_scan_reference, ssd_reference
from mambabench.models.hybrid_shapes import mixer_settings, obstacle, parameter_shapes
from mambabench.models.stateful import State, Step
from mambabench.models.step_hybrid import HybridSteps
from mambabench.registry import resolve

N = 61
_PLAIN_HEADS = {"causal": True, "num_heads": 4, "qkv_proj_bias": False, "out_proj_bias": False}
_MAMBA2 = {"layer": "Mamba2", "d_state": 8, "headdim": 8}


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "d_model": 32, "n_layer": 3, "vocab_size": N, "pad_vocab_size_multiple": 16, "ssm_cfg": _MAMBA2,
        "attn_layer_idx": [1], "attn_cfg": {**_PLAIN_HEADS, "rotary_emb_dim": 8}, **changes,
    }  # fmt: skip


CONFIGS = {
    # As mamba2attn-2.7b, small.
    "convolved": configuration(
        attn_cfg={**_PLAIN_HEADS, "d_conv": 4, "head_dim": 16, "num_heads": 3, "rotary_emb_dim": 8}
    ),
    # As transformerpp-2.7b, small.
    "attention": configuration(
        attn_layer_idx=[0, 1, 2], d_intermediate=100, attn_cfg={**_PLAIN_HEADS, "rotary_emb_dim": 8}
    ),
    "mamba1": configuration(
        ssm_cfg={"d_state": 4, "dt_rank": 3, "bias": True}, attn_layer_idx=[0, 2], d_intermediate=64
    ),
    "all_of_attention": configuration(
        attn_cfg={
            "causal": True, "num_heads": 4, "num_heads_kv": 2, "softmax_scale": 0.2, "mlp_dim": 200,
            "rotary_emb_dim": 4, "rotary_emb_interleaved": True, "rotary_emb_base": 100.0, "d_conv": 2,
        },
        rms_norm=False, tie_embeddings=False,
    ),
    "all_of_mamba2": configuration(
        attn_cfg=_PLAIN_HEADS,
        ssm_cfg={
            **_MAMBA2, "ngroups": 2, "d_ssm": 48, "D_has_hdim": True, "norm_before_gate": True, "expand": 3,
            "dt_limit": (0.1, 2.0), "conv_bias": False, "bias": True, "d_conv": 3,
        },
    ),
    "ungated": configuration(attn_layer_idx=[], ssm_cfg={**_MAMBA2, "rmsnorm": False}, rms_norm=False),
}  # fmt: skip


def weights(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in parameter_shapes(config).items():
        size = 0.3 if "norm" in name or len(shape) < 2 else shape[-1] ** -0.5
        made[name] = size * torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            made[name] += 1
    return made


def exact(config: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Forward one row in float64, as plainly as can be; return its logits [L, N]."""
    w = {name: tensor.double() for name, tensor in state.items()}
    rms = config.get("rms_norm", True)

    def norm(x: Tensor, name: str) -> Tensor:
        if rms:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w[f"{name}.weight"]
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    x = w["backbone.embedding.weight"][ids]
    for index in range(config["n_layer"]):
        prefix = f"backbone.layers.{index}"
        own = {
            n.removeprefix(f"{prefix}.mixer."): t for n, t in w.items() if n.startswith(f"{prefix}.mixer.")
        }
        attends = index in config["attn_layer_idx"]
        mixer = _attention if attends else _mamba2 if "layer" in config["ssm_cfg"] else _mamba1
        x = x + mixer(config, own, norm(x, f"{prefix}.norm"))
        if config.get("d_intermediate"):
            value, gate = (norm(x, f"{prefix}.norm2") @ w[f"{prefix}.mlp.fc1.weight"].T).chunk(2, dim=1)
            x = x + (value * F.silu(gate)) @ w[f"{prefix}.mlp.fc2.weight"].T
    head = w.get("lm_head.weight", w["backbone.embedding.weight"])
    return (norm(x, "backbone.norm_f") @ head.T)[:, :N]


def _conv(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    taps = w["conv1d.weight"]
    padded = F.pad(x.T, (taps.shape[2] - 1, 0))
    return F.conv1d(padded[None], taps, w.get("conv1d.bias"), groups=taps.shape[0])[0].T


def _attention(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    c = config["attn_cfg"]
    heads, length = c["num_heads"], x.shape[0]
    kv_heads, size = c.get("num_heads_kv", heads), c.get("head_dim", config["d_model"] // heads)
    both = F.linear(x, w["in_proj.weight"], w.get("in_proj.bias"))
    qkv, mlp = both[:, : (heads + 2 * kv_heads) * size], both[:, (heads + 2 * kv_heads) * size :]
    if c.get("d_conv"):
        qkv = _conv(qkv, w)
    q, k, v = torch.split(qkv.view(length, -1, size), [heads, kv_heads, kv_heads], dim=1)
    half = c.get("rotary_emb_dim", 0) // 2
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if c.get("rotary_emb_interleaved") else (i, i + half)
        angle = torch.arange(length).double()[:, None] / c.get("rotary_emb_base", 1e4) ** (i / half)
        for part in (q, k):
            part[..., a], part[..., b] = (
                part[..., a] * angle.cos() - part[..., b] * angle.sin(),
                part[..., a] * angle.sin() + part[..., b] * angle.cos(),
            )
    k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * c.get("softmax_scale", size**-0.5)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    out = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v).flatten(1)
    if mlp.shape[1]:
        value, gate = mlp.chunk(2, dim=1)
        out = torch.cat([out, value * F.silu(gate)], dim=1)
    return F.linear(out, w["out_proj.weight"], w.get("out_proj.bias"))


def _mamba2(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    c = mixer_settings(config)
    inner, length = c["expand"] * config["d_model"], x.shape[0]
    d_ssm, groups, n, width = c["d_ssm"] or inner, c["ngroups"], c["d_state"], c["headdim"]
    heads = d_ssm // width
    z0, x0, z, xbc, dt = torch.split(
        F.linear(x, w["in_proj.weight"], w.get("in_proj.bias")),
        [inner - d_ssm, inner - d_ssm, d_ssm, d_ssm + 2 * groups * n, heads],
        dim=1,
    )
    u, b, cc = torch.split(F.silu(_conv(xbc, w)), [d_ssm, groups * n, groups * n], dim=1)
    skip = w["D"].view(heads, -1).expand(heads, width)
    y, _ = ssd_reference(
        u.reshape(length, heads, width).numpy(), dt.numpy(), -np.exp(w["A_log"].numpy()),
        b.reshape(length, groups, n).numpy(), cc.reshape(length, groups, n).numpy(), skip.numpy(),
        dt_bias=w["dt_bias"].numpy(), dt_limit=c["dt_limit"],
    )  # fmt: skip
    out = torch.from_numpy(y).reshape(length, d_ssm)
    if not c["norm_before_gate"] or not c["rmsnorm"]:
        out = out * F.silu(z)
    if c["rmsnorm"]:
        grouped = out.view(length, groups, -1)
        out = (grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + 1e-5)).flatten(1)
        out = out * w["norm.weight"]
    if c["norm_before_gate"] and c["rmsnorm"]:
        out = out * F.silu(z)
    return F.linear(torch.cat([F.silu(z0) * x0, out], 1), w["out_proj.weight"], w.get("out_proj.bias"))


def _mamba1(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    c = mixer_settings(config)
    u, z = F.linear(x, w["in_proj.weight"], w.get("in_proj.bias")).chunk(2, dim=1)
    u = F.silu(_conv(u, w))
    dt, b, cc = torch.split(u @ w["x_proj.weight"].T, [c["dt_rank"], c["d_state"], c["d_state"]], dim=1)
    y, _ = selective_scan_reference(
        u[None].numpy(), (dt @ w["dt_proj.weight"].T)[None].numpy(), -np.exp(w["A_log"].numpy()),
        b[None].numpy(), cc[None].numpy(), w["D"].numpy(), z=z[None].numpy(),
        delta_bias=w["dt_proj.bias"].numpy(), delta_softplus=True,
    )  # fmt: skip
    return F.linear(torch.from_numpy(y[0]), w["out_proj.weight"], w.get("out_proj.bias"))


Case = tuple[dict[str, Any], dict[str, Tensor], HybridSteps]


@pytest.fixture(scope="module", params=list(CONFIGS))
def case(request: pytest.FixtureRequest) -> Case:
    config = CONFIGS[request.param]
    state = weights(config)
    return config, state, HybridSteps(config, state, vocab_size=N, dtype=torch.float32)


def tokens(*lengths: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, N, (length,), generator=generator) for length in lengths]


def run(steps: HybridSteps, rows: list[Tensor], state: State | None = None, **options: Any) -> Step:
    return steps.step(torch.cat(rows), [len(row) for row in rows], state, **options)


def after(step: Step) -> State:
    assert step.state is not None
    return step.state


def assert_close(got: Tensor, want: Tensor, tolerance: float = 2e-5) -> None:
    assert got.shape == want.shape
    assert (got.double() - want.double()).abs().max() <= tolerance * want.abs().max()


def test_ragged_rows_equal_the_float64_forward(case: Case) -> None:
    config, state, steps = case
    rows = tokens(1, 20, 3, 140)
    want = torch.cat([exact(config, state, row) for row in rows])
    assert_close(steps.logits(run(steps, rows).hidden), want)


@pytest.mark.parametrize("more", [1, 2, 7, 300])
def test_continuing_from_a_state_equals_one_forward(case: Case, more: int) -> None:
    config, state, steps = case
    starts, ends = tokens(5, 1), tokens(more, 3, seed=2)
    before = after(run(steps, starts))
    step = run(steps, ends, before)
    joined = [torch.cat(both) for both in zip(starts, ends, strict=True)]
    want = [exact(config, state, row)[len(s) :] for row, s in zip(joined, starts, strict=True)]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    assert after(step).lengths == (5 + more, 4)
    assert torch.equal(run(steps, ends, before).hidden, step.hidden)


def test_rows_that_have_seen_nothing_can_stand_beside_others(case: Case) -> None:
    config, state, steps = case
    (begun,) = tokens(5)
    ends = tokens(3, 4, seed=2)
    before = State.concat([steps.start(1), after(run(steps, [begun]))])
    step = run(steps, ends, before)
    want = [exact(config, state, ends[0]), exact(config, state, torch.cat([begun, ends[1]]))[5:]]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    assert after(step).lengths == (3, 9)


def test_token_by_token_equals_one_forward(case: Case) -> None:
    config, state, steps = case
    (row,) = tokens(12)
    before: State | None = None
    found = []
    for token in row:
        step = run(steps, [token[None]], before, consume=True)
        found.append(step.hidden)
        before = step.state
    assert_close(steps.logits(torch.cat(found)), exact(config, state, row))


def test_children_share_a_prefix(case: Case) -> None:
    config, state, steps = case
    prefixes, ends = tokens(9, 4), tokens(3, 1, 6, seed=3)
    step = run(steps, ends, after(run(steps, prefixes)).select([1, 0, 1]))
    want = [
        exact(config, state, torch.cat([prefixes[p], end]))[len(prefixes[p]) :]
        for p, end in zip([1, 0, 1], ends, strict=True)
    ]
    assert_close(steps.logits(step.hidden), torch.cat(want))
    (more,) = tokens(4, seed=4)
    again = run(steps, [more, more], after(step).select([2, 0]))
    alone = run(steps, [torch.cat([prefixes[1], ends[2], more])])
    assert_close(again.hidden[:4], alone.hidden[-4:])


def test_read_and_keep_take_what_is_asked_for(case: Case) -> None:
    _, _, steps = case
    rows = tokens(6, 2, 40)
    whole = run(steps, rows)
    read = torch.tensor([47, 5, 5, 6])
    for keep in ([2, 0], [1, 1, 0]):
        part = run(steps, rows, read=read, keep=keep)
        assert_close(part.hidden, whole.hidden[read], 1e-5)
        assert after(part).lengths == tuple(len(rows[row]) for row in keep)
        ends = tokens(*(2 for _ in keep))
        want = run(steps, ends, after(whole).select(keep)).hidden
        assert_close(run(steps, ends, part.state).hidden, want, 1e-5)
    none = run(steps, rows, read=read[:0], keep=[])
    assert none.state is None
    assert none.hidden.shape == (0, 32)


def test_sizes_are_as_stated(case: Case) -> None:
    _, _, steps = case
    nbytes = after(run(steps, tokens(6, 2, 40))).nbytes
    assert nbytes == 3 * steps.state_size.fixed_bytes + 48 * steps.state_size.bytes_per_token


def test_logits_leave_padded_rows_out() -> None:
    steps = HybridSteps(CONFIGS["mamba1"], weights(CONFIGS["mamba1"]), vocab_size=N, dtype=torch.float32)
    hidden = run(steps, tokens(3)).hidden
    assert steps.logits(hidden).shape == (3, N)
    assert torch.allclose(steps.logits(hidden, first=7, last=20), steps.logits(hidden)[:, 7:20], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_stay_close(dtype: torch.dtype) -> None:
    config = CONFIGS["convolved"]
    state = weights(config)
    steps = HybridSteps(config, state, vocab_size=N, dtype=dtype)
    (row,) = tokens(50)
    want = exact(config, state, row)
    error = (steps.logits(run(steps, [row]).hidden).double() - want).square().mean().sqrt()
    assert 0 < error < 0.05 * want.square().mean().sqrt()


def test_kernel_paths_name_what_runs() -> None:
    names = {
        name: HybridSteps(config, weights(config), vocab_size=N, dtype=torch.float32).kernel_path
        for name, config in CONFIGS.items()
    }
    assert names["attention"] == "torch sdpa, packed"
    assert names["ungated"] == "mambabench compiled scan"
    assert names["mamba1"] == "mambabench compiled scan; torch sdpa, packed"


def test_weights_that_do_not_fit_are_refused() -> None:
    config = CONFIGS["convolved"]
    state = weights(config)
    name = "backbone.layers.1.mixer.conv1d.weight"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != name}, f"lacks {name}"),
        ({**state, "odd": torch.zeros(1)}, "unknown odd"),
        ({**state, name: state[name][:, :, 1:]}, "conv1d.weight is"),
    ):
        with pytest.raises(CheckpointError, match=message):
            HybridSteps(config, wrong, vocab_size=N, dtype=torch.float32)
    extra = {"lm_head.weight": state["backbone.embedding.weight"], "x.rotary_emb.inv_freq": torch.zeros(1)}
    HybridSteps(config, {**state, **extra}, vocab_size=N, dtype=torch.float32)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ssm_cfg": {"layer": "Mamba3"}}, "its layers are Mamba3"),
        ({"ssm_cfg": {"layer": "Mamba2", "gone": 1}}, "its ssm_cfg has gone"),
        ({"attn_cfg": {"num_heads": 4, "causal": True, "window": 3}}, "its attn_cfg has window"),
        ({"attn_cfg": {"num_heads": 4}}, "its attention sees later tokens"),
    ],
)
def test_what_is_not_known_is_refused(changes: dict[str, Any], reason: str) -> None:
    config = configuration(**changes)
    assert obstacle(config) == reason
    with pytest.raises(CheckpointError, match=reason):
        HybridSteps(config, {}, vocab_size=N, dtype=torch.float32)
    assert all(obstacle(config) == "" for config in CONFIGS.values())


@needs_mamba_ssm
def test_mamba_ssms_own_code_agrees() -> None:
    script = Path(__file__).with_name("hybrids_on_cpu.py")
    found = run_beside(script, stdin=CONFIGS)
    assert set(found) == set(CONFIGS)
    assert max(found.values()) < 2e-5, found


@pytest.mark.parametrize("name", ["mamba-130m", "mamba2-130m", "mamba2attn-2.7b", "transformerpp-2.7b"])
def test_shapes_make_the_published_number_of_parameters(name: str) -> None:
    spec = resolve(name).spec
    assert spec is not None
    assert obstacle(spec.config) == ""
    assert sum(math.prod(shape) for shape in parameter_shapes(spec.config).values()) == spec.n_parameters
