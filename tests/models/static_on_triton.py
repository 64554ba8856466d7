"""Steps in place on a GPU's kernels, in Triton's interpreter: the launches of one token, again for the next.

`kernels/gpu/test_triton.py` runs this in a process of its own, see `kernels/gpu/triton_interpreted.py`. What
was launched is repeated at its addresses, as a CUDA graph does, while prompts of other lengths come in
between.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import N_TOKENS, hybrid_config, mamba2_config, mamba_config, spread_weights
from graph_on_tape import record, taped_kernels, taped_triton
from transformers import Mamba2ForCausalLM, MambaForCausalLM

from mambabench.kernels.gpu import layout, triton_kernels
from mambabench.models import layers, packed_attention, static_steps
from mambabench.models.stateful import State, StatefulModel
from mambabench.models.static_steps import StaticSteps
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.step_mamba import MambaSteps
from mambabench.models.step_mamba2 import Mamba2Steps

B, ROOM = 2, 8
HYBRID = hybrid_config(ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 32}, n_layer=2)


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build().eval()


MODELS: dict[str, Callable[[], StatefulModel]] = {
    "mamba": lambda: MambaSteps(seeded(lambda: MambaForCausalLM(mamba_config())), vocab_size=N_TOKENS),
    "mamba2": lambda: Mamba2Steps(
        seeded(lambda: Mamba2ForCausalLM(mamba2_config(num_heads=2, head_dim=32))), vocab_size=N_TOKENS
    ),
    "hybrid": lambda: HybridSteps(HYBRID, spread_weights(HYBRID), vocab_size=N_TOKENS, dtype=torch.float32),
}


def begun(model: StatefulModel, state: State | None, length: int) -> State:
    state = model.start(B).reserve(ROOM) if state is None else state
    ids = torch.arange(B * length) + length
    done = model.step(ids, [length] * B, state, consume=True)
    assert done.state is not None
    return done.state


def refused(*args: Any) -> Any:
    raise AssertionError("a recorded step sends something to the device")


@pytest.mark.parametrize("name", MODELS)
def test_launches_are_right_for_every_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MODELS[name]()
    with taped_kernels(lambda device, dtype: taped_triton(dtype)):
        check_launches(MODELS[name](), plain, monkeypatch)


def check_launches(model: StatefulModel, plain: StatefulModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Triton" in model.kernel_path
    steps = StaticSteps(model, begun(model, None, 3))
    ids, hidden = torch.zeros(B, dtype=torch.int64), torch.empty(0)

    def step() -> None:
        nonlocal hidden
        hidden = steps.step(ids)

    with torch.inference_mode():
        step()
        with monkeypatch.context() as patch:
            for module in (layout, triton_kernels, layers, packed_attention, static_steps):
                patch.setattr(module, "sent", refused)
            replay = record(step)
    for length in (2, 4):
        steps.load(begun(model, steps.emptied(), length))
        state: State | None = begun(plain, None, length)
        gc.collect()
        for token in (5, 6, 7):
            ids.copy_(torch.tensor([token, 2 * token]))
            replay()
            done = plain.step(ids, [1] * B, state)
            state = done.state
            # Sums are taken in other orders.
            assert (hidden - done.hidden).abs().max() <= 1e-5 * done.hidden.abs().max()
