"""The doctor's process with a scan that forgets a hundredth of its output: `python wrong_kernel_child.py`."""

from __future__ import annotations

import sys
from typing import Any

from mambabench.doctor.child import main
from mambabench.kernels.packed import CpuKernels

_scan = CpuKernels.scan


def forgetful(self: Any, *args: Any) -> Any:
    """Return a hundredth less than the scan does."""
    return _scan(self, *args) * 0.99


if __name__ == "__main__":
    CpuKernels.scan = forgetful  # type: ignore[method-assign]
    sys.exit(main())
