"""Weight files read safely: shapes from headers, tensors never from a pickle that runs code.

Example:

    tensor_shapes([Path("m/pytorch_model.bin")])     # name to (dtype, shape)
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mambabench.checkpoint_files import safetensors_shapes
from mambabench.errors import CheckpointError

Shapes = dict[str, tuple[str, tuple[int, ...]]]

# The input embedding under the names that mamba_ssm, Mamba, Llama, GPT-NeoX and GPT-2 give it.
_EMBEDDING = re.compile(r"(^|\.)(embedding|embeddings|embed_tokens|embed_in|wte)\.weight$")
_REFUSED = re.compile(r"(?:GLOBAL|global|class|function) ([\w]+(?:\.[\w]+)+)")
_SHORT_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


def tensor_shapes(paths: Sequence[Path]) -> Shapes:
    """Return each tensor's dtype (as safetensors writes it) and shape, from the files' headers.

    Raises:
        CheckpointError: a damaged file, or a pickle that wants to run code.
    """
    shapes: Shapes = {}
    for path in paths:
        if path.suffix == ".safetensors":
            shapes |= safetensors_shapes(path)
        else:
            state = _unpickle(path, map_location="meta")
            shapes |= {name: (_short(tensor.dtype), tuple(tensor.shape)) for name, tensor in state.items()}
    return shapes


def read_state(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Read all tensors into memory, on the CPU, as they are stored.

    Raises:
        CheckpointError: a damaged file, or a pickle that wants to run code.
    """
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in paths:
        if path.suffix == ".safetensors":
            state |= load_file(path)
        else:
            state |= _unpickle(path, map_location="cpu")
    return state


def embedding_shape(shapes: Shapes) -> tuple[str, tuple[int, ...]] | None:
    """Return the input embedding's dtype and shape, or None when no tensor has a known name."""
    found = [entry for name, entry in shapes.items() if _EMBEDDING.search(name) and len(entry[1]) == 2]
    return found[0] if len(found) == 1 else None


def _unpickle(path: Path, *, map_location: str) -> dict[str, torch.Tensor]:
    # Only the archive format can be mapped, which spares reading the tensors when shapes are wanted.
    with path.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state: Any = torch.load(path, map_location=map_location, weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        what = f"wants to run code ({refused.group(1)})" if refused else "holds more than tensors"
        raise CheckpointError(
            f"'{path}' was refused: its pickle {what}",
            hint="Only tensors are read from a .bin file; ask its author for safetensors.",
        ) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"'{path}' holds no state dict", hint="Looked for names with one tensor each.")
    return state


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    detail = (str(error) or type(error).__name__).splitlines()[0]
    return CheckpointError(f"'{path}' is damaged: {detail}", hint="Download it again.")


def _short(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return _SHORT_DTYPES.get(name, name)
