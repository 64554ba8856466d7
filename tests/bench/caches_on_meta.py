"""Let mamba_ssm's own Python code allocate its caches on the meta device and say how large they are.

Not a test by itself: `test_state_bytes.py` starts it in a process of its own, because stand-ins for the CUDA
functions must be in place before `mamba_ssm` is imported. Reads a JSON object of configurations from its
standard input, and prints for each the bytes of the parameters and of the caches of 2 sequences of 11 tokens.

    python caches_on_meta.py < configurations.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))
import hybrids_on_cpu

DTYPE = torch.bfloat16


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors in nested mappings and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif value is not None:
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """Return the bytes of the caches and the number of parameters."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    with torch.device("meta"):
        module = MambaLMHeadModel(MambaConfig(**config), dtype=DTYPE)
        caches = module.allocate_inference_cache(2, 11)
    return {
        "state_bytes": sum(t.numel() * t.element_size() for t in tensors(caches)),
        "n_parameters": sum({id(p): p.numel() for p in module.parameters()}.values()),
    }


if __name__ == "__main__":
    hybrids_on_cpu.install()
    print(json.dumps({name: sizes(config) for name, config in json.load(sys.stdin).items()}))
