"""A zero-shot run described: what was asked for, what makes it the same run, what it left behind.

options = ZeroshotOptions(models=("mamba-tiny",), suite=load_suite("smoke"))
outcome = mambabench.execute.run_zeroshot(options)
outcome.table.rows[0].value
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mambabench import __version__
from mambabench.environment import describe_environment, package_versions
from mambabench.errors import CellsFailedError, MambabenchError, StoreError
from mambabench.fingerprint import digest
from mambabench.schema import (
    CellRecord,
    CheckpointRecord,
    ReadRecord,
    RunManifest,
    SettingsRecord,
    TaskRecord,
)

if TYPE_CHECKING:
    from mambabench.models.plan import CheckpointPlan, Engine
    from mambabench.store import RunDir, StoredRun
    from mambabench.suite import Suite
    from mambabench.tables.zeroshot import ZeroshotTable
    from mambabench.tasks.offline import PreparedTask

_COMPUTES = ("torch", "transformers", "tokenizers", "mamba-ssm", "causal-conv1d", "lm-eval", "peft", "gguf")
"""Packages whose version may change a result."""


@dataclass(frozen=True)
class ZeroshotOptions:
    """What to run; the defaults are those of the command."""

    models: tuple[str, ...]
    suite: Suite
    out: Path = Path("results")
    data_dir: Path | None = None
    limit: int | None = None
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    max_length: int | None = None
    tokenizer: str | None = None
    apply_chat_template: bool = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False
    engine: Engine = "shared"
    memory_budget_bytes: int | None = None
    verify: bool = True
    """Whether the fast path is compared with the model as shipped before anything is computed."""
    exports: tuple[str, ...] = ()
    """Further formats to write into the run: "lm-eval"."""
    command: tuple[str, ...] = ()

    @property
    def as_published(self) -> bool:
        """Whether prompts, tokenizer and window are those that published figures were made with."""
        return not (
            self.apply_chat_template
            or self.system_instruction
            or self.fewshot_as_multiturn
            or self.tokenizer
            or self.max_length
        )

    @property
    def settings(self) -> SettingsRecord:
        """The options that change what is computed, as a record."""
        return SettingsRecord(
            dtype=self.dtype,
            device=self.device,
            batch_size=self.batch_size,
            limit=self.limit,
            apply_chat_template=self.apply_chat_template,
            system_instruction=self.system_instruction,
            fewshot_as_multiturn=self.fewshot_as_multiturn,
            seed=self.seed,
            engine=self.engine,
            memory_budget_bytes=self.memory_budget_bytes,
        )


@dataclass(frozen=True)
class Checked:
    """What a run needs before anything slow: its models looked at and its tasks with their data."""

    plans: Sequence[CheckpointPlan]
    tasks: Sequence[PreparedTask]
    """Of the suite; runs one after the other may share them."""


@dataclass
class Cell:
    """A cell before and after it is computed."""

    plan: CheckpointPlan
    prepared: PreparedTask
    record: TaskRecord
    n_requests: int
    fingerprint: str
    done: CellRecord | None = None
    notes: list[str] = field(default_factory=list)

    def adopt(self, stored: CellRecord | None) -> None:
        """Take a stored record over; equal weights may have been stored under another name."""
        if stored is not None:
            stored = stored.model_copy(update={"model": self.plan.name, "task": self.record})
        self.done = stored

    def ended(self, error: Exception | None = None, **found: Any) -> CellRecord:
        """Return the cell's record, of a failure if there was an error."""
        self.done = CellRecord(
            fingerprint=self.fingerprint,
            checkpoint_fingerprint=self.plan.fingerprint,
            model=self.plan.name,
            task=self.record,
            status="ok" if error is None else "failed",
            partial=self.record.n_docs < self.record.n_docs_total,
            n_requests=self.n_requests,
            error="" if error is None else _explained(error),
            warnings=tuple(self.notes),
            **found,
        )
        return self.done


