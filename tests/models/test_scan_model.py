"""The compiled Mamba-1 against transformers' own, which holds the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_mamba, tiny_mamba2, tiny_mamba_ssm

from mambabench.errors import UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.load import check, load
from mambabench.models.scan_model import KERNEL_PATH, ScanModel
from mambabench.models.transformers_model import TransformersModel
from mambabench.registry import resolve


def loaded(place: Path, **how: Any) -> Any:
    return load(check(resolve(str(place)), device="cpu", **how))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(tiny_mamba(tmp_path_factory.mktemp("m") / "m"))


def shipped(model: Any) -> TransformersModel:
    return TransformersModel(model.module, model.tokenizer, model.record)


@pytest.mark.parametrize(("length", "keep"), [(1, 1), (2, 1), (17, 17), (90, 4)])
def test_logits_equal_those_of_transformers(model: Any, length: int, keep: int) -> None:
    ids = torch.randint(0, 300, (3, length), generator=torch.Generator().manual_seed(length))
    ours, theirs = model.logits(ids, keep), shipped(model).logits(ids, keep)
    assert ours.shape == (3, keep, model.vocab_size)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_right_padding_changes_nothing_to_its_left(model: Any) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = torch.cat([ids, torch.full((1, 3), 9)], dim=1)
    assert torch.allclose(model.logits(ids, 4), model.logits(padded, 7)[:, :4], atol=1e-6)


@pytest.mark.parametrize(
    "options", [SamplingOptions(), SamplingOptions(repetition_penalty=1.3)], ids=["greedy", "penalty"]
)
def test_greedy_text_equals_that_of_transformers(model: Any, options: SamplingOptions) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [100, 3, 42, 42]])

    def run(which: Any) -> list[list[int]]:
        return list(
            which.generate(ids, max_new_tokens=20, options=options, stop=lambda row, new: False, eos_ids=[])
        )

    assert run(model) == run(shipped(model))
    assert all(max(row) < model.vocab_size for row in run(model))


def test_options_that_only_transformers_knows_are_left_to_it(model: Any) -> None:
    def run(extra: dict[str, object]) -> list[int]:
        (new,) = model.generate(
            torch.tensor([[5, 6]]),
            max_new_tokens=30,
            options=SamplingOptions(extra=extra),
            stop=lambda row, new: False,
            eos_ids=[],
        )
        return list(new)

    assert len(set(run({"no_repeat_ngram_size": 1}))) == 30
    assert len(set(run({}))) < 30
    with pytest.raises(UsageError, match="beam search"):
        run({"num_beams": 2})


def test_weights_are_shared_with_the_transformers_model(model: Any) -> None:
    theirs = {p.data_ptr() for p in model.module.parameters()}
    assert {p.data_ptr() for p in model._model.parameters()} == theirs


def test_chosen_for_mamba_1_in_fp32_only(tmp_path: Path) -> None:
    place = tiny_mamba(tmp_path / "m")
    assert loaded(place).record.kernel_path == KERNEL_PATH
    assert isinstance(loaded(tiny_mamba_ssm(tmp_path / "ssm", with_tokenizer=True)), ScanModel)
    assert not isinstance(loaded(place, dtype="bfloat16"), ScanModel)
    assert not isinstance(loaded(tiny_mamba2(tmp_path / "m2")), ScanModel)
    assert (
        check(resolve(str(place)), device="cpu").fingerprint
        != check(resolve(str(place)), device="cpu", dtype="bfloat16").fingerprint
    )
