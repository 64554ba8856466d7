"""The forecast of transient memory against what torch allocates in a prefill, tensor by tensor."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from builders import hybrid_config, llama_config, mamba2_config, mamba_config, neox_config, spread_weights
from sized import build, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mambabench.models.record import FP32_NAMES
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.steps import steps_for
from mambabench.sizes import ModelSizes, layout_for

ROWS, LENGTH = 2, 512
_WIDE: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 256, "num_attention_heads": 8}
ATTENTION = {
    "llama": llama_config(**_WIDE, num_key_value_heads=2, intermediate_size=700, num_hidden_layers=3),
    "gpt_neox": neox_config(**_WIDE, intermediate_size=1024, max_position_embeddings=1024),
}
RECURRENT = {
    "mamba": mamba_config(hidden_size=128),
    "mamba2": mamba2_config(hidden_size=128, num_heads=32),
}


class Allocated(TorchDispatchMode):
    """Counts the bytes of all memory that torch's functions return, as long as anything points to it."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.now_bytes = self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.now_bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now_bytes -= self._sizes.pop(key, 0)


def cast(module: Any, dtype: str) -> Any:
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] not in FP32_NAMES:
            parameter.data = parameter.data.to(getattr(torch, dtype))
    return module


def share(sizes: ModelSizes, allocated: Allocated, library: str, dtype: str, attention: str) -> float:
    """Return what was allocated besides the state, over the forecast."""
    layout = layout_for(library, dtype)
    state = ROWS * sizes.state_bytes(layout, length_tokens=LENGTH)
    forecast = sizes.transient_bytes(
        layout, dtype, batch_size=ROWS, prompt_len=LENGTH, prefill_chunk=None, attention=attention
    )
    return (allocated.peak_bytes - state) / forecast


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_transformers_prefill_as_shipped(name: str, attention: str, dtype: str) -> None:
    module = cast(build(ATTENTION[name], "cpu"), dtype)
    module.set_attn_implementation(attention)
    ids = torch.zeros((ROWS, LENGTH), dtype=torch.long)
    with torch.inference_mode(), Allocated() as allocated:
        kept = module(ids, use_cache=True, logits_to_keep=1)
    sizes = small(ATTENTION[name].to_dict())
    assert 0.85 < share(sizes, allocated, "transformers", dtype, attention) < 1.15
    del kept


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ATTENTION | RECURRENT | {"hybrid": None})
def test_a_prefill_from_states(name: str, dtype: str) -> None:
    steps: Any
    if name == "hybrid":
        config = hybrid_config(d_model=128)
        weights = {
            key: t if key.rpartition(".")[2] in FP32_NAMES else t.to(getattr(torch, dtype))
            for key, t in spread_weights(config).items()
        }
        sizes = small(config, "mamba_ssm")
        steps = HybridSteps(config, weights, vocab_size=300, dtype=getattr(torch, dtype))
    else:
        shape = (ATTENTION | RECURRENT)[name]
        sizes, module = small(shape.to_dict()), cast(build(shape, "cpu"), dtype)
        steps = steps_for(module, vocab_size=300)
    ids = torch.zeros(ROWS * LENGTH, dtype=torch.long)
    last = torch.arange(1, ROWS + 1) * LENGTH - 1
    with torch.inference_mode(), Allocated() as allocated:
        kept = steps.step(ids, [LENGTH] * ROWS, read=last)
        steps.logits(kept.hidden)
    assert 0.75 < share(sizes, allocated, "mambabench", dtype, "sdpa") < 1.15
