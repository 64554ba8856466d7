"""The forward of a module as it stands, in 64-bit floats, without a second copy of its weights.

What a model rounds on its way to the logits cannot be seen in its own dtype. Here every operation of the
module's own code gets its operands widened just for that operation, and where the code asks for a
narrower float (`x.float()`, `softmax(..., dtype=torch.float32)`, `x.to(weight.dtype)`) it gets 64 bits.
No weight is replaced, so there is none to restore. A large matrix is widened in pieces, and of an
embedding only the rows that are looked up.

    exact = wide_logits(module, ids, keep=4, vocab_size=50277)      # float64 [B, 4, 50277]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mambabench.errors import CertificateError

WIDE = torch.float64
_NARROW = frozenset({torch.float32, torch.bfloat16, torch.float16})
_PIECE_ELEMENTS = 1 << 21
"""Elements of a matrix that are widened at once: 16 MiB in 64 bits."""
_CHUNK_TOKENS = 32
_NARROWING = frozenset({Tensor.float, Tensor.half, Tensor.bfloat16})
_MOVES = frozenset(
    {
        "__get__", "__set__", "__getitem__", "chunk", "detach", "expand", "permute", "select", "split",
        "squeeze", "t", "transpose", "unbind", "unsqueeze",
    }
)  # fmt: skip
"""Reading of attributes, such as a shape or a dtype, and other views of a tensor."""
_GROUPED = frozenset(
    getattr(place, name)
    for place, name in ((functional, "grouped_mm"), (torch, "_grouped_mm"))
    if hasattr(place, name)
)
"""Products with one matrix for each group of rows, in a mixture of experts; torch has none in 64 bits."""
_WRITES = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"})


class WideForward(TorchFunctionMode):
    """Within it torch's functions calculate in 64-bit floats; parameters and buffers stay as they are.

    Raises:
        CertificateError: from a function that returns narrower floats all the same, or that writes into a
            tensor which is narrower, such as a buffer.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call one of torch's functions on widened arguments."""
        named = dict(kwargs or {})
        name = func.__name__
        if name in _MOVES:
            # No arithmetic: not worth widening a matrix for.
            return func(*args, **named)
        if func is functional.embedding:
            return _wider(func(*args, **named))
        if func is functional.linear:
            return _linear(*args, **named)
        if func in _GROUPED:
            return _grouped(*args, **named)
        if _writes_into(name) and _is_narrow(args[0]):
            raise CertificateError(f"no exact reference: {name} writes into a tensor of {args[0].dtype}")
        wide_args, wide_named = [_wider(a) for a in args], {k: _wider(v) for k, v in named.items()}
        result = (Tensor.double if func in _NARROWING else func)(*wide_args, **wide_named)
        if any(_is_narrow(t) for t in _tensors(result)) and any(
            t.dtype == WIDE for t in _tensors((wide_args, wide_named))
        ):
            raise CertificateError(f"no exact reference: {name} gives less than 64 bits")
        return result


def wide_logits(module: Any, input_ids: Tensor, *, keep: int, vocab_size: int) -> Tensor:
    """Return the last positions' logits in 64 bits.

    Args:
        module: transformers' causal language model, in any float dtype.
        input_ids: int64 [B, L], right-padded.
        keep: how many trailing positions to return, 1 to L.
        vocab_size: ids to return logits for.

    Returns:
        float64 [B, keep, vocab_size].

    Raises:
        CertificateError: the module's code cannot be run in 64 bits.
    """
    try:
        with WideForward(), _short_chunks(module):
            logits = shipped_logits(module, input_ids, keep=keep, vocab_size=vocab_size)
    except CertificateError:
        raise
    except Exception as error:
        detail = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise CertificateError(f"no exact reference: {type(module).__name__} in 64 bits: {detail}") from error
    if logits.dtype != WIDE:
        raise CertificateError(f"no exact reference: the module's logits are {logits.dtype}")
    return logits


def shipped_logits(module: Any, input_ids: Tensor, *, keep: int, vocab_size: int) -> Tensor:
    """Return what the module's own forward gives for the last `keep` positions, [B, keep, vocab_size]."""
    known = inspect.signature(module.forward).parameters
    options: dict[str, Any] = {"use_cache": False}
    if "num_last_tokens" in known:
        # mamba_ssm's, which hands what it does not know on to its layers.
        options = {"num_last_tokens": keep}
    elif "logits_to_keep" in known:
        options["logits_to_keep"] = keep
    with torch.inference_mode():
        logits: Tensor = module(input_ids=input_ids, **options).logits
    return logits[:, -keep:, :vocab_size]


@contextmanager
def _short_chunks(module: nn.Module) -> Iterator[None]:
    """Let Mamba-2's scan cut rows into short chunks: it pads each to a whole chunk, of 256 tokens usually.

    In exact arithmetic the chunks' length changes nothing.
    """
    mixers: list[Any] = [part for part in module.modules() if hasattr(part, "A_log")]
    before = [(mixer, mixer.chunk_size) for mixer in mixers if hasattr(mixer, "chunk_size")]
    try:
        for mixer, size in before:
            mixer.chunk_size = min(size, _CHUNK_TOKENS)
        yield
    finally:
        for mixer, size in before:
            mixer.chunk_size = size


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply, widening a large weight piece by piece."""
    wide: Tensor = _wider(x)
    rows = _PIECE_ELEMENTS // weight.shape[-1]
    if weight.dim() != 2 or weight.shape[0] <= rows:
        return functional.linear(wide, _wider(weight), _wider(bias))
    out = wide.new_empty(*wide.shape[:-1], weight.shape[0])
    for first in range(0, weight.shape[0], rows):
        ids = slice(first, first + rows)
        out[..., ids] = functional.linear(
            wide, _wider(weight[ids]), None if bias is None else _wider(bias[ids])
        )
    return out


def _grouped(x: Tensor, weight: Tensor, *, offs: Tensor, bias: None = None, **_: Any) -> Tensor:
    """Multiply each group's rows of [T, k] by its matrix of [groups, k, n]; `offs` are the groups' ends."""
    if bias is not None:
        raise CertificateError("no exact reference: a grouped product with a bias")
    wide: Tensor = _wider(x)
    # Rows after the last group have no matrix, and nobody reads them.
    out = wide.new_zeros(wide.shape[0], weight.shape[2])
    start = 0
    for group, end in enumerate(offs.tolist()):
        if end > start:
            out[start:end] = wide[start:end] @ _wider(weight[group])
        start = end
    return out


def _is_narrow(value: Any) -> bool:
    # The comparison reads a tensor's dtype; the type is asked first since anything may be an argument.
    return isinstance(value, Tensor) and value.dtype in _NARROW


def _wider(value: Any) -> Any:
    """Return an argument with its float tensors and float dtypes in 64 bits."""
    if isinstance(value, Tensor):
        return value.to(WIDE) if value.dtype in _NARROW else value
    if isinstance(value, torch.dtype):
        return WIDE if value in _NARROW else value
    if type(value) in (list, tuple):
        return type(value)(_wider(part) for part in value)
    return value


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _writes_into(name: str) -> bool:
    return name in _WRITES or (name.endswith("_") and not name.endswith("__"))
