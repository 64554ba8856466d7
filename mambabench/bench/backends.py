"""Which of torch's attention kernels a model's calls choose, for the record of what was measured.

with sdpa_backends() as seen:
    module(ids)
seen                                # {"flash"}
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_BACKENDS = {0: "math", 1: "flash", 2: "memory-efficient", 3: "cuDNN"}


@contextmanager
def sdpa_backends() -> Iterator[set[str]]:
    """Note which of torch's backends its attention chooses for the calls within."""
    functional = torch.nn.functional
    original = functional.scaled_dot_product_attention
    seen: set[str] = set()

    def noting(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        known = {k: v for k, v in options.items() if k in ("attn_mask", "dropout_p", "is_causal", "scale")}
        chosen = torch._fused_sdp_choice(
            query, key, value, *args, **known, enable_gqa=options.get("enable_gqa", False)
        )
        seen.add(_BACKENDS.get(chosen, f"backend {chosen}"))
        return original(query, key, value, *args, **options)

    functional.scaled_dot_product_attention = noting
    try:
        yield seen
    finally:
        functional.scaled_dot_product_attention = original
