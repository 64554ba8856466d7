from __future__ import annotations

import pytest
import torch

from mambabench.errors import DeviceError, UsageError
from mambabench.models.device import capability_of, pick_device, pick_dtype


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_named_with_their_number() -> None:
    assert [pick_device(text) for text in ("auto", "cuda", "CUDA:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(DeviceError, match="has 2 GPUs, counted from 0"):
        pick_device("cuda:2")


def test_a_gpu_that_pytorch_cannot_see_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError, match="no GPU is visible"):
        pick_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="built without CUDA"):
        pick_device("cuda")
    assert pick_device("auto") == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_says_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"cuda:0": (7, 5), "cuda:1": (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", known.__getitem__)
    assert [capability_of(device) for device in ("cpu", *known)] == [None, (7, 5), (9, 0)]


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:1:2", "mps"])
def test_other_devices_are_unknown(text: str) -> None:
    with pytest.raises(UsageError, match="Use auto, cpu, cuda or cuda:1"):
        pick_device(text)


def test_auto_follows_the_device_and_the_checkpoint() -> None:
    assert pick_dtype("auto", device="cpu", stored="F16") == "float32"
    assert pick_dtype("auto", device="cuda:0", stored="F16") == "float16"
    assert pick_dtype("auto", device="cuda:0", stored="F32") == "bfloat16"
    assert pick_dtype("fp32", device="cuda:0", stored="F16") == "float32"
    for capability, auto in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")):
        assert pick_dtype("auto", device="cuda:0", stored="F32", capability=capability) == auto
        assert pick_dtype("bf16", device="cuda:0", stored="F32", capability=capability) == "bfloat16"
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        pick_dtype("int8", device="cpu", stored="")
