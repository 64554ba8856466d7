"""Perplexity of whole documents, from names to a table: check everything, predict what is missing, keep it.

    outcome = run_perplexity(PerplexityOptions(models=("mamba-tiny",), data="war_and_peace.txt"))

Every token's log-probability is kept. An interrupted run goes on inside the document that it was in, from a
state or a window that an undisturbed run has at the same place, and ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.errors import CertificateError, MambabenchError, UsageError
from mambabench.fingerprint import digest
from mambabench.long_schema import PerplexityRecord
from mambabench.longcontext.perplexity_cell import PerplexityCell
from mambabench.longcontext.perplexity_options import (
    PerplexityOptions,
    PerplexityOutcome,
    build_manifest,
    context_for,
)
from mambabench.progress import Progress, progress
from mambabench.zeroshot import answers_key

if TYPE_CHECKING:
    from mambabench.models.plan import CheckpointPlan
    from mambabench.sizes import ModelSizes
    from mambabench.store import RunDir
    from mambabench.tasks.corpus.documents import Corpus


def run_perplexity(options: PerplexityOptions) -> PerplexityOutcome:
    """Predict a corpus with each model, finishing an interrupted run of the same command.

    Raises:
        MambabenchError: before anything slow when the command cannot work; afterwards errors stay in
            their records.
        KeyboardInterrupt: when interrupted; all but the last seconds are kept.
    """
    from mambabench.kernels.ahead import compile_ahead
    from mambabench.store import Store
    from mambabench.tasks.corpus.load import check_corpus, load_corpus

    options.check()
    check_corpus(options.data, options.part, options.data_dir)
    if options.engine == "shared":
        compile_ahead()
    planned = _plans(options)
    corpus = load_corpus(options.data, part=options.part, data_dir=options.data_dir)
    plans = [plan for plan, _ in planned]
    store, manifest = Store(options.out), build_manifest(options, plans, corpus.record)
    store.check_free(manifest)
    cells = _cells(options, planned, corpus)
    _require_possible(cells, corpus, options, plans)
    with store.open_run(manifest) as run:
        stored = {record.fingerprint: record for record in run.long_records(PerplexityRecord)}
        for cell in cells:
            cell.adopt(stored.get(cell.fingerprint))
        missing = [cell for cell in cells if cell.is_missing]
        _compute(missing, corpus, options, run, plans)
        records = tuple(cell.done for cell in cells if cell.done is not None)
        return _outcome(run, records, len(missing))


def _plans(options: PerplexityOptions) -> list[tuple[CheckpointPlan, ModelSizes | None]]:
    from mambabench.preflight import look_ahead

    found = look_ahead(
        options.models,
        (),
        out=options.out,
        weights=options.weights,
        device=options.device,
        tokenizer=options.tokenizer,
    )
    from mambabench.bench.sizes import sizes_of
    from mambabench.models.load import check

    return [
        (
            check(
                ref,
                weights=options.weights,
                dtype=options.dtype,
                device=options.device,
                seed=options.seed,
                tokenizer=options.tokenizer,
                engine=options.engine,
                located=located,
            ),
            sizes_of(ref, located),
        )
        for ref, located in found
    ]


def _cells(
    options: PerplexityOptions, planned: Sequence[tuple[CheckpointPlan, ModelSizes | None]], corpus: Corpus
) -> list[PerplexityCell]:
    # All models get the same beginning of a document, which depends on all their tokenizers.
    tokenizers = sorted({plan.tokenizer_record.sha256 for plan, _ in planned})
    cells = []
    for plan, sizes in planned:
        context = context_for(options, plan, sizes)
        about = {
            "kind": "perplexity",
            "checkpoint": plan.fingerprint,
            "corpus": corpus.record.sha256,
            "context": context,
            "limit": options.limit,
            "max_tokens": options.max_tokens,
            "tokenizers": tokenizers if options.max_tokens is not None else None,
            "memory_budget_bytes": options.memory_budget_bytes,
            "answers": answers_key(plan),
        }
        cells.append(PerplexityCell(plan, sizes, corpus.record, context, digest(about)))
    return cells


def _require_possible(
    cells: Sequence[PerplexityCell],
    corpus: Corpus,
    options: PerplexityOptions,
    plans: Sequence[CheckpointPlan],
) -> None:
    """Refuse a run of which no model can compute anything."""
    if not all(cell.depends_on_texts for cell in cells):
        return
    _give_texts(cells, corpus, options, plans)
    obstacles = [cell.unsupported for cell in cells]
    if all(obstacles):
        raise UsageError(
            f"nothing can be computed: {obstacles[0]}",
            hint="Give --context sliding with a --window that fits, or name other models.",
        )


def _give_texts(
    cells: Sequence[PerplexityCell],
    corpus: Corpus,
    options: PerplexityOptions,
    plans: Sequence[CheckpointPlan],
) -> None:
    from mambabench.longcontext.texts import texts_for

    lacking = [cell for cell in cells if not cell.has_texts]
    if not lacking:
        return
    documents = corpus.documents[: options.limit]
    used = [cell.plan for cell in lacking] if options.max_tokens is None else plans
    tokenizers = {plan.tokenizer_record.sha256: plan.tokenizer for plan in used}
    texts = texts_for(documents, tokenizers, max_tokens=options.max_tokens)
    for cell in lacking:
        cell.take(texts[cell.plan.tokenizer_record.sha256], n_documents_in_all=len(corpus.documents))


def _compute(
    missing: Sequence[PerplexityCell],
    corpus: Corpus,
    options: PerplexityOptions,
    run: RunDir,
    plans: Sequence[CheckpointPlan],
) -> None:
    """Compute cells, one model after the other."""
    if not missing:
        return
    _give_texts(missing, corpus, options, plans)
    total = sum(cell.n_tokens_left(run) for cell in missing)
    with progress(total, "perplexity", unit="tokens") as bar:
        for cell in missing:
            _evaluate(cell, run, bar, options)


def _evaluate(cell: PerplexityCell, run: RunDir, bar: Progress, options: PerplexityOptions) -> None:
    """Compute one cell; a model that cannot be loaded, or fails on the way, fails this cell only."""
    from mambabench.models.ready import ready
    from mambabench.scoring.rolling import TextTooLongError

    if cell.unsupported:
        run.write_long(cell.ended(status="unsupported", detail=cell.unsupported))
        return
    left = cell.n_tokens_left(run)
    try:
        model = ready(
            cell.plan,
            verify=options.verify,
            earlier=run.checkpoints().get(cell.plan.slug),
            stage=bar.stage,
        )
        run.write_checkpoint(cell.plan.slug, model.record)
        record, rows = cell.compute(run, model, bar, memory_bytes=options.memory_budget_bytes)
    except CertificateError:
        raise
    except Exception as error:
        text = str(error) if isinstance(error, MambabenchError) else f"{type(error).__name__}: {error}"
        # Shows with the model only where its architecture is not known beforehand.
        status = "unsupported" if isinstance(error, TextTooLongError) else "failed"
        bar.advance(left - cell.n_advanced)
        run.write_long(cell.ended(status=status, detail=text))
        return
    run.write_long(record, rows)
    cell.stored(run)


def _outcome(run: RunDir, records: tuple[PerplexityRecord, ...], n_computed: int) -> PerplexityOutcome:
    from mambabench.tables.longcontext.perplexity import build_perplexity_table

    notes = [f"{record.model}: {text}" for record in records for text in record.warnings]
    return PerplexityOutcome(
        path=run.path,
        table=build_perplexity_table(records),
        records=records,
        n_computed=n_computed,
        notes=tuple(dict.fromkeys(notes)),
        checkpoints=run.checkpoints(),
    )
