"""Whose layout of the state a forecast takes, before any library is imported."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from speed_records import sizes_by_name

from mambabench.speed_schema import PointRecord
from mambabench.sweep import plan

SIZES = sizes_by_name("mamba-130m", "pythia-160m", "mamba2attn-2.7b")
MAMBA, PYTHIA, HYBRID = SIZES


@pytest.mark.parametrize("has_mamba_ssm", [False, True])
@pytest.mark.parametrize(
    ("model", "arm", "attention", "without", "beside"),
    [
        (MAMBA, "eager", "none", "mambabench", "mambabench"),
        (MAMBA, "graph", "none", "mambabench", "mamba_ssm"),
        (MAMBA, "shipped", "none", "transformers", "mamba_ssm"),
        (HYBRID, "eager", "sdpa", "mambabench", "mambabench"),
        (HYBRID, "graph", "sdpa", "mambabench", "mambabench"),
        (HYBRID, "shipped", "sdpa", "transformers", "mamba_ssm"),
        (PYTHIA, "eager", "sdpa", "mambabench", "mambabench"),
        (PYTHIA, "graph", "sdpa", "transformers", "transformers"),
        (PYTHIA, "eager", "flash", "transformers", "transformers"),
    ],
)
def test_the_layout_is_that_of_whoever_steps(
    model: str, arm: Any, attention: Any, without: str, beside: str, has_mamba_ssm: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    usual = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return (object() if has_mamba_ssm else None) if name == "mamba_ssm" else usual(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    asked = PointRecord(
        model=model, batch_size=1, prompt_len_tokens=8, gen_len_tokens=8, arm=arm, attention=attention,
        dtype="bfloat16", device="cuda:0",
    )  # fmt: skip
    wanted = beside if has_mamba_ssm else without
    assert plan._layout(asked, SIZES[model]).implementation == wanted
