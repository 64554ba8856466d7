"""Whose layout of the state a forecast takes, before any library is imported."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import pytest

from mambabench.bench.sizes import sizes_of
from mambabench.models.locate import locate
from mambabench.registry import resolve
from mambabench.speed_schema import PointRecord
from mambabench.sweep import plan
from mambabench.sweep.options import Subject


def subject(name: str, **ssm: Any) -> Subject:
    """Return a registered model; `ssm` changes its Mamba layers."""
    ref = resolve(name)
    located = locate(ref, "random")
    if ssm:
        located = replace(located, config=located.config | {"ssm_cfg": located.config["ssm_cfg"] | ssm})
    return plan._subject(ref, located, sizes_of(ref, located), False)


MAMBA, PYTHIA, HYBRID, FALCON, MAMBA2 = (
    subject(name)
    for name in ("mamba-130m", "pythia-160m", "mamba2attn-2.7b", "falcon-mamba-7b", "mamba2-130m")
)
LIMITED = subject("mamba2-130m", dt_limit=[0.001, 0.1])


@pytest.mark.parametrize("has_mamba_ssm", [False, True])
@pytest.mark.parametrize(
    ("model", "arm", "attention", "without", "beside"),
    [
        (MAMBA, "eager", "none", "mambabench", "mambabench"),
        (MAMBA, "graph", "none", "mambabench", "mamba_ssm"),
        (MAMBA, "shipped", "none", "transformers", "mamba_ssm"),
        (FALCON, "eager", "none", "mambabench", "mambabench"),
        (FALCON, "graph", "none", "mambabench", "mambabench"),
        (FALCON, "shipped", "none", "transformers", "transformers"),
        (MAMBA2, "graph", "none", "mambabench", "mamba_ssm"),
        (LIMITED, "graph", "none", "mambabench", "mambabench"),
        (LIMITED, "shipped", "none", "transformers", "mamba_ssm"),
        (HYBRID, "eager", "sdpa", "mambabench", "mambabench"),
        (HYBRID, "graph", "sdpa", "mambabench", "mambabench"),
        (HYBRID, "shipped", "sdpa", "transformers", "mamba_ssm"),
        (PYTHIA, "eager", "sdpa", "mambabench", "mambabench"),
        (PYTHIA, "graph", "sdpa", "transformers", "transformers"),
        (PYTHIA, "eager", "flash", "transformers", "transformers"),
    ],
)
def test_the_layout_is_that_of_whoever_steps(
    model: Subject, arm: Any, attention: Any, without: str, beside: str, has_mamba_ssm: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    usual = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return (object() if has_mamba_ssm else None) if name == "mamba_ssm" else usual(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    asked = PointRecord(
        model=model.name, batch_size=1, prompt_len_tokens=8, gen_len_tokens=8, arm=arm, attention=attention,
        dtype="bfloat16", device="cuda:0",
    )  # fmt: skip
    wanted = beside if has_mamba_ssm else without
    assert model.sizes is not None
    assert plan._layout(asked, model, model.sizes).implementation == wanted
