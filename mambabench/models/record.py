"""What was loaded, as a record, and the digest that says whether two loaded checkpoints are the same.

Example:

    checkpoint_fingerprint(model.record)     # equal for equal weights under another name or on another GPU
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mambabench.fingerprint import digest
from mambabench.schema import CheckpointRecord

if TYPE_CHECKING:
    import torch

# Where a checkpoint is kept and what it is called changes no result; the files' digests tell what it is.
_IRRELEVANT = ("name", "device_name", "hub_id", "revision")
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


def checkpoint_fingerprint(record: CheckpointRecord) -> str:
    """Return a digest of everything in the record that changes results."""
    fields = record.model_dump(mode="json", exclude=set(_IRRELEVANT))
    # cuda:0 and cuda:1 compute the same; cpu and cuda do not.
    fields["device"] = record.device.partition(":")[0]
    fields["tokenizer"].pop("source")
    fields["files"] = sorted(f.sha256 for f in record.files)
    if record.adapter is not None:
        fields["adapter"] = {
            "peft_type": record.adapter.peft_type,
            "merged": record.adapter.merged,
            "files": sorted(f.sha256 for f in record.adapter.files),
        }
    return digest(fields)


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