@dataclass(frozen=True)
class ZeroshotOutcome:
    """What a run left behind."""

    path: Path
    table: ZeroshotTable
    cells: tuple[CellRecord, ...]
    n_computed: int
    """Cells computed by this call; the others were there."""
    warnings: tuple[str, ...] = ()
    checkpoints: dict[str, CheckpointRecord] = field(default_factory=dict)
    """What was loaded for the cells, by the models' names as file names."""

    @property
    def failed(self) -> tuple[CellRecord, ...]:
        """Cells that ended in an error."""
        return tuple(c for c in self.cells if c.status != "ok")

    def raise_for_failures(self) -> None:
        """Raise when a row of the table has no value.

        Raises:
            CellsFailedError: naming the first failure.
        """
        if self.failed:
            first = self.failed[0]
            what = f"{first.model} on {first.task.task}: {first.error}"
            raise CellsFailedError.counted(len(self.failed), len(self.cells), "cell", what)
        if rows := [row for row in self.table.rows if row.value is None]:
            raise CellsFailedError(f"{rows[0].model} on {rows[0].task}: {rows[0].error}")


def build_manifest(
    options: ZeroshotOptions, plans: Sequence[CheckpointPlan], tasks: Sequence[PreparedTask]
) -> RunManifest:
    """Return the manifest of a run; equal commands over equal files have equal identities."""
    identity = digest(
        {
            "kind": "zeroshot",
            "checkpoints": [plan.fingerprint for plan in plans],
            "suite": options.suite.sha256,
            "settings": options.settings,
            "data": [file.sha256 for task in tasks for file in task.data],
            "engine": _engine(),
        }
    )
    names = "+".join(plan.slug for plan in plans[:3]) + ("+more" if len(plans) > 3 else "")
    return RunManifest(
        name=f"zeroshot-{options.suite.name}-{names}",
        kind="zeroshot",
        command=options.command,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        identity=identity,
        suite=options.suite.name,
        suite_sha256=options.suite.sha256,
        models=tuple(plan.name for plan in plans),
        settings=options.settings,
        partial=options.limit is not None,
        reads=tuple(
            ReadRecord(task=t.task, metrics=t.metrics, label=t.label or "") for t in options.suite.tasks
        ),
        environment=describe_environment(),
    )


def cell_fingerprint(plan: CheckpointPlan, record: TaskRecord, options: ZeroshotOptions) -> str:
    """Return the digest of everything that a cell's result depends on."""
    return digest(
        {
            "checkpoint": plan.fingerprint,
            "task": record,
            "settings": options.settings,
            "engine": _engine(),
        }
    )


def answers_key(plan: CheckpointPlan) -> str:
    """Return the digest of what an answer depends on besides the checkpoint and the request itself."""
    return digest({"engine": _engine(), "max_length": plan.max_length})


def take_over(run: RunDir, cells: Sequence[Cell], kept: Sequence[StoredRun]) -> None:
    """Copy cells that a run lacks from other runs that hold equal ones, with their samples.

    What is damaged there is passed over: the cell is then computed.

    Raises:
        StoreError: the run cannot be written to.
    """
    for cell in cells:
        if cell.done is not None and cell.done.status == "ok":
            continue
        for other in kept:
            if other.path == run.path:
                continue
            try:
                stored = other.cell(cell.fingerprint)
                if stored is None or stored.status != "ok":
                    continue
                samples = other.read_samples(cell.fingerprint)
                loaded = [c for c in other.checkpoints().values() if c.name == stored.model]
            except StoreError:
                continue
            cell.adopt(stored)
            assert cell.done is not None
            run.write_cell(cell.done, samples)
            if loaded and cell.plan.slug not in run.checkpoints():
                run.write_checkpoint(cell.plan.slug, loaded[0].model_copy(update={"name": cell.plan.name}))
            break


def published_as(plan: CheckpointPlan, options: ZeroshotOptions) -> str | None:
    """Return the model's name in the published figures, if this run is of the kind that made them."""
    if plan.spec is None or plan.weights == "random" or plan.adapter is not None:
        return None
    # A revision of a registered model may be any step of its training.
    if plan.ref.revision not in (None, "main") or not options.as_published:
        return None
    return plan.spec.published_as


def _engine() -> dict[str, str]:
    versions = package_versions()
    return {"mambabench": __version__, **{name: versions.get(name, "") for name in _COMPUTES}}


def _explained(error: Exception) -> str:
    return str(error) if isinstance(error, MambabenchError) else f"{type(error).__name__}: {error}"
