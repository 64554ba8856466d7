"""A zero-shot run from names to a table: check everything, compute what is missing, keep every answer.

Nothing slow begins before all that can be wrong with the command has been looked at: names, files,
data sets, the place for results. Weights are read last, and only if a cell is missing.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mambabench import __version__
from mambabench.errors import CellsFailedError, MambabenchError
from mambabench.fingerprint import digest
from mambabench.progress import Progress, progress
from mambabench.schema import CellRecord, RunManifest, SettingsRecord, TaskRecord

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.load import CheckpointPlan
    from mambabench.models.locate import Located
    from mambabench.registry import ModelRef
    from mambabench.report.zeroshot import ZeroshotTable
    from mambabench.store import RunDir
    from mambabench.suite import Suite
    from mambabench.tasks.evaluate import ChatOptions
    from mambabench.tasks.offline import PreparedTask


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
    exports: tuple[str, ...] = ()
    """Further formats to write into the run: "lm-eval"."""
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ZeroshotOutcome:
    """What a run left behind."""

    path: Path
    table: ZeroshotTable
    cells: tuple[CellRecord, ...]
    n_computed: int
    """Cells computed by this call; the others were there."""
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CellRecord, ...]:
        """Cells that ended in an error."""
        return tuple(c for c in self.cells if c.status != "ok")

    def raise_for_failures(self) -> None:
        """Raise when cells failed.

        Raises:
            CellsFailedError: naming the first failed cell.
        """
        if self.failed:
            first = self.failed[0]
            raise CellsFailedError(
                f"{len(self.failed)} of {len(self.cells)} cells failed, first "
                f"{first.model} on {first.task.task}: {first.error}",
                hint="The others are kept; the same command tries the failed ones again.",
            )


@dataclass
class _Cell:
    """A cell before it is computed."""

    plan: CheckpointPlan
    prepared: PreparedTask
    record: TaskRecord
    n_requests: int
    fingerprint: str
    limit: int | None
    done: CellRecord | None = None
    notes: list[str] = field(default_factory=list)


def run_zeroshot(options: ZeroshotOptions) -> ZeroshotOutcome:
    """Evaluate models on a suite, finishing an interrupted run of the same command.

    Raises:
        MambabenchError: before anything slow when the command cannot work; afterwards errors stay in
            their cells.
        KeyboardInterrupt: when interrupted; every answer so far is kept.
    """
    from mambabench.preflight import look_ahead
    from mambabench.store import Store

    found = look_ahead(
        options.models,
        options.suite.tasks,
        out=options.out,
        data_dir=options.data_dir,
        weights=options.weights,
        device=options.device,
        max_length=options.max_length,
        tokenizer=options.tokenizer,
    )
    plans = [_check(ref, located, options) for ref, located in found]
    tasks = _prepare(options)
    store, manifest = Store(options.out), _manifest(options, plans)
    # Requests are built before a run is made, since rows may turn out to be wrong here; for all of a
    # large suite that takes a while, after which it would be late to learn of another process.
    store.check_free(manifest)
    cells = [c for plan in plans for c in _cells(plan, tasks, options)]
    with store.open_run(manifest) as run:
        for cell in cells:
            cell.done = run.cell(cell.fingerprint)
        missing = [c for c in cells if c.done is None or c.done.status != "ok"]
        total = sum(c.n_requests for c in missing)
        with progress(total, "zeroshot") as bar:
            for plan in plans:
                mine = [c for c in missing if c.plan is plan]
                if mine:
                    _compute_model(plan, mine, options, run, bar)
        records = tuple(c.done for c in cells if c.done is not None)
        if "lm-eval" in options.exports and all(r.status == "ok" for r in records):
            for plan in plans:
                _export(plan, tasks, options, run)
        return ZeroshotOutcome(
            path=run.path,
            table=_table(options.suite, plans, records),
            cells=records,
            n_computed=len(missing),
            warnings=tuple(dict.fromkeys(w for r in records for w in r.warnings)),
        )


def _check(ref: ModelRef, located: Located, options: ZeroshotOptions) -> CheckpointPlan:
    from mambabench.models.load import check

    plan = check(
        ref,
        weights=options.weights,
        dtype=options.dtype,
        device=options.device,
        seed=options.seed,
        max_length=options.max_length,
        tokenizer=options.tokenizer,
        located=located,
    )
    if options.apply_chat_template:
        from mambabench.tasks.chat import require_chat_template

        require_chat_template(plan.tokenizer, plan.name)
    return plan


def _prepare(options: ZeroshotOptions) -> list[PreparedTask]:
    from mambabench.tasks.offline import prepare

    return prepare(options.suite.tasks, data_dir=options.data_dir)


def _settings(options: ZeroshotOptions) -> SettingsRecord:
    return SettingsRecord(
        dtype=options.dtype,
        device=options.device,
        batch_size=options.batch_size,
        limit=options.limit,
        apply_chat_template=options.apply_chat_template,
        system_instruction=options.system_instruction,
        fewshot_as_multiturn=options.fewshot_as_multiturn,
        seed=options.seed,
    )


def _manifest(options: ZeroshotOptions, plans: Sequence[CheckpointPlan]) -> RunManifest:
    from mambabench.environment import describe_environment

    settings = _settings(options)
    identity = digest(
        {
            "kind": "zeroshot",
            "checkpoints": [plan.fingerprint for plan in plans],
            "suite": options.suite.sha256,
            "settings": settings,
            "data": None if options.data_dir is None else options.data_dir.name,
            "engine": __version__,
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
        settings=settings,
        partial=options.limit is not None,
        environment={**describe_environment(), "python": platform.python_version()},
    )


def _cells(plan: CheckpointPlan, tasks: Sequence[PreparedTask], options: ZeroshotOptions) -> list[_Cell]:
    """Build every task's requests for one model."""
    from mambabench.tasks.evaluate import build_requests

    chat = _chat(options)
    cells = []
    lm = _backend(plan, None, None, options, None) if chat.apply_chat_template else None
    for prepared in tasks:
        built = build_requests(prepared.task, lm, limit=options.limit, chat=chat)
        n_docs = len({i.doc_id for i in prepared.task.instances})
        record = prepared.record.model_copy(update={"n_docs": n_docs, "requests_sha256": built.sha256})
        fingerprint = digest(
            {
                "checkpoint": plan.fingerprint,
                "task": record,
                "settings": _settings(options),
                "engine": __version__,
                "lm_eval": _lm_eval_version(),
            }
        )
        cells.append(_Cell(plan, prepared, record, built.n_requests, fingerprint, options.limit))
    return cells


