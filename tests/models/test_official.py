"""The path to mamba_ssm's own model, with stand-ins for its CUDA functions; skipped where it is not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import hybrid1_config, hybrid_config, mamba_ssm_config, tiny_hybrid, tiny_mamba, tiny_mamba2
from mamba_ssm_code import needs_mamba_ssm, run_beside

from mambabench.models.launch_limits import GRID_BLOCKS, SCAN_CHUNK_TOKENS

pytestmark = needs_mamba_ssm

TOLERANCE = {"float32": 2e-6, "float16": 4e-3, "bfloat16": 3e-2}
"""Largest error of the logits, as the root of a mean square in standard deviations of the logits. Two or
three layers lose a few roundings of the dtype: 6e-8, 5e-4 and 4e-3 each."""
_MAMBA2 = {"layer": "Mamba2", "d_state": 16, "headdim": 8}
_HEADS = {"causal": True, "num_heads": 4, "num_heads_kv": 2, "qkv_proj_bias": False, "out_proj_bias": False}
# As Mamba-Codestral-7B, small: several groups, a head of its own, and a residual stream as wide as the rest.
_CODESTRAL = {"n_groups": 2, "tie_word_embeddings": False, "residual_in_fp32": False, "chunk_size": 8}
_ODD = {
    **_MAMBA2, "ngroups": 2, "d_ssm": 48, "D_has_hdim": True, "norm_before_gate": True, "expand": 3,
    "conv_bias": False, "bias": True, "d_conv": 3,
}  # fmt: skip
CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "mamba of transformers": tiny_mamba,
    "mamba": lambda path: tiny_hybrid(path, mamba_ssm_config()),
    "mamba with biases of transformers": partial(
        tiny_mamba, config={"use_bias": True, "use_conv_bias": False, "time_step_rank": 3, "conv_kernel": 3}
    ),
    "mamba2 of transformers": tiny_mamba2,
    "mamba2": lambda path: tiny_hybrid(path, mamba_ssm_config(ssm_cfg=_MAMBA2)),
    "codestral of transformers": partial(tiny_mamba2, config=_CODESTRAL),
    "codestral": lambda path: tiny_hybrid(
        path,
        mamba_ssm_config(
            ssm_cfg={**_MAMBA2, "ngroups": 2, "chunk_size": 8}, tie_embeddings=False, residual_in_fp32=False
        ),
    ),
    "limited steps": lambda path: tiny_hybrid(
        path, mamba_ssm_config(ssm_cfg={**_MAMBA2, "dt_limit": [0.3, 0.9]})
    ),
    "limited steps of transformers": partial(tiny_mamba2, config={"time_step_limit": (0.3, 0.9)}),
    "odd mamba2": lambda path: tiny_hybrid(path, mamba_ssm_config(ssm_cfg=_ODD, tie_embeddings=False)),
    "ungated mamba2": lambda path: tiny_hybrid(
        path, mamba_ssm_config(ssm_cfg={**_MAMBA2, "rmsnorm": False}, rms_norm=False)
    ),
    "hybrid": lambda path: tiny_hybrid(path, hybrid_config()),
    "hybrid of mamba": lambda path: tiny_hybrid(path, hybrid1_config()),
    "plain hybrid": lambda path: tiny_hybrid(path, hybrid_config(attn_cfg=_HEADS)),
}
# The stand-in for flash-attn's rotation is there, flash-attn is not.
REFUSED = {
    "limited steps": "forgets the limits",
    "limited steps of transformers": "forgets the limits",
    "odd mamba2": "D a channel",
    "hybrid": "wrong window",
    "hybrid of mamba": "without flash-attn",
    "plain hybrid": "without flash-attn",
}
NARROW = ("mamba", "mamba2", "codestral of transformers", "odd mamba2", "hybrid", "hybrid of mamba")
CASES = [(name, "float32") for name in CHECKPOINTS] + [
    (n, d) for n in NARROW for d in ("bfloat16", "float16")
]


SHAPES: dict[str, dict[str, Any]] = {
    "mamba-2.8b": mamba_ssm_config(d_model=2560, n_layer=1, ssm_cfg={}),
    "mamba2-2.7b": mamba_ssm_config(d_model=2560, n_layer=1, ssm_cfg={"layer": "Mamba2"}),
    "hybrid": hybrid_config(attn_cfg={**_HEADS, "head_dim": 16}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process found for all cases."""
    directories = {}
    for name, build in CHECKPOINTS.items():
        place = tmp_path_factory.mktemp("official") / "m"
        place.mkdir()
        directories[name] = str(build(place))
    cases = {f"{name}, {dtype}": {"directory": directories[name], "dtype": dtype} for name, dtype in CASES}
    asked = {"cases": cases, "shapes": SHAPES}
    result: dict[str, Any] = run_beside(Path(__file__).with_name("official_matrix_on_cpu.py"), stdin=asked)
    return result


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_its_forward_is_that_of_the_definitions(found: dict[str, Any], name: str, dtype: str) -> None:
    case = found["cases"][f"{name}, {dtype}"]
    assert case["error"] < TOLERANCE[dtype]
    assert case["last_error"] < TOLERANCE[dtype]
    assert case["parted_error"] < TOLERANCE[dtype]
    # Rows of padding are left out.
    assert case["shape"] == [3, 5, 300]
    assert case["tied"] == (name not in ("codestral", "codestral of transformers", "odd mamba2"))
    assert case["implementation"] == "mambabench HybridSteps over mamba_ssm MambaLMHeadModel"
    # Without causal-conv1d, as here, its fused forms would fail.
    assert case["shipped_kernels"] == "mamba_ssm CUDA, not fused"


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_its_weights_are_in_the_dtype_and_its_recurrence_is_not(
    found: dict[str, Any], name: str, dtype: str
) -> None:
    case = found["cases"][f"{name}, {dtype}"]
    assert case["others"] == [f"torch.{dtype}"]
    assert case["recurrence"] == ["torch.float32"]
    assert case["rounded_once"]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_steps_over_its_weights_are_certified(found: dict[str, Any], name: str, dtype: str) -> None:
    case = found["cases"][f"{name}, {dtype}"]
    assert case["steps_error"] < TOLERANCE[dtype]
    assert case["certificate"]["passed"]
    assert case["certificate"]["shipped_path"] == "mamba_ssm MambaLMHeadModel"
    known = "odd" not in name and "ungated" not in name and "hybrid" not in name
    assert (case["reference"] != "PlainModel") == known


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_continues_texts_or_says_why_not(found: dict[str, Any], name: str) -> None:
    case = found["cases"][f"{name}, float32"]
    ours, best, unguarded = (case["texts"][key] for key in ("ours", "best", "unguarded"))
    if name in REFUSED:
        assert REFUSED[name] in ours
        assert "--engine shared" in ours
    else:
        assert ours == best
        assert [len(row) for row in ours] == [9, 9, 4]
        assert max(map(max, ours)) < 300
        end = best[0][3]
        assert case["texts"]["ended"] == [row[: row.index(end) + 1] if end in row else row for row in best]
    assert case["parted_text_is_the_same"]
    # Rows 0 and 1 are a part, as are 2 and 3; the third is ended early.
    drawn = case["one_prompt_drawn"]
    assert name in REFUSED or len({tuple(row[:4]) for row in drawn}) == 4
    # No more is refused than what would be wrong.
    assert (unguarded != best) == (name in REFUSED)
    # Such as recorded graphs, which its own generation keeps there.
    assert case["left_on_module"] == []


