"""Run mamba_ssm's own Triton code for Mamba-2 in the interpreter, over rows from states, against float64.

Started by `test_official_scans.py` in a process of its own: Triton looks at its variable when a kernel is
defined, and mamba_ssm is told before its import to take one size of tile, since there is no GPU to try others
on. Prints as JSON the largest error of each case, as a multiple of what is allowed.

In float32 only: the interpreter cannot multiply matrices in bfloat16.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NO_LIMIT = (0.0, float("inf"))
# Padded, beside each other with a smallest step, and cut through time.
CASES = (([20, 17, 5], NO_LIMIT), ([9, 9, 9], (0.3, 0.9)), ([60, 3], NO_LIMIT))


def errors() -> list[float]:
    """Return each case's error."""
    sys.modules["selective_scan_cuda"] = types.ModuleType("selective_scan_cuda")
    import torch

    # Its launches name the tensors' GPU.
    torch.cuda.device = lambda index: contextlib.nullcontext()  # type: ignore[assignment, misc]
    import numpy as np
    from triton_oracle import Shape, check_ssd

    from mambabench.kernels.gpu import official
    from mambabench.kernels.gpu.official_calls import LongRows
    from mambabench.kernels.gpu.segments import MOST_PADDING, calls

    official.CHUNK_TOKENS = 16
    found = official.functions()
    assert found is not None
    scans = official.OfficialScans(found)

    class AllLong:
        def ssd(self, xbc: Any, z: Any, column: int, bias: Any, a: Any, skip: Any, groups: int, starts: Any,
                before: Any, after: Any, *, dt_limit: tuple[float, float]) -> Any:  # fmt: skip
            y = xbc.new_empty(len(xbc), skip.numel())
            rows = np.flatnonzero(np.diff(starts)).tolist()
            padding = 0.0 if dt_limit[0] else MOST_PADDING
            made = calls(starts, rows, most_tokens=48, most_padding=padding)
            long = LongRows.of(made, len(starts) - 1, xbc.device)
            scans.ssd(y, (xbc, z, column, bias, a, skip, groups, dt_limit), long, before, after)
            return y

    return [
        check_ssd(AllLong(), Shape(rows, torch.float32, 3), sizes=(2, 16, 1, 16), dt_limit=limit)
        for rows, limit in CASES
    ]


if __name__ == "__main__":
    os.environ |= {"TRITON_INTERPRET": "1", "MAMBA_DETERMINISTIC": "1"}
    warnings.simplefilter("ignore")
    print(json.dumps(errors()))