def _compute_model(
    plan: CheckpointPlan, cells: Sequence[_Cell], options: ZeroshotOptions, run: RunDir, bar: Progress
) -> None:
    from mambabench.models.load import load

    bar.stage(f"{plan.name}  loading")
    try:
        model = load(plan)
    except MambabenchError as error:
        # The other models of the run are still worth computing.
        for cell in cells:
            cell.done = _failed(cell, error)
            run.write_cell(cell.done, [])
            bar.advance(cell.n_requests)
        return
    run.write_checkpoint(plan.slug, model.record)
    for cell in cells:
        bar.stage(f"{plan.name}  {cell.prepared.name}")
        _compute_cell(cell, model, options, run, bar)


def _compute_cell(
    cell: _Cell, model: LoadedModel, options: ZeroshotOptions, run: RunDir, bar: Progress
) -> None:
    from mambabench.tasks.evaluate import build_requests, score_task
    from mambabench.tasks.quiet import remarks

    chat = _chat(options)
    backend = _backend(cell.plan, model, run, options, bar, cell.notes)
    began_s = time.perf_counter()
    try:
        with remarks(lambda line: cell.notes.append(f"{cell.prepared.name}: lm-eval says: {line}")):
            if len(options.models) > 1:
                # Tasks are shared by all models, and a chat template gives each its own prompts.
                build_requests(cell.prepared.task, backend, limit=cell.limit, chat=chat)
            score = score_task(cell.prepared.name, cell.prepared.task, backend, limit=cell.limit, chat=chat)
    except Exception as error:
        cell.done = _failed(cell, error)
        run.write_cell(cell.done, [])
        return
    cell.done = CellRecord(
        fingerprint=cell.fingerprint,
        checkpoint_fingerprint=cell.plan.fingerprint,
        model=cell.plan.name,
        task=cell.record,
        status="ok",
        partial=cell.record.n_docs < cell.record.n_docs_total,
        metrics=score.metrics,
        n_requests=cell.n_requests,
        n_requests_answered_before=backend.n_answered_before,
        n_tokens_forwarded=backend.tokens_forwarded,
        wall_s=time.perf_counter() - began_s,
        warnings=tuple(cell.notes),
    )
    run.write_cell(cell.done, score.samples)


