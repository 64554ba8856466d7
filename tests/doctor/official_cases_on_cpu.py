"""Give the official package's plain versions of its functions what the doctor gives the compiled ones.

Started by `test_doctor_official.py` in a process of its own, because stand-ins must be in place before
`mamba_ssm` is imported. Prints as JSON what came of each function.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from typing import Any

from mambabench.doctor.cases_official import official_cases
from mambabench.doctor.measure import measure

if __name__ == "__main__":
    sys.modules["selective_scan_cuda"] = types.ModuleType("selective_scan_cuda")
    from mamba_ssm.ops import selective_scan_interface
    from mamba_ssm.ops.triton import selective_state_update, ssd_combined

    signature = inspect.signature(ssd_combined.mamba_chunk_scan_combined)

    def bound(*args: Any, **options: Any) -> Any:
        """Its plain version knows no states: only whether it takes the arguments shows here."""
        signature.bind(*args, **options)
        raise NotImplementedError("it takes its arguments")

    selective_scan_interface.selective_scan_fn = selective_scan_interface.selective_scan_ref
    selective_state_update.selective_state_update = selective_state_update.selective_state_update_ref
    ssd_combined.mamba_chunk_scan_combined = bound
    results: dict[str, list[str]] = {}
    for case in official_cases("cpu"):
        if not case.kernel.startswith("causal"):
            found = measure(case)
            results.setdefault(case.kernel, []).append("passed" if found.passed else found.detail)
    print(json.dumps(results))
