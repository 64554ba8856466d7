"""Which code computes a transformers model's scan or attention, and CPU tensors kept away from CUDA kernels.

transformers replaces its torch functions by those of `mamba_ssm` and `causal_conv1d` when these can be
imported, without looking at the device; a CPU run on a GPU machine would then call CUDA code. Each such
function keeps the torch one it replaced, and `keep_cpu_on_torch` picks between them by the tensor's device,
and by its dtype: the kernels know no 64-bit floats, in which the shipped code is a certificate's reference.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedModel

_MARK = "__mambabench_by_device__"
# The functions that a Mamba needs to be fast; convolution alone would leave the scan in a Python loop.
_SCANS = ("mamba_selective_scan", "mamba2_chunk_scan")


def keep_cpu_on_torch(model: PreTrainedModel) -> None:
    """Make the kernels of the model's module run for CUDA tensors of 32 or 16 bits only; idempotent.

    Args:
        model: any transformers model; one without optional kernels is left as it is.
    """
    module = sys.modules[type(model).__module__]
    for name, function in _kernel_functions(module).items():
        if not hasattr(function, _MARK):
            setattr(module, name, _by_device(function))


def kernel_path(model: PreTrainedModel, device_type: str) -> str:
    """Say what computes the scan, the attention or both of a transformers model on a device.

    Returns:
        "transformers torch loop" (Mamba-1), "transformers torch chunks" (Mamba-2), "mamba_ssm CUDA", or
        "torch " and the attention implementation for a Transformer; a hybrid's are joined by "and".
    """
    scan = _scan_path(model, device_type)
    if scan and "mamba" in str(model.config.model_type):
        return scan
    attention = f"torch {getattr(model.config, '_attn_implementation', None) or 'eager'}"
    return f"{scan} and {attention}" if scan else attention


def _scan_path(model: PreTrainedModel, device_type: str) -> str:
    """Say what computes the scans; empty for a model without any."""
    functions = _kernel_functions(sys.modules[type(model).__module__])
    scans = {function.__name__ for function in functions.values()} & set(_SCANS)
    # A hybrid's configuration may leave out all of its Mamba layers.
    if not scans or not any(name.endswith(".A_log") for name, _ in model.named_parameters()):
        return ""
    if device_type == "cuda" and any(_is_replaced(f) for f in functions.values()):
        return "mamba_ssm CUDA"
    if "mamba2_chunk_scan" in scans:
        return "transformers torch chunks"
    if getattr(model.config, "use_mambapy", False) and _importable("mambapy"):
        return "transformers mambapy scan"
    return "transformers torch loop"


def _kernel_functions(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if hasattr(value, _MARK)
        or (hasattr(value, "__wrapped__") and "is_new_implementation" in _captured(value))
    }


def _captured(function: Any) -> dict[str, Any]:
    """Return the variables that a closure carries."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or cells is None:
        return {}
    return {name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True)}


def _is_replaced(function: Any) -> bool:
    """Tell whether transformers' wrapper of a scan calls something else than its torch function."""
    wrapper = getattr(function, _MARK, function)
    return function.__name__ in _SCANS and bool(_captured(wrapper)["is_new_implementation"])


def _by_device(wrapper: Any) -> Any:
    torch_function = wrapper.__wrapped__
    accepted = frozenset(inspect.signature(torch_function).parameters)

    @functools.wraps(torch_function)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        first = next((a for a in (*args, *kwargs.values()) if hasattr(a, "is_cuda")), None)
        if first is not None and first.is_cuda and str(first.dtype) != "torch.float64":
            return wrapper(*args, **kwargs)
        return torch_function(*args, **{k: v for k, v in kwargs.items() if k in accepted})

    setattr(chosen, _MARK, wrapper)
    return chosen


def _importable(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
