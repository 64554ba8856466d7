"""A perplexity run described: what was asked for, how models are given context, what makes it the same run.

options = PerplexityOptions(models=("mamba-tiny",), data="war_and_peace.txt")
outcome = mambabench.longcontext.perplexity.run_perplexity(options)
outcome.table.rows[0].bits_per_byte
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mambabench.environment import describe_environment
from mambabench.errors import CellsFailedError, UsageError
from mambabench.fingerprint import digest
from mambabench.long_schema import ContextRecord, CorpusRecord, PerplexityRecord
from mambabench.schema import CheckpointRecord, LongSettingsRecord, RunManifest
from mambabench.zeroshot import answers_key

if TYPE_CHECKING:
    from mambabench.models.plan import CheckpointPlan, Engine
    from mambabench.sizes import ModelSizes
    from mambabench.tables.longcontext.perplexity import PerplexityTable

ContextChoice = Literal["auto", "full", "sliding", "disjoint"]

_SUITE = "perplexity"
_RECURRENT_FAMILIES = ("mamba", "mamba2")


@dataclass(frozen=True)
class PerplexityOptions:
    """What to run; the defaults are those of the command."""

    models: tuple[str, ...]
    data: str
    """"wikitext", "enwik8", or the path of a file or directory."""
    part: str | None = None
    data_dir: Path | None = None
    context: ContextChoice = "auto"
    """"auto": "full" where the state has a fixed size, otherwise "sliding"."""
    window_tokens: int | None = None
    """Null for the training length."""
    stride_tokens: int | None = None
    """Null for half of the window."""
    limit: int | None = None
    """Documents; null for all."""
    max_tokens: int | None = None
    """Of each document; null for all."""
    out: Path = Path("results")
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    tokenizer: str | None = None
    engine: Engine = "shared"
    memory_budget_bytes: int | None = None
    verify: bool = True
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Check the options against each other.

        Raises:
            UsageError: they contradict each other, or a window leaves nothing to predict.
        """
        window, stride = self.window_tokens, self.stride_tokens
        if window is not None and self.context in ("auto", "full"):
            raise UsageError(
                "--window goes with --context sliding or disjoint",
                hint="Without it the window is the length that each model was trained on.",
            )
        if stride is not None and self.context != "sliding":
            raise UsageError("--stride goes with --context sliding", hint="Leave it out, or add that.")
        if window is not None and window < 2:
            raise UsageError(f"a window of {window} token leaves no context", hint="Give --window 2 or more.")
        if window is not None and stride is not None:
            require_stride(stride, window)
        if self.engine == "as-shipped" and self.memory_budget_bytes is not None:
            raise UsageError(
                "--memory-budget bounds the shared engine, not --engine as-shipped", hint="Leave it out."
            )

    @property
    def choice(self) -> str:
        """The way of giving context, as it was asked for, in words."""
        parts = [self.context, self.window_tokens, self.stride_tokens]
        return " ".join(str(part) for part in parts if part is not None)

    def settings(self, corpus: CorpusRecord) -> LongSettingsRecord:
        """Return the options that change what is computed, as a record."""
        return LongSettingsRecord(
            dtype=self.dtype,
            device=self.device,
            weights=self.weights,
            seed=self.seed,
            corpus_sha256=corpus.sha256,
            context=self.choice,
            limit=self.limit,
            max_tokens=self.max_tokens,
            tokenizer=self.tokenizer,
            engine=self.engine,
            memory_budget_bytes=self.memory_budget_bytes,
            verify=self.verify,
        )


@dataclass(frozen=True)
class PerplexityOutcome:
    """What a run left behind."""

    path: Path
    table: PerplexityTable
    records: tuple[PerplexityRecord, ...]
    n_computed: int
    """Models that something was computed for by this call; the others were there."""
    notes: tuple[str, ...] = ()
    checkpoints: dict[str, CheckpointRecord] = field(default_factory=dict)
    """What was loaded, by the models' names as file names."""

    def raise_for_failures(self) -> None:
        """Raise when a model failed; one that a way of giving context does not support has not.

        Raises:
            CellsFailedError: naming the first failure.
        """
        failed = [record for record in self.records if record.status == "failed"]
        if failed:
            first = f"{failed[0].model}: {failed[0].detail}"
            raise CellsFailedError.counted(len(failed), len(self.records), "model", first)


def require_stride(stride_tokens: int, window_tokens: int, model: str = "") -> None:
    """Refuse windows that leave tokens out between them.

    Raises:
        UsageError: the stride is longer than the window.
    """
    if stride_tokens > window_tokens:
        of = f" of {model}" if model else ""
        raise UsageError(
            f"a stride of {stride_tokens} tokens is longer than the window{of}, {window_tokens}",
            hint="Tokens between the windows would never be predicted: give --stride up to --window.",
        )


def context_for(options: PerplexityOptions, plan: CheckpointPlan, sizes: ModelSizes | None) -> ContextRecord:
    """Return how a model is given context.

    Args:
        options: what was asked for.
        plan: the model.
        sizes: of the model; null where its architecture is unknown.

    Raises:
        UsageError: the stride asked for is longer than this model's window.
    """
    mode = options.context
    if mode == "auto":
        fixed = plan.family in _RECURRENT_FAMILIES if sizes is None else sizes.kv_elements_per_token == 0
        # As shipped a document is one forward, which a long one has no room for.
        mode = "full" if fixed and plan.engine == "shared" else "sliding"
    if mode == "full":
        return ContextRecord(mode="full")
    trained = None if sizes is None else sizes.training_length_tokens
    window = options.window_tokens or trained or plan.max_length
    if mode == "disjoint":
        return ContextRecord(mode="disjoint", window_tokens=window)
    stride = options.stride_tokens or max(1, window // 2)
    require_stride(stride, window, plan.name)
    return ContextRecord(mode="sliding", window_tokens=window, stride_tokens=stride)


def build_manifest(
    options: PerplexityOptions, plans: Sequence[CheckpointPlan], corpus: CorpusRecord
) -> RunManifest:
    """Return the manifest of a run; equal commands over equal files have equal identities."""
    settings = options.settings(corpus)
    identity = digest(
        {
            "kind": "perplexity",
            "checkpoints": [plan.fingerprint for plan in plans],
            "answers": [answers_key(plan) for plan in plans],
            "settings": settings,
        }
    )
    names = "+".join(plan.slug for plan in plans[:3]) + ("+more" if len(plans) > 3 else "")
    return RunManifest(
        name=f"perplexity-{corpus.name}-{names}",
        kind="perplexity",
        command=options.command,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        identity=identity,
        suite=_SUITE,
        suite_sha256="",
        models=tuple(plan.name for plan in plans),
        settings=settings,
        partial=options.limit is not None or options.max_tokens is not None,
        environment=describe_environment(),
    )
