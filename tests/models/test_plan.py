"""The plan's fingerprint, under which answers are kept: equal where results are, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import build_tokenizer, lora_adapter, tiny_mamba, tiny_mamba2, tiny_mamba_ssm

from mambabench.models.check import check
from mambabench.models.plan import CheckpointPlan
from mambabench.registry import resolve


def plan_of(path: Path, **options: Any) -> CheckpointPlan:
    return check(resolve(str(path)), device="cpu", **options)


def test_the_same_files_under_another_name_have_the_same_fingerprint(tmp_path: Path) -> None:
    one = tiny_mamba(tmp_path / "a")
    two = tmp_path / "elsewhere" / "b"
    shutil.copytree(one, two)
    first, second = plan_of(one), plan_of(two)
    assert first.name != second.name
    assert first.fingerprint == second.fingerprint


def test_the_same_adapter_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    adapter = lora_adapter(tmp_path / "adapter", tiny_mamba(tmp_path / "base"))
    copied = tmp_path / "copy"
    shutil.copytree(adapter, copied)
    assert plan_of(adapter).fingerprint == plan_of(copied).fingerprint


@pytest.mark.parametrize("change", ["weights", "dtype", "max_length", "tokenizer", "adapter", "eos"])
def test_whatever_changes_results_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    one = tiny_mamba(tmp_path / "a")
    options: dict[str, Any] = {}
    two = one
    if change == "weights":
        two = tiny_mamba(tmp_path / "b", seed=1)
    elif change == "tokenizer":
        options["tokenizer"] = str(build_tokenizer(tmp_path / "t", 290))
    elif change == "adapter":
        two = lora_adapter(tmp_path / "adapter", one)
    elif change == "eos":
        two = tmp_path / "b"
        shutil.copytree(one, two)
        (two / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    else:
        options[change] = {"dtype": "bf16", "max_length": 64}[change]
    base, other = plan_of(one), plan_of(two, **options)
    assert base.fingerprint != other.fingerprint


def test_two_adapters_over_one_base_differ(tmp_path: Path) -> None:
    base = tiny_mamba(tmp_path / "base")
    one, two = (lora_adapter(tmp_path / str(seed), base, seed=seed) for seed in (1, 2))
    assert plan_of(one).fingerprint != plan_of(two).fingerprint


def test_random_weights_are_told_apart_by_their_seed(tmp_path: Path) -> None:
    directory = tiny_mamba2(tmp_path / "m")
    first, again, other = (plan_of(directory, weights="random", seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.fingerprint != plan_of(directory).fingerprint


def test_two_random_architectures_of_equal_size_differ(tmp_path: Path) -> None:
    one = tiny_mamba(tmp_path / "a", config={"time_step_floor": 1e-4})
    two = tiny_mamba(tmp_path / "b", config={"time_step_floor": 1e-2})
    assert plan_of(one, weights="random").fingerprint != plan_of(two, weights="random").fingerprint


def test_a_device_counts_by_its_kind_and_not_by_its_number(tmp_path: Path) -> None:
    plan = plan_of(tiny_mamba_ssm(tmp_path / "m", with_tokenizer=True))
    one, two = (dataclasses.replace(plan, device=f"cuda:{number}") for number in (0, 1))
    assert one.fingerprint == two.fingerprint != plan.fingerprint


def test_where_a_model_comes_from_does_not_count(tmp_path: Path) -> None:
    plan = plan_of(tiny_mamba(tmp_path / "m"))
    assert dataclasses.replace(plan, hub_id="a/b", revision="c").fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"eos_ids": (0, 5)}, {"vocab_size": 299}, {"implementation": "mamba_ssm"}, {"engine": "as-shipped"}],
    ids=lambda change: next(iter(change)),
)
def test_fields_that_no_option_sets_alone_count_too(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = plan_of(tiny_mamba(tmp_path / "m"))
    assert dataclasses.replace(plan, **change).fingerprint != plan.fingerprint