def _export(
    plan: CheckpointPlan, tasks: Sequence[PreparedTask], options: ZeroshotOptions, run: RunDir
) -> None:
    from mambabench.tasks.evaluate import build_requests
    from mambabench.tasks.export import export_lm_eval

    chat = _chat(options)
    backend = _backend(plan, None, run, options, None)
    for prepared in tasks:
        build_requests(prepared.task, backend, limit=options.limit, chat=chat)
    export_lm_eval(
        run.path / "lm-eval",
        plan.name,
        backend,
        {prepared.name: prepared.task for prepared in tasks},
        limit=options.limit,
        chat=chat,
        model_info={"model_source_fingerprint": plan.fingerprint},
    )


def _failed(cell: _Cell, error: Exception) -> CellRecord:
    return CellRecord(
        fingerprint=cell.fingerprint,
        checkpoint_fingerprint=cell.plan.fingerprint,
        model=cell.plan.name,
        task=cell.record,
        status="failed",
        partial=cell.record.n_docs < cell.record.n_docs_total,
        n_requests=cell.n_requests,
        error=str(error) if isinstance(error, MambabenchError) else f"{type(error).__name__}: {error}",
    )


def _backend(
    plan: CheckpointPlan,
    model: LoadedModel | None,
    run: RunDir | None,
    options: ZeroshotOptions,
    bar: Progress | None,
    notes: list[str] | None = None,
) -> Any:
    from mambabench.tasks.lm_eval_backend import MambabenchLM, MemoryAnswers

    def note(text: str) -> None:
        if notes is not None:
            notes.append(text)
        if bar is not None:
            bar.note(text)

    return MambabenchLM.over(
        tokenizer=plan.tokenizer,
        max_length=plan.max_length,
        answers=run.answers(plan.fingerprint, _answers_key(plan, options)) if run else MemoryAnswers(),
        model=model,
        batch_size=options.batch_size,
        advance=bar.advance if bar is not None else lambda n: None,
        note=note,
    )


def _answers_key(plan: CheckpointPlan, options: ZeroshotOptions) -> str:
    """Digest of what an answer depends on besides the checkpoint and the request's ids."""
    return digest({"engine": __version__, "max_length": plan.max_length, "seed": options.seed})


def _chat(options: ZeroshotOptions) -> ChatOptions:
    from mambabench.tasks.evaluate import ChatOptions

    return ChatOptions(options.apply_chat_template, options.system_instruction, options.fewshot_as_multiturn)


def _table(suite: Suite, plans: Sequence[CheckpointPlan], cells: Sequence[CellRecord]) -> ZeroshotTable:
    from mambabench.report.zeroshot import build_table

    return build_table(suite, [(plan.name, _published_as(plan)) for plan in plans], cells)


def _published_as(plan: CheckpointPlan) -> str | None:
    """Return the model's name in the published figures, if these very weights are the published ones."""
    if plan.spec is None or plan.weights == "random" or plan.adapter is not None:
        return None
    # A revision of a registered model may be any step of its training.
    return plan.spec.published_as if plan.ref.revision in (None, "main") else None


def _lm_eval_version() -> str:
    from importlib.metadata import version

    return version("lm-eval")
