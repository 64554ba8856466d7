"""Build models with mamba_ssm's own Python code on a meta device, and print what bounds their forwards.

Not a test by itself: `test_launch_limits.py` starts it in a process of its own, because stand-ins for the
CUDA functions must be in place before `mamba_ssm` is imported. Reads a JSON object of configurations from its
standard input.

    python official_limits_on_cpu.py < configurations.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import hybrids_on_cpu
import torch


def bounds(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the bounds of a configuration on CUDA as tuples."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    from mambabench.models.launch_limits import limits_of

    with torch.device("meta"):
        module = MambaLMHeadModel(MambaConfig(**config))
    return [dataclasses.astuple(bound) for bound in limits_of(module, torch.device("cuda")).bounds]


if __name__ == "__main__":
    hybrids_on_cpu.install()
    print(json.dumps({name: bounds(config) for name, config in json.load(sys.stdin).items()}))
