"""A long-context run described: what was asked for, what makes it the same run, what it left behind.

options = LongOptions(("mamba-tiny",), lengths_tokens=(256, 512), recall=RecallPart(("needle",)))
outcome = mambabench.longcontext.run.run_longcontext(options)
outcome.table.row("mamba-tiny", 512).recall_mean
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.environment import describe_environment
from mambabench.errors import CellsFailedError
from mambabench.fingerprint import digest
from mambabench.long_schema import ContextLossRecord, RecallRecord
from mambabench.schema import CheckpointRecord, LongSettingsRecord, Record, RunManifest, WeightsKind
from mambabench.suite_file import LONG_KIND
from mambabench.zeroshot import answers_key

if TYPE_CHECKING:
    from mambabench.models.plan import CheckpointPlan, Engine
    from mambabench.references import LengthReference
    from mambabench.sweep.options import SpeedOutcome
    from mambabench.tables.longcontext.table import LongTable

N_SAMPLES: Final = 50
N_DEPTHS: Final = 10
TARGET_TOKENS: Final = 256
N_BLOCKS: Final = 32


class RecallPart(Record):
    """What is asked of recall."""

    tasks: tuple[str, ...]
    """Names of `mambabench.tasks.recall.tasks.TASKS`."""
    n_samples: int = N_SAMPLES
    """Of each task and length."""
    n_depths: int = N_DEPTHS
    """Equal parts of the haystack, each with as many needles as the others, to within one."""


class LossPart(Record):
    """What of a text is predicted after each length of context."""

    target_tokens: int = TARGET_TOKENS
    """Of each block."""
    n_blocks: int = N_BLOCKS
    """Fewer where the text is short."""


class CostPart(Record):
    """How cost is measured: by a sweep of latency with prompts of the same lengths."""

    gen_len_tokens: int = 16
    """After each prompt."""
    processes: int = 1
    """Of each point."""
    repeats: int = 3
    """In each process, at least."""
    max_time_s: float = 5.0
    """Longest that a process goes on repeating."""


@dataclass(frozen=True)
class LongOptions:
    """What to run; the defaults are those of the command."""

    models: tuple[str, ...]
    lengths_tokens: tuple[int, ...]
    """Of recall samples, of contexts before predicted text, and of prompts."""
    recall: RecallPart | None = None
    loss: LossPart | None = None
    """Needs `data`."""
    cost: CostPart | None = None
    title: str = ""
    suite: str = ""
    suite_sha256: str = ""
    data: str | None = None
    """"wikitext", "enwik8", or the path of a file or a directory."""
    part: str | None = None
    """Of a data set; null for its test part."""
    data_dir: Path | None = None
    """Directory of data sets as files; null for the Hub."""
    out: Path = Path("results")
    weights: WeightsKind = "pretrained"
    seed: int = 0
    """Of samples, of the places of predicted text, and of random weights."""
    dtype: str = "auto"
    device: str = "auto"
    tokenizer: str | None = None
    engine: Engine = "shared"
    memory_budget_bytes: int | None = None
    verify: bool = True
    """Whether the fast path is compared with the model as shipped before anything is computed."""
    command: tuple[str, ...] = ()

    def settings(self, corpus_sha256: str | None) -> LongSettingsRecord:
        """Return the options that change what is computed, as a record."""
        recall, loss = self.recall, self.loss
        return LongSettingsRecord(
            dtype=self.dtype,
            device=self.device,
            weights=self.weights,
            seed=self.seed,
            lengths_tokens=self.lengths_tokens,
            tasks=() if recall is None else recall.tasks,
            n_samples=None if recall is None else recall.n_samples,
            n_depths=None if recall is None else recall.n_depths,
            corpus_sha256=corpus_sha256,
            n_blocks=None if loss is None else loss.n_blocks,
            target_tokens=None if loss is None else loss.target_tokens,
            tokenizer=self.tokenizer,
            engine=self.engine,
            memory_budget_bytes=self.memory_budget_bytes,
            verify=self.verify,
        )

    def manifest(self, plans: Sequence[CheckpointPlan], corpus_sha256: str | None = None) -> RunManifest:
        """Return the manifest of a run.

        Everything asked of the same models belongs to one run, so that more lengths, tasks, samples or texts
        add to what is there; each record knows what it depends on.

        Args:
            plans: the models.
            corpus_sha256: digest of the text's documents.
        """
        identity = digest(
            {
                "kind": LONG_KIND,
                "checkpoints": [plan.fingerprint for plan in plans],
                "answers": [answers_key(plan) for plan in plans],
                "seed": self.seed,
                "memory_budget_bytes": self.memory_budget_bytes,
            }
        )
        names = "+".join(plan.slug for plan in plans[:3]) + ("+more" if len(plans) > 3 else "")
        return RunManifest(
            name=f"{LONG_KIND}-{names}",
            kind=LONG_KIND,
            command=self.command,
            created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            identity=identity,
            suite=self.suite,
            suite_sha256=self.suite_sha256,
            models=tuple(plan.name for plan in plans),
            settings=self.settings(corpus_sha256),
            partial=False,
            environment=describe_environment(),
        )


@dataclass(frozen=True)
class LongOutcome:
    """What a run left behind.

    Attributes:
        path: of the run.
        table: one row a model and length, with what follows from them.
        recall: one record a model, length and task.
        losses: one record a model and length of context.
        cost: of the sweep that measured cost; null where none was wanted.
        n_computed: records and measuring processes of this call; the others were there.
        notes: sentences worth knowing.
        checkpoints: what was loaded, by the models' names as file names.
        published: by model, its perplexity at some lengths as others measured it, on other texts.
    """

    path: Path
    table: LongTable
    recall: tuple[RecallRecord, ...]
    losses: tuple[ContextLossRecord, ...]
    cost: SpeedOutcome | None
    n_computed: int
    notes: tuple[str, ...] = ()
    checkpoints: dict[str, CheckpointRecord] = field(default_factory=dict)
    published: dict[str, tuple[LengthReference, ...]] = field(default_factory=dict)

    @property
    def records(self) -> tuple[RecallRecord | ContextLossRecord, ...]:
        """Recall and losses."""
        return (*self.recall, *self.losses)

    def raise_for_failures(self) -> None:
        """Raise when a record failed; cells that do not exist for a model are answers.

        Raises:
            CellsFailedError: naming the first failure.
        """
        failed = [record for record in self.records if record.status == "failed"]
        if failed:
            first = f"{described(failed[0])}: {failed[0].detail}"
            raise CellsFailedError.counted(len(failed), len(self.records), "cell", first)
        if self.cost is not None:
            self.cost.raise_for_failures()


def described(record: RecallRecord | ContextLossRecord) -> str:
    """Return what a record is of in a few words."""
    if isinstance(record, RecallRecord):
        return f"{record.model} on {record.task} at {record.length_tokens:,} tokens"
    return f"{record.model} on {record.corpus.name} after {record.context_tokens:,} tokens"


def as_json(outcome: LongOutcome) -> dict[str, Any]:
    """Return everything about a run as JSON values; questions, blocks and raw timings are in its files."""
    cost = outcome.cost
    return {
        "schema_version": 1,
        "run": str(outcome.path),
        "cost_run": None if cost is None else str(cost.path),
        "table": outcome.table.as_json(),
        "recall": [record.model_dump(mode="json") for record in outcome.recall],
        "losses": [record.model_dump(mode="json") for record in outcome.losses],
        "cost": None if cost is None else cost.table.as_json(),
        "published_perplexity": {
            model: [vars(one) for one in found] for model, found in outcome.published.items()
        },
        "notes": list(outcome.notes),
        "checkpoints": {name: record.model_dump(mode="json") for name, record in outcome.checkpoints.items()},
    }
