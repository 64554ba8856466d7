"""How much memory a forward takes besides its weights, counted tensor by tensor on any device.

with PeakMemory(module) as memory:
    module(ids)
memory.peak_bytes
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of tensors that come to life within it, until they die.

    What a kernel needs inside of one operation is not seen, nor what an allocator keeps in reserve.

    Args:
        module: whose parameters and buffers are not counted.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        """Largest sum so far."""
        self._bytes = 0
        self._tensors: dict[int, int] = {}
        self._weights = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and count what it gives."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._weights:
            return
        if address not in self._tensors:
            self._tensors[address] = 0
            self._bytes += size
            self.peak_bytes = max(self.peak_bytes, self._bytes)
        # Views keep the storage they look at alive.
        self._tensors[address] += 1
        weakref.finalize(tensor, self._drop, address, size).atexit = False

    def _drop(self, address: int, size: int) -> None:
        self._tensors[address] -= 1
        if not self._tensors[address]:
            del self._tensors[address]
            self._bytes -= size
