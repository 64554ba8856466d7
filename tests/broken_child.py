"""A measuring process whose Mamba is wrong: its layers forget a little of their state at every step.

python broken_child.py    (a job on stdin, as `mambabench.bench.child`)
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from mambabench.bench.child import main
from mambabench.models.step_mamba import MambaSteps


def forgetful(self: Any, input_ids: Any, lengths: Any, state: Any = None, **options: Any) -> Any:
    """Go on from a state that has lost one part in twenty."""
    if state is not None:
        with torch.inference_mode():
            for layer in state.layers:
                for rows in layer.named.values():
                    for tensor in rows.distinct():
                        tensor.mul_(0.95)
    return _step(self, input_ids, lengths, state, **options)


_step: Any = MambaSteps.step

if __name__ == "__main__":
    MambaSteps.step = forgetful  # type: ignore[method-assign]
    sys.exit(main())
