"""How much memory a forward may take, and what batches and states fit into it.

>>> fit = Fit.within(256 << 20, activation_bytes_per_token=46_080, vocab_size=50_277, on_gpu=False)
>>> fit.batch_tokens, fit.logit_rows, fit.state_bytes // 2_801_664
(1024, 117, 33)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.models.stateful import StateSize
from mambabench.scoring.readout import VOCABULARY_CHUNK
from mambabench.scoring.trie_inputs import Costs

if TYPE_CHECKING:
    import torch

_SLACK_BYTES = 76 << 20
"""What libraries' buffers, the plan and the results were seen to take besides."""
_CPU_TOKENS, _GPU_TOKENS = 1_024, 32_768
"""Tokens beyond which a batch gains nothing."""
_CPU_LOGIT_ROWS, _GPU_LOGIT_ROWS = 256, 4_096
_DEFAULT_BYTES = 512 << 20
_SMALLEST_GPU_BYTES = 1 << 30
_TOKENS_PER_READ = 20


@dataclass(frozen=True)
class Fit:
    """What fits into a memory budget.

    Args:
        batch_tokens: most tokens forwarded at once.
        logit_rows: most rows of logits held at once.
        state_bytes: room for the states kept between batches.
    """

    batch_tokens: int
    logit_rows: int
    state_bytes: int

    @classmethod
    def within(
        cls,
        budget_bytes: int,
        *,
        activation_bytes_per_token: int,
        vocab_size: int,
        on_gpu: bool,
        workspace_bytes: int = 0,
    ) -> Fit:
        """Divide a budget: at most a quarter each for activations and logits, the rest for states.

        A batch's rows start from the kept states themselves, so that only those kept take memory.

        Args:
            budget_bytes: states and activations together, weights left out.
            activation_bytes_per_token: of a forward.
            vocab_size: columns of the logits.
            on_gpu: larger batches pay there.
            workspace_bytes: of a forward, however many its tokens; one of few tokens takes less, so that
                half a small budget is divided all the same.
        """
        room = max(budget_bytes - _SLACK_BYTES - workspace_bytes, budget_bytes // 2)
        # The logits themselves, and a softmax of a few rows at a time.
        row_bytes = 4 * min(vocab_size, VOCABULARY_CHUNK) * 2
        logit_rows = max(1, min(_GPU_LOGIT_ROWS if on_gpu else _CPU_LOGIT_ROWS, room // 4 // row_bytes))
        tokens = max(1, min(_GPU_TOKENS if on_gpu else _CPU_TOKENS, room // 4 // activation_bytes_per_token))
        left = max(0, room - logit_rows * row_bytes - tokens * activation_bytes_per_token)
        return cls(tokens, logit_rows, left)

    def costs(self, state: StateSize, most_rows: int | None, *, split_tokens: float) -> Costs:
        """Return the planner's limits.

        Args:
            state: size of a row's state.
            most_rows: the user's bound on the rows of a batch.
            split_tokens: what starting from a kept state costs; see `split_tokens`.
        """
        return Costs(
            split_tokens=split_tokens,
            state_bytes=state.fixed_bytes,
            state_bytes_per_token=state.bytes_per_token,
            budget_bytes=self.state_bytes,
            batch_tokens=self.batch_tokens,
            batch_rows=most_rows,
        )


def split_tokens(state: StateSize, n_parameters: int) -> float:
    """Return what starting from a kept state costs, in forwarded tokens.

    A token takes two operations a parameter; a state is written once and read by each that goes on from
    it, and memory takes some twenty times as long a byte. One more token stands for what every row costs.

    Args:
        state: size of a row's state.
        n_parameters: of the model.
    """
    return 1.0 + _TOKENS_PER_READ * state.fixed_bytes / max(1, n_parameters)


def default_budget_bytes(device: torch.device) -> int:
    """Return the budget of a run that names none: 512 MiB, on a GPU a quarter of its memory, 1 to 8 GiB.

    What is free at the moment must not count: a run that goes on later has to form the same batches.
    """
    if device.type != "cuda":
        return _DEFAULT_BYTES
    import torch

    _, total = torch.cuda.mem_get_info(device)
    return max(_SMALLEST_GPU_BYTES, min(total // 4, 8 << 30))


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that nobody uses at the moment.

    To refuse what cannot fit, not to plan with; see `default_budget_bytes`.
    """
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
