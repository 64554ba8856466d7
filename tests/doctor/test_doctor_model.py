"""A bundled model as the doctor tries it, and what is found where it cannot be tried."""

from __future__ import annotations

from typing import Any

import pytest

from mambabench.doctor import whole_model
from mambabench.doctor.whole_model import try_model


def test_a_bundled_model_passes_by_its_certificate() -> None:
    found = try_model("mamba-tiny", "cpu", "cpu")
    assert found.passed, found
    assert found.detail.startswith("certified: mambabench compiled scan")
    assert found.ratio is not None
    assert found.ratio <= 1.5
    assert found.wall_s is not None


@pytest.mark.parametrize("name", ["mamba-tinny", "./nowhere"])
def test_a_model_that_cannot_be_loaded_does_not_pass(name: str) -> None:
    found = try_model(name, "cpu", "cpu")
    assert not found.passed
    assert found.ratio is None
    assert name.strip("./") in found.detail


class _Shifted:
    """A model whose logits are those of another, and a little more."""

    def __init__(self, model: Any, more: float) -> None:
        self._model = model
        self._more = more
        self.stateful = None
        self.record = model.record

    def logits(self, input_ids: Any, keep: int) -> Any:
        return self._model.logits(input_ids.cpu(), keep) + self._more


@pytest.mark.parametrize(("more", "passed"), [(0.0, True), (1e-3, True), (0.5, False)])
def test_a_gpus_logits_are_held_against_the_processors(
    monkeypatch: pytest.MonkeyPatch, more: float, passed: bool
) -> None:
    loaded = whole_model._loaded

    def on_gpu(name: str, device: str, engine: Any) -> Any:
        model = loaded(name, "cpu", "shared")
        return model if device == "cpu" else _Shifted(model, more)

    monkeypatch.setattr(whole_model, "_loaded", on_gpu)
    # A device that torch has everywhere stands for the GPU.
    found = try_model("mamba-tiny", "cpu:0", "official")
    assert found.passed is passed, found
    assert "differ from the processor's by" in found.detail
