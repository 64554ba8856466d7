"""mamba_ssm's own model stepped by mambabench, with stand-ins for its CUDA functions; skipped without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import hybrid_config, mamba_ssm_config, tiny_hybrid, tiny_mamba_ssm
from mamba_ssm_code import needs_mamba_ssm, run_beside

from mambabench.bench.agreement import TOLERANCE

PROMPT, NEW = 9, 7
# Without rotary positions, whose code is flash-attn's.
PLAIN = {"causal": True, "num_heads": 4, "num_heads_kv": 2, "qkv_proj_bias": False, "out_proj_bias": False}

LIMITED = {"layer": "Mamba2", "d_state": 16, "headdim": 8, "chunk_size": 32, "dt_limit": [0.3, 0.9]}
DIFFER = {"hybrid with windows": "a wrong window", "mamba2 with limits": "forgets the limits"}
"""Why mamba_ssm's steps are refused."""

pytestmark = needs_mamba_ssm

CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "mamba": partial(tiny_mamba_ssm, layer="Mamba1"),
    "mamba2": partial(tiny_mamba_ssm, layer="Mamba2"),
    "mamba2 with limits": lambda where: tiny_hybrid(where, mamba_ssm_config(ssm_cfg=LIMITED)),
    "hybrid": lambda where: tiny_hybrid(where, hybrid_config(attn_cfg={**PLAIN, "head_dim": 16})),
    "hybrid with windows": lambda where: tiny_hybrid(where, hybrid_config(attn_cfg={**PLAIN, "d_conv": 4})),
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process found for each family."""
    directories = []
    for build in CHECKPOINTS.values():
        directory = tmp_path_factory.mktemp("official") / "m"
        directory.mkdir()
        directories.append(build(directory))
    script = Path(__file__).with_name("official_arms_on_cpu.py")
    tests = script.parents[1]
    found = run_beside(script, *directories, folders=(tests / "models", tests))
    return dict(zip(CHECKPOINTS, found, strict=True))


@pytest.fixture(scope="module")
def found(family: str, of_all: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = of_all[family]
    return result


@pytest.mark.parametrize("arm", ["shipped", "graph"])
def test_ids_are_those_of_our_own_forward(found: dict[str, Any], family: str, arm: str) -> None:
    first, again, *rewound = found[arm]["ids"]
    assert first == again
    assert rewound == [first, first]
    if family in DIFFER:
        assert found[arm]["disagreement"] > TOLERANCE["float32"]
        return
    assert first == found["want"]
    assert found[arm]["disagreement"] < 1e-4


@pytest.mark.parametrize("arm", ["shipped", "graph"])
def test_the_state_is_as_large_as_the_layout_says(found: dict[str, Any], arm: str) -> None:
    live, computed = found[arm]["bytes"]
    assert live == computed > 0
    assert found[arm]["dtypes"] == ["torch.float32"]
    assert found[arm]["tokens"] == PROMPT + NEW


def test_a_recorded_step_keeps_addresses_and_counts_lengths(found: dict[str, Any]) -> None:
    graph = found["graph"]
    assert graph["stays"]
    assert graph["lengths_after_prompt"] == [PROMPT, PROMPT]
    assert graph["lengths_after_all"] == [PROMPT + NEW - 1] * 2


def test_lengths_of_the_plain_loop_are_the_hosts(found: dict[str, Any]) -> None:
    assert found["shipped"]["lengths_after_prompt"] is None
    assert found["shipped"]["offset"] == PROMPT + NEW - 1
    assert found["shipped"]["implementation"].startswith("mamba_ssm ")


def test_what_cannot_be_is_refused(found: dict[str, Any], family: str) -> None:
    assert ("without flash-attn" in found["without_flash"]) == (family == "hybrid")
    assert DIFFER.get(family, "") in found["refused"]
    assert bool(found["refused"]) == (family in DIFFER)
    assert "several tokens on from a state" in found["in_chunks"]


def test_our_own_steps_are_recorded_where_theirs_cannot_be(found: dict[str, Any], family: str) -> None:
    """Where theirs would be wrong, as without flash-attn, and in pieces; else theirs are."""
    theirs, own = "mamba_ssm MambaLMHeadModel", "mambabench HybridSteps over mamba_ssm MambaLMHeadModel"
    instead = found["instead"]
    assert instead["implementation"] == (own if "hybrid" in family or family in DIFFER else theirs)
    assert ("in steps over a static cache" in instead["kernel_path"]) == ("hybrid" in family)
    assert instead["ids"] == found["want"]
    assert instead["disagreement"] < 1e-4
    assert found["recorded"] == (own if family in DIFFER else theirs)
    assert found["recorded_in_chunks"] == own


def test_another_shape_is_recorded_anew_after_the_last_one_is_freed(found: dict[str, Any]) -> None:
    assert found["other_shapes"] == {
        "recorded": 3, "gone": [True] * 3, "repeats": True, "keeps_others": False,
    }  # fmt: skip
