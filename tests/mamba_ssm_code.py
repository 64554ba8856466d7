"""mamba_ssm's own Python code on a CPU: where it is, and scripts that run it in processes of their own.

Stand-ins for what is compiled must be in place before `mamba_ssm` and transformers are imported, so that each
comparison is a script.

    found = run_beside(Path("official_on_cpu.py"), directory)
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_WHERE = os.environ.get("MAMBABENCH_TEST_MAMBA_SSM", "")

needs_mamba_ssm = pytest.mark.skipif(
    importlib.util.find_spec("mamba_ssm") is None and not Path(_WHERE, "mamba_ssm").is_dir(),
    reason="mamba_ssm's Python code is not here; MAMBABENCH_TEST_MAMBA_SSM names a directory that holds it",
)


def run_beside(script: Path, *arguments: object, stdin: Any = None, folders: tuple[Path, ...] = ()) -> Any:
    """Run a script that can import mamba_ssm and return the JSON of the last line that it prints.

    Args:
        script: to run.
        arguments: of it.
        stdin: given to it as JSON; null for nothing.
        folders: of further modules that it imports.
    """
    path = [_WHERE, *map(str, folders), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        input=None if stdin is None else json.dumps(stdin),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
