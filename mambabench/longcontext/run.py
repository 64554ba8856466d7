"""A long-context run from names to a table: check everything, score what is missing, then measure cost.

outcome = run_longcontext(complete(load_long_suite("recall"), Asked(), models=("mamba-tiny",)))
outcome.table.effective_of("mamba-tiny").length_tokens

Cells are computed by rising length, each stored as soon as it is complete; the same command goes on with what
is missing. A length that does not fit into the memory is not tried again by longer ones of the same model.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.bench import devices
from mambabench.bench.failures import classify
from mambabench.errors import CertificateError, MambabenchError
from mambabench.longcontext import recall_cells
from mambabench.longcontext.cost import measure_cost
from mambabench.longcontext.loss import LossCell, evaluate_losses
from mambabench.longcontext.loss import adopt as adopt_losses
from mambabench.longcontext.options import LongOptions, LongOutcome
from mambabench.longcontext.plan import LongPlan, ModelCells, look, make_plan
from mambabench.longcontext.recall_cells import RecallCell
from mambabench.models.record import UNSHIPPED
from mambabench.progress import Progress, progress
from mambabench.references import perplexities_by_length
from mambabench.sizes import layout_for
from mambabench.tables.speed.format import size

if TYPE_CHECKING:
    from mambabench.long_schema import ContextLossRecord, LongStatus, RecallRecord
    from mambabench.models.base import LoadedModel
    from mambabench.references import LengthReference
    from mambabench.schema import CheckpointRecord
    from mambabench.store import RunDir
    from mambabench.sweep.options import SpeedOutcome
    from mambabench.tables.longcontext.table import LongTable

_OUT_OF_MEMORY = "out of memory: "
_FREE_SHARE = 0.95
"""Of the machine's free memory; more, and it begins to swap."""


def run_longcontext(options: LongOptions, *, child: Sequence[str] | None = None) -> LongOutcome:
    """Probe models at growing lengths, finishing an interrupted run of the same models.

    Args:
        options: what to run.
        child: command of a process that measures cost; another one in tests.

    Raises:
        MambabenchError: before anything slow when the command cannot work; afterwards errors stay in
            their cells.
        KeyboardInterrupt: when interrupted; every answer so far is kept.
    """
    from mambabench.kernels.ahead import compile_ahead
    from mambabench.store import Store

    ahead = look(options)
    if options.engine == "shared":
        compile_ahead()
    plan = make_plan(options, ahead)
    manifest = options.manifest(plan.checkpoints, None if plan.corpus is None else plan.corpus.record.sha256)
    with Store(options.out).open_run(manifest) as run:
        n_scored = _score(plan, run)
        checkpoints = run.checkpoints()
    # Only now: what is measured must have the machine to itself.
    cost = measure_cost(options, child=child)
    recall, losses = _records(plan)
    said = [w for r in recall for w in r.warnings] + [w for r in losses for w in r.warnings]
    if options.verify:
        said += _uncompared(checkpoints, [*recall, *losses], run.path)
    if cost is not None:
        said += cost.notes
        if options.engine == "as-shipped":
            said.append("cost is that of the fastest way of running each model, not of --engine as-shipped")
    return LongOutcome(
        path=run.path,
        table=_table(plan, run, cost),
        recall=recall,
        losses=losses,
        cost=cost,
        n_computed=n_scored + (0 if cost is None else cost.n_measured),
        notes=tuple(dict.fromkeys([*plan.notes, *said])),
        checkpoints=checkpoints,
        published=published_of(plan),
    )


def _score(plan: LongPlan, run: RunDir) -> int:
    """Leave a record of every cell in the run; return how many were computed."""
    for model in plan.models:
        recall_cells.adopt(model.recall, run)
        adopt_losses(model.losses, run)
    missing = [cell for model in plan.models for cell in model.cells if cell.needs_model]
    with progress(sum(map(_worth, missing)), "longcontext", unit="tokens") as bar:
        for model in plan.models:
            _Model(plan.options, model, run, bar).finish()
    return len(missing)


