"""What computes the scan of a layer, and the memory that it takes for itself while it does.

>>> Kernels = type("Kernels", (OneWay,), {"name": "mambabench compiled scan"})
>>> Kernels().scan_way(1536, 16)
Way(name='mambabench compiled scan', workspace_bytes=0)
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Way(NamedTuple):
    """How the scans of a layer are computed."""

    name: str
    """For the record of a run."""
    workspace_bytes: int = 0
    """Most memory of a scan besides its inputs and its result, however many tokens it has."""


class Ways(Protocol):
    """What kernels say of the scans of a layer by its sizes."""

    def scan_way(self, channels: int, n_states: int) -> Way:
        """Return what computes the scan of Mamba-1 with so many states a channel."""
        ...

    def ssd_way(self, heads: int, width: int, n_states: int, n_groups: int) -> Way:
        """Return what computes the scan of Mamba-2 with heads of so many channels."""
        ...


class OneWay:
    """Kernels that compute every scan by code of their own, which takes next to no memory."""

    name: str

    def scan_way(self, channels: int, n_states: int) -> Way:
        """Return what computes the scan of Mamba-1."""
        return Way(self.name)

    def ssd_way(self, heads: int, width: int, n_states: int, n_groups: int) -> Way:
        """Return what computes the scan of Mamba-2."""
        return Way(self.name)
