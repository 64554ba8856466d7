"""Parts of a checkpoint's record: the digest of its architecture, its dtypes and its size.

Example:

    dtype_groups(module.named_parameters())     # {"A_log": "float32", "embedding": "bfloat16", ...}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mambabench.fingerprint import digest

if TYPE_CHECKING:
    import torch

# Keys that transformers writes into a configuration without changing the architecture.
_VOLATILE_CONFIG = {
    "transformers_version",
    "_name_or_path",
    "torch_dtype",
    "dtype",
    "architectures",
    "use_cache",
}
FP32_NAMES = frozenset({"A_log", "D", "dt_bias"})
"""Parameters of a Mamba's recurrence; they keep fp32 always, since errors in them compound along a text."""
UNSHIPPED = "mambabench HybridSteps"
"""The implementation of a model whose shipped code does not run on the device: nothing to compare it with."""


def config_digest(config: dict[str, Any]) -> str:
    """Return the digest of an architecture's configuration, without what only says who wrote it."""
    return digest(_finite({k: v for k, v in config.items() if k not in _VOLATILE_CONFIG}))


def _finite(value: Any) -> Any:
    """Write infinities as text: canonical JSON has none, Mamba-2's time step limit does."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return repr(value)
    return value


def dtype_groups(parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Return each parameter group's dtype; a group of several dtypes lists them, joined by "+".

    Args:
        parameters: (name, tensor) pairs, as `named_parameters()` gives them.
    """
    groups: dict[str, set[str]] = {}
    for name, tensor in parameters:
        groups.setdefault(_group(name, tensor), set()).add(str(tensor.dtype).removeprefix("torch."))
    return {group: "+".join(sorted(dtypes)) for group, dtypes in sorted(groups.items())}


def _group(name: str, tensor: torch.Tensor) -> str:
    last = name.rpartition(".")[2]
    if last in FP32_NAMES:
        return last
    if "emb" in name or "wte" in name or "lm_head" in name or "embed_out" in name:
        return "embedding"
    return "norm" if "norm" in name and tensor.ndim == 1 else "matmul"


def count_parameters(parameters: Iterable[torch.Tensor]) -> int:
    """Count parameters, tied ones once."""
    return sum({id(p): p.numel() for p in parameters}.values())