def test_transformers_stays_off_its_kernels_on_a_cpu(found: dict[str, Any]) -> None:
    assert found["kernel_path"] == "mambabench compiled scan"


def test_what_its_kernels_can_count(found: dict[str, Any]) -> None:
    bounds = {
        name: {what: (piece, elements, most) for what, piece, elements, most, *_ in own}
        for name, own in found["bounds"].items()
    }
    assert set(bounds["mamba-2.8b"].values()) == {
        (1, 5120, 2**32),
        (SCAN_CHUNK_TOKENS, 5120 * 16, 2**31),
        (1, 2560, 2**31),
    }
    of_2_7b = bounds["mamba2-2.7b"]
    assert of_2_7b["ssd_chunk_state.py: in_proj's output"] == (1, 2 * 5120 + 2 * 128 + 80, 2**31)
    assert of_2_7b["ssd_chunk_state.py: states"] == (256, 80 * 64 * 128, 2**31)
    assert of_2_7b["ssd_bmm.py: its grid"] == (256, 1, GRID_BLOCKS)
    assert of_2_7b["causal_conv1d_fwd.cu: its grid"] == bounds["hybrid"]["causal_conv1d_fwd.cu: its grid"]
    assert of_2_7b["ssd_bmm.py: scores"] == (256, 256 * 256, 2**31)
    assert of_2_7b["layer_norm.py: the residual stream"] == (1, 2560, 2**31)
    # Four heads of queries and two of keys and values, of 16 columns each.
    assert bounds["hybrid"]["attention: its projection"] == (1, (4 + 2 * 2) * 16, 2**31)
    assert "ssd_chunk_state.py: states" in bounds["hybrid"]
