"""The devices of a machine, seen without importing torch."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import torch

from mambabench.bench import devices
from mambabench.bench.devices import (
    capacity_bytes,
    free_bytes,
    seen_capability,
    seen_device,
    seen_name,
    visible_gpus,
)
from mambabench.environment import processor_name
from mambabench.errors import DeviceError, UsageError
from mambabench.models.device import pick_device

GPUS: list[dict[str, Any]] = [
    {"name": "small", "memory_bytes": 24 << 30},
    {"name": "large", "memory_bytes": 80 << 30, "compute_capability": [9, 0]},
]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: GPUS)
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)


def test_it_sees_what_torch_sees() -> None:
    assert devices._torch_has_cuda() == (torch.version.cuda is not None)
    assert seen_device("auto") == pick_device("auto")
    assert seen_device("cpu") == "cpu"
    with pytest.raises(UsageError):
        seen_device("tpu")


@pytest.mark.usefixtures("gpus")
def test_gpus_by_number() -> None:
    assert seen_device("auto") == "cuda:0"
    assert seen_device("cuda:1") == "cuda:1"
    assert (seen_name("cuda:1"), capacity_bytes("cuda:1")) == ("large", 80 << 30)
    assert [seen_capability(device) for device in ("cpu", "cuda:0", "cuda:1")] == [None, None, (9, 0)]
    with pytest.raises(DeviceError, match=r"has 2 GPUs.*The last one is cuda:1"):
        seen_device("cuda:2")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("", []), ("-1", []), ("1", ["large"]), ("1,0", ["large", "small"]), ("0,7,1", ["small"]),
        ("GPU-0a1b", ["small"]),
    ],
)  # fmt: skip
def test_gpus_that_are_hidden(monkeypatch: pytest.MonkeyPatch, chosen: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [gpu["name"] for gpu in visible_gpus()] == names
    assert seen_device("auto") == ("cuda:0" if names else "cpu")


@pytest.mark.usefixtures("gpus")
def test_a_pytorch_without_cuda_cannot_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: False)
    assert seen_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="built without CUDA"):
        seen_device("cuda")


def test_the_memory_of_this_machine() -> None:
    assert seen_name("cpu") == processor_name()
    assert 0 < free_bytes() <= capacity_bytes("cpu") <= psutil.virtual_memory().total