class _Model:
    """One model's cells on an open run.

    Args:
        options: what to run.
        cells: the model and its cells.
        run: takes records and answers.
        bar: told of the progress in tokens.
    """

    def __init__(self, options: LongOptions, cells: ModelCells, run: RunDir, bar: Progress) -> None:
        self._options = options
        self._cells = cells
        self._run = run
        self._bar = bar

    def finish(self) -> None:
        """Leave a record of every cell."""
        missing = sorted((cell for cell in self._cells.cells if cell.needs_model), key=_length)
        for cell in self._cells.cells:
            if cell.unsupported and cell.done is None:
                self._end(cell, "unsupported", cell.unsupported)
        if not missing:
            return
        try:
            model = self._ready()
        except CertificateError:
            raise
        except MambabenchError as error:
            for cell in missing:
                self._skip(cell, str(error))
            return
        self._compute(missing, model)
        # Its weights would stand in the way of the next one, and of what measures cost.
        del model
        gc.collect()

    def _ready(self) -> LoadedModel:
        from mambabench.models.ready import ready

        plan = self._cells.plan
        model = ready(
            plan,
            verify=self._options.verify,
            earlier=self._run.checkpoints().get(plan.slug),
            stage=self._bar.stage,
        )
        self._run.write_checkpoint(plan.slug, model.record)
        return model

    def _compute(self, missing: Sequence[RecallCell | LossCell], model: LoadedModel) -> None:
        """Compute cells by rising length, up to the first that does not fit into the memory."""
        ran_out: tuple[int, str] | None = None
        for cell in missing:
            length = _length(cell)
            if ran_out is not None and length > ran_out[0]:
                self._skip(
                    cell, f"not tried: {ran_out[0]:,} tokens did not fit into the memory: {ran_out[1]}"
                )
                continue
            if obstacle := self._does_not_fit(length):
                self._skip(cell, f"{_OUT_OF_MEMORY}{obstacle}")
            elif isinstance(cell, RecallCell):
                self._bar.stage(f"{cell.plan.name}  {cell.task.name} at {length:,} tokens")
                recall_cells.evaluate(cell, self._run, model, self._bar)
            else:
                evaluate_losses(
                    [cell], self._run, model, _InTokens(self._bar, _worth(cell) // cell.n_requests)
                )
            detail = "" if cell.done is None else cell.done.detail
            if _is_lack_of_memory(detail):
                ran_out = length, detail.removeprefix(_OUT_OF_MEMORY)

    def _does_not_fit(self, length_tokens: int) -> str:
        """Say why a length would end this process; empty where it need not: a GPU refuses by itself."""
        plan, sizes = self._cells.plan, self._cells.sizes
        if sizes is None or plan.device != "cpu" or plan.engine != "shared":
            return ""
        needed = sizes.state_bytes(layout_for("mambabench", plan.dtype), length_tokens=length_tokens)
        free = round(_FREE_SHARE * devices.free_bytes())
        if needed <= free:
            return ""
        return f"the state after {length_tokens:,} tokens takes {size(needed)}, and {size(free)} are free"

    def _skip(self, cell: RecallCell | LossCell, detail: str) -> None:
        self._end(cell, "failed", detail)
        self._bar.advance(_worth(cell))

    def _end(self, cell: RecallCell | LossCell, status: LongStatus, detail: str) -> None:
        self._run.write_long(cell.ended(status=status, detail=detail))


@dataclass(frozen=True)
class _InTokens:
    """A bar of tokens as a bar of requests.

    Attributes:
        bar: counts tokens.
        each: tokens of a request.
    """

    bar: Progress
    each: int

    def stage(self, text: str) -> None:
        self.bar.stage(text)

    def advance(self, n: int) -> None:
        self.bar.advance(n * self.each)

    def note(self, text: str) -> None:
        self.bar.note(text)


def _length(cell: RecallCell | LossCell) -> int:
    return cell.length_tokens if isinstance(cell, RecallCell) else cell.context_tokens


def _worth(cell: RecallCell | LossCell) -> int:
    """Return the tokens that a cell forwards, as far as they are not shared."""
    if isinstance(cell, RecallCell):
        return cell.n_tokens
    return cell.n_requests * (cell.context_tokens + cell.blocks.target_tokens)


def _is_lack_of_memory(detail: str) -> bool:
    return (
        detail.startswith((_OUT_OF_MEMORY, "MemoryError")) or classify(RuntimeError(detail)).status == "oom"
    )


def _records(plan: LongPlan) -> tuple[tuple[RecallRecord, ...], tuple[ContextLossRecord, ...]]:
    recall = [cell.done for model in plan.models for cell in model.recall if cell.done is not None]
    losses = [cell.done for model in plan.models for cell in model.losses if cell.done is not None]
    return tuple(recall), tuple(losses)


def _table(plan: LongPlan, run: RunDir, cost: SpeedOutcome | None) -> LongTable:
    from mambabench.tables.longcontext.table import build_long_table

    recall, losses = _records(plan)
    records: list[RecallRecord | ContextLossRecord] = [*recall, *losses]
    return build_long_table(
        plan.options.title,
        recall,
        losses,
        None if cost is None else cost.table,
        rows={r.fingerprint: run.read_long_rows(r) for r in records if r.status == "ok"},
        models=[checkpoint.name for checkpoint in plan.checkpoints],
    )


def _uncompared(
    checkpoints: Mapping[str, CheckpointRecord],
    records: Sequence[RecallRecord | ContextLossRecord],
    path: Path,
) -> list[str]:
    """Name the models whose figures all come from an earlier call, which compared nothing."""
    computed = {record.model for record in records if record.status == "ok"}
    return [
        f"{found.name} was computed without a comparison with the model as shipped, and nothing is left to "
        f"compute: delete {path} to have it compared"
        for found in checkpoints.values()
        if found.certificate is None
        and found.name in computed
        and found.implementation.startswith("mambabench")
        and found.implementation != UNSHIPPED
    ]


def published_of(plan: LongPlan) -> dict[str, tuple[LengthReference, ...]]:
    """Return the published perplexities of models as released, by name, where a text is predicted."""
    if plan.corpus is None or plan.options.tokenizer is not None:
        return {}
    found = {}
    for checkpoint in plan.checkpoints:
        as_released = checkpoint.weights == "pretrained" and checkpoint.adapter is None
        # A revision of a registered model may be any step of its training.
        if checkpoint.spec is None or not as_released or checkpoint.ref.revision not in (None, "main"):
            continue
        if references := perplexities_by_length(checkpoint.spec.published_as):
            found[checkpoint.name] = references
    return found
