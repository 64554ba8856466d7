"""A state on disk, so that another process goes on where this one stopped.

save_state(step.state, "prefix.safetensors", checkpoint=plan.fingerprint)
state = load_state("prefix.safetensors", checkpoint=plan.fingerprint)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.errors import CheckpointError
from mambabench.models.attention_state import AttentionState
from mambabench.models.stateful import LayerState, RecurrentState, State

if TYPE_CHECKING:
    import torch

_FORMAT = "mambabench state 1"
_KINDS: dict[str, type[LayerState]] = {
    RecurrentState.kind: RecurrentState,
    AttentionState.kind: AttentionState,
}


def save_state(state: State, path: str | Path, *, checkpoint: str) -> None:
    """Write a state as a safetensors file.

    Args:
        state: on any device.
        path: the file, replaced if it is there.
        checkpoint: fingerprint of the checkpoint that made it.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{i}.{name}": tensor.contiguous()
        for i, layer in enumerate(state.layers)
        for name, tensor in layer.tensors().items()
    }
    about = {
        "format": _FORMAT,
        "checkpoint": checkpoint,
        "lengths": json.dumps(state.lengths),
        "kinds": json.dumps([layer.kind for layer in state.layers]),
    }
    save_file(tensors, str(path), metadata=about)


def load_state(path: str | Path, *, checkpoint: str, device: torch.device | str = "cpu") -> State:
    """Read a state that `save_state` wrote.

    Args:
        path: the file.
        checkpoint: fingerprint of the checkpoint that is to go on from it.
        device: where the state goes.

    Raises:
        CheckpointError: no such file, another kind of file, or the state of another checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' is not a readable state: {error}") from error
    if about.get("format") != _FORMAT:
        raise CheckpointError(f"'{path}' is not a state that mambabench saved")
    if about["checkpoint"] != checkpoint:
        raise CheckpointError(
            f"'{path}' is the state of checkpoint {about['checkpoint'][:12]}, not of {checkpoint[:12]}",
            hint="A state means something to the weights that made it only.",
        )
    by_layer: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".")
        by_layer.setdefault(int(layer), {})[rest] = tensor
    kinds = json.loads(about["kinds"])
    layers = tuple(_KINDS[kind].from_tensors(by_layer.get(i, {})) for i, kind in enumerate(kinds))
    return State(tuple(json.loads(about["lengths"])), layers)
