"""A zero-shot run from names to a table: check everything, compute what is missing, keep every answer.

Nothing slow begins before all that can be wrong with the command has been looked at: names, files,
data sets, the place for results. Weights are read last, and only if a cell is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.errors import CertificateError, MambabenchError, UsageError
from mambabench.progress import Progress, progress
from mambabench.schema import CellRecord
from mambabench.zeroshot import (
    Cell,
    Checked,
    ZeroshotOptions,
    ZeroshotOutcome,
    answers_key,
    build_manifest,
    cell_fingerprint,
    published_as,
    take_over,
)

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.plan import CheckpointPlan
    from mambabench.store import RunDir, StoredRun
    from mambabench.tables.zeroshot import ZeroshotTable
    from mambabench.tasks.ahead import Collector
    from mambabench.tasks.answering import Answerer
    from mambabench.tasks.evaluate import ChatOptions
    from mambabench.tasks.lm_eval_backend import MambabenchLM
    from mambabench.tasks.offline import PreparedTask


def check_zeroshot(options: ZeroshotOptions, tasks: Sequence[PreparedTask] | None = None) -> Checked:
    """Look at the models, and prepare the tasks unless they are given.

    Raises:
        MambabenchError: when the command cannot work.
    """
    plans = _plans(options)
    return Checked(plans, _prepare(options) if tasks is None else tasks)


def run_zeroshot(
    options: ZeroshotOptions, *, checked: Checked | None = None, kept: Sequence[StoredRun] = ()
) -> ZeroshotOutcome:
    """Evaluate models on a suite, finishing an interrupted run of the same command.

    Args:
        options: what to run.
        checked: what `check_zeroshot` found for these options; looked at now when omitted.
        kept: other runs whose cells are taken over where they are equal.

    Raises:
        MambabenchError: before anything slow when the command cannot work; afterwards errors stay in
            their cells.
        KeyboardInterrupt: when interrupted; every answer so far is kept.
    """
    from mambabench.kernels.ahead import compile_ahead
    from mambabench.store import Store

    if options.engine == "shared":
        compile_ahead()
    checked = checked or check_zeroshot(options)
    plans, tasks = checked.plans, checked.tasks
    store, manifest = Store(options.out), build_manifest(options, plans, tasks)
    # Requests are built before a run is made, since rows may turn out to be wrong here; for all of a
    # large suite that takes a while, after which it would be late to learn of another process.
    store.check_free(manifest)
    cells = [c for plan in plans for c in _cells(plan, tasks, options)]
    with store.open_run(manifest) as run:
        for cell in cells:
            cell.adopt(run.cell(cell.fingerprint))
        take_over(run, cells, kept)
        missing = [c for c in cells if c.done is None or c.done.status != "ok"]
        with progress(sum(c.n_requests for c in missing), "zeroshot") as bar:
            computation = _Computation(options, run, bar)
            for plan in plans:
                mine = [c for c in cells if c.plan is plan]
                if any(c in missing for c in mine):
                    computation.model(plan, mine, [c for c in mine if c in missing])
            warnings = [w for c in cells if c.done for w in c.done.warnings]
            if "lm-eval" in options.exports:
                warnings += computation.export(plans, tasks, cells)
        records = tuple(c.done for c in cells if c.done is not None)
        return ZeroshotOutcome(
            path=run.path,
            table=_table(options, plans, records),
            cells=records,
            n_computed=len(missing),
            warnings=tuple(dict.fromkeys(warnings)),
            checkpoints=run.checkpoints(),
        )


def _plans(options: ZeroshotOptions) -> list[CheckpointPlan]:
    from mambabench.preflight import look_ahead

    if options.engine == "as-shipped" and options.memory_budget_bytes is not None:
        raise UsageError(
            "--memory-budget bounds the shared engine, not --engine as-shipped",
            hint="Use --batch-size with it.",
        )
    if options.fewshot_as_multiturn and not options.apply_chat_template:
        raise UsageError(
            "--fewshot-as-multiturn needs --apply-chat-template", hint="Turns exist in conversations only."
        )
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
    from mambabench.models.load import check
    from mambabench.tasks.chat import require_chat_template

    plans = []
    for ref, located in found:
        plan = check(
            ref,
            weights=options.weights,
            dtype=options.dtype,
            device=options.device,
            seed=options.seed,
            max_length=options.max_length,
            tokenizer=options.tokenizer,
            engine=options.engine,
            located=located,
        )
        if options.apply_chat_template:
            require_chat_template(plan.tokenizer, plan.name)
        plans.append(plan)
    return plans


def _prepare(options: ZeroshotOptions) -> list[PreparedTask]:
    from mambabench.tasks.offline import prepare

    return prepare(options.suite.tasks, data_dir=options.data_dir)


def _cells(plan: CheckpointPlan, tasks: Sequence[PreparedTask], options: ZeroshotOptions) -> list[Cell]:
    """Build every task's requests for one model."""
    from mambabench.tasks.answering import Answerer, MemoryAnswers
    from mambabench.tasks.evaluate import build_requests

    lm = _backend(plan, Answerer(MemoryAnswers()), options)
    cells = []
    for prepared in tasks:
        built = build_requests(prepared.task, lm, limit=options.limit, chat=_chat(options))
        n_docs = len({i.doc_id for i in prepared.task.instances})
        record = prepared.record.model_copy(update={"n_docs": n_docs, "requests_sha256": built.sha256})
        fingerprint = cell_fingerprint(plan, record, options)
        cells.append(Cell(plan, prepared, record, built.n_requests, fingerprint))
    return cells


