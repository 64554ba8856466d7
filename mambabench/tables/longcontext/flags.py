"""What limits the figures of a model at a length, in a closed list of words, each with what to do about it.

>>> ADVICE[UNSUPPORTED]
'the model has no path to that length; end `--lengths` earlier for it'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambabench.long_schema import ContextLossRecord, RecallRecord
    from mambabench.tables.speed.table import SpeedRow

PAST_TRAINING = "past training length"
UNSUPPORTED = "unsupported"
FAILED = "failed"
MISSING = "not everything measured"
FEW_SAMPLES = "fewer than 20 samples"
COST_FAILED = "cost not measured"
FEW_PROCESSES = "cost of few processes"

ADVICE: dict[str, str] = {
    PAST_TRAINING: "the model never saw so long a text; believe what is measured, expect nothing",
    UNSUPPORTED: "the model has no path to that length; end `--lengths` earlier for it",
    FAILED: "what went wrong is said above; the same command tries again",
    MISSING: "the same command finishes the run",
    FEW_SAMPLES: "intervals are wide; raise `--samples`",
    COST_FAILED: "the sweep failed there, as is said above; recall and loss are unaffected",
    FEW_PROCESSES: "fewer than 6 give no interval of times; `mambabench latency --processes 6` does",
}
"""Every flag and the way out; tables print it as a footnote."""

N_SAMPLES = 20


def is_past(record: RecallRecord | ContextLossRecord) -> bool:
    """Tell whether a figure lies past the training length; what failed has none."""
    return record.status == "ok" and record.past_training_length


def is_cost_past(cost: SpeedRow | None, length_tokens: int) -> bool:
    """Tell the same of the cost of a prompt."""
    trained = None if cost is None or cost.status != "ok" else cost.training_length_tokens
    return trained is not None and length_tokens > trained