@dataclass(frozen=True)
class _Ahead:
    """What a cell's questions took that were asked together with those of others."""

    n_answered_before: int
    tokens_forwarded: int
    wall_s: float


class _Computation:
    """Computes cells into an open run.

    Args:
        options: what to run.
        run: kept answers, cells and samples.
        bar: told of the progress.
    """

    def __init__(self, options: ZeroshotOptions, run: RunDir, bar: Progress) -> None:
        self._options = options
        self._run = run
        self._bar = bar
        self._chat = _chat(options)

    def model(self, plan: CheckpointPlan, cells: Sequence[Cell], missing: Sequence[Cell]) -> None:
        """Load a model and compute its missing cells; a model that cannot be loaded fails these only.

        Args:
            plan: the model.
            cells: all of its cells, since batches must not depend on which are missing.
            missing: those to compute.
        """
        from mambabench.models.ready import ready

        try:
            model = ready(
                plan,
                verify=self._options.verify,
                earlier=self._run.checkpoints().get(plan.slug),
                stage=self._bar.stage,
            )
        except CertificateError:
            raise
        except MambabenchError as error:
            for cell in missing:
                self._run.write_cell(cell.ended(error), [])
                self._bar.advance(cell.n_requests)
            return
        self._run.write_checkpoint(plan.slug, model.record)
        ahead = self._ask_ahead(plan, cells, missing, model)
        for cell in missing:
            self._bar.stage(f"{plan.name}  {cell.prepared.name}")
            self._cell(cell, model, ahead.get(cell.fingerprint))

    def export(
        self, plans: Sequence[CheckpointPlan], tasks: Sequence[PreparedTask], cells: Sequence[Cell]
    ) -> list[str]:
        """Write lm-eval's own files for the models whose cells are complete; return what was left out."""
        from mambabench.tasks.evaluate import build_requests
        from mambabench.tasks.export import export_lm_eval

        left_out = []
        for plan in plans:
            if any(c.done is None or c.done.status != "ok" for c in cells if c.plan is plan):
                left_out.append(f"{plan.name} was not exported: some of its cells failed")
                continue
            lm = _backend(plan, self._answerer(plan), self._options)
            for prepared in tasks:
                build_requests(prepared.task, lm, limit=self._options.limit, chat=self._chat)
            export_lm_eval(
                self._run.path / "lm-eval",
                plan.name,
                lm,
                {prepared.name: prepared.task for prepared in tasks},
                limit=self._options.limit,
                chat=self._chat,
                model_info={"model_fingerprint": plan.fingerprint},
            )
        return left_out

    def _ask_ahead(
        self, plan: CheckpointPlan, cells: Sequence[Cell], missing: Sequence[Cell], model: LoadedModel
    ) -> dict[str, _Ahead]:
        """Answer the log-likelihoods of all cells together; return what each missing cell's took.

        A cell whose questions cannot be collected is left out, and meets its error when it asks by itself.
        So do all cells when answering fails, and their records say that it did.
        """
        from mambabench.tasks.ahead import Collector, collect
        from mambabench.tasks.evaluate import build_requests

        self._bar.stage(f"{plan.name}  scoring {len(missing)} {'task' if len(missing) == 1 else 'tasks'}")
        notes: list[str] = []
        counted = 0

        def advance(n: int) -> None:
            nonlocal counted
            counted += n
            self._bar.advance(n)

        began_s = time.perf_counter()
        collector = Collector()
        lm = _backend(plan, collector, self._options)
        together, asked = [], []
        for cell in cells:
            try:
                if len(self._options.models) > 1:
                    # Tasks are shared by all models, and a chat template gives each its own prompts.
                    build_requests(cell.prepared.task, lm, limit=self._options.limit, chat=self._chat)
                asked.append(collect(cell.prepared.task, lm, collector))
                together.append(cell)
            except Exception:
                # What it had asked so far must not count for the next one.
                collector.take()
        answerer = self._answerer(plan, model, notes, advance=advance)
        try:
            found = answerer.answer_all(
                [a.questions for a in asked],
                [
                    a.worth if c in missing else [0] * len(a.worth)
                    for a, c in zip(asked, together, strict=True)
                ],
            )
        except Exception as error:
            # Each cell counts what is stored once more.
            self._bar.advance(-counted)
            text = f"scoring the tasks together failed, each goes on alone: {type(error).__name__}: {error}"
            self._bar.note(text)
            notes.append(text)
            return {}
        finally:
            for cell in missing:
                cell.notes += notes
        wall_s = time.perf_counter() - began_s
        total = max(1, sum(f.tokens_forwarded for f in found))
        return {
            cell.fingerprint: _Ahead(
                f.n_answered_before, f.tokens_forwarded, wall_s * f.tokens_forwarded / total
            )
            for cell, f in zip(together, found, strict=True)
        }

    def _cell(self, cell: Cell, model: LoadedModel, ahead: _Ahead | None) -> None:
        from mambabench.tasks.evaluate import build_requests, score_task
        from mambabench.tasks.quiet import remarks

        name, task, limit = cell.prepared.name, cell.prepared.task, self._options.limit
        answerer = self._answerer(cell.plan, model, cell.notes, asked_ahead=ahead is not None)
        lm = _backend(cell.plan, answerer, self._options, model)
        began_s = time.perf_counter()
        try:
            with remarks(lambda line: cell.notes.append(f"{name}: lm-eval says: {line}")):
                if len(self._options.models) > 1:
                    # Tasks are shared by all models, and a chat template gives each its own prompts.
                    build_requests(task, lm, limit=limit, chat=self._chat)
                score = score_task(name, task, lm, limit=limit, chat=self._chat)
        except Exception as error:
            self._run.write_cell(cell.ended(error), [])
            return
        record = cell.ended(
            metrics=score.metrics,
            n_requests_answered_before=answerer.n_answered_before + (ahead.n_answered_before if ahead else 0),
            n_tokens_forwarded=answerer.tokens_forwarded + (ahead.tokens_forwarded if ahead else 0),
            wall_s=time.perf_counter() - began_s + (ahead.wall_s if ahead else 0.0),
        )
        self._run.write_cell(record, score.samples)

    def _answerer(
        self,
        plan: CheckpointPlan,
        model: LoadedModel | None = None,
        notes: list[str] | None = None,
        *,
        asked_ahead: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> Answerer:
        from mambabench.tasks.answering import Answerer

        def note(text: str) -> None:
            if notes is not None:
                notes.append(text)
            self._bar.note(text)

        return Answerer(
            self._run.answers(plan.fingerprint, answers_key(plan)),
            model,
            batch_size=self._options.batch_size,
            memory_bytes=self._options.memory_budget_bytes,
            asked_ahead=asked_ahead,
            advance=advance or (self._bar.advance if model is not None else lambda n: None),
            note=note,
        )


def _backend(
    plan: CheckpointPlan,
    answerer: Answerer | Collector,
    options: ZeroshotOptions,
    model: LoadedModel | None = None,
) -> MambabenchLM:
    from mambabench.tasks.lm_eval_backend import MambabenchLM

    return MambabenchLM.over(
        answerer,
        tokenizer=plan.tokenizer,
        max_length=plan.max_length,
        eos_ids=plan.eos_ids,
        model=model,
        seed=options.seed,
    )


def _chat(options: ZeroshotOptions) -> ChatOptions:
    from mambabench.tasks.evaluate import ChatOptions

    return ChatOptions(options.apply_chat_template, options.system_instruction, options.fewshot_as_multiturn)


def _table(
    options: ZeroshotOptions, plans: Sequence[CheckpointPlan], cells: Sequence[CellRecord]
) -> ZeroshotTable:
    from mambabench.tables.zeroshot import build_table

    names = [(plan.name, published_as(plan, options)) for plan in plans]
    return build_table(options.suite, names, cells)
