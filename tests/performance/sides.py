"""One side of a comparison as a process: lm-eval's own backend, or ours, over the same checkpoint and rows.

Started by `performance.speed`; answers requests on stdin (see `performance.children.serve`). Timed is what
lies between built requests and answers, tokenization included. Ours goes the way of `mambabench zeroshot`:
all tasks are asked together, answers are kept on disk, then each task finds its own there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from performance.children import serve
from performance.marked_cli import import_all


class Side:
    """What both sides have in common: tasks with their requests, and the choice of documents.

    Args:
        given: "tasks" as [name, few-shot examples or null] each, "documents" of each task, "data_dir".
    """

    def __init__(self, given: dict[str, Any]) -> None:
        from mambabench.suite import SuiteTask
        from mambabench.taskindex import TaskIndex
        from mambabench.tasks.evaluate import ChatOptions, build_requests
        from mambabench.tasks.offline import prepare

        index = TaskIndex.load()
        suite = [
            SuiteTask(task=name, metrics=index.get(name).metrics[:1], num_fewshot=shots)
            for name, shots in given["tasks"]
        ]
        self.tasks: list[list[Any]] = []
        for prepared in prepare(suite, data_dir=Path(given["data_dir"])):
            build_requests(prepared.task, None, limit=given["documents"], chat=ChatOptions())
            self.tasks.append(list(prepared.task.instances))

    def documents(self) -> list[tuple[int, int]]:
        """Return every (task, document)."""
        return sorted({(t, i.doc_id) for t, instances in enumerate(self.tasks) for i in instances})

    def chosen(self, n_documents: int | None) -> list[list[Any]]:
        """Return the requests of so many documents, evenly spaced over all tasks; of all for null."""
        if n_documents is None:
            return self.tasks
        found = self.documents()
        kept = {found[k * len(found) // n_documents] for k in range(n_documents)}
        return [[i for i in instances if (t, i.doc_id) in kept] for t, instances in enumerate(self.tasks)]

    def load(self, directory: str) -> Any:
        """Load the checkpoint and return transformers' module."""
        raise NotImplementedError

    def answer(self, tasks: list[list[Any]], request: dict[str, Any]) -> dict[str, Any]:
        """Answer requests; return "wall_s", "answers", "tokens" and "logit_rows"."""
        raise NotImplementedError

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        if request["do"] == "load":
            touch(self.load(request["model"]))
            return {"documents": len(self.documents()), "requests": sum(map(len, self.tasks))}
        if request["do"] == "answer":
            return self.answer(self.chosen(request.get("documents")), request)
        return self.other(request)

    def other(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what only one side can."""
        raise ValueError(f"unknown request {request['do']!r}")


class LmEval(Side):
    """lm-eval's `--model hf` with its own settings but the batch size; its logits cache is on."""

    def load(self, directory: str) -> Any:
        """Load as `lm_eval --model hf --model_args pretrained=DIR,dtype=float32` does."""
        from lm_eval.models.huggingface import HFLM

        self._lm = HFLM(
            pretrained=directory, dtype="float32", device="cpu", batch_size=1, softmax_dtype="float32"
        )
        self._tokens = self._rows = 0
        plain = self._lm._model_call

        def counted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            logits = plain(inputs, *args, **kwargs)
            self._tokens += inputs.numel()
            self._rows += logits.shape[0] * logits.shape[1]
            return logits

        self._lm._model_call = counted
        return self._lm.model

    def answer(self, tasks: list[list[Any]], request: dict[str, Any]) -> dict[str, Any]:
        """Answer with the given "batch_size"; lm-eval asks for all tasks' requests at once."""
        self._lm.batch_size_per_gpu = request["batch_size"]
        self._tokens = self._rows = 0
        instances = [i for task in tasks for i in task]
        began_s = time.perf_counter()
        answers = self._lm.loglikelihood(instances, disable_tqdm=True)
        wall_s = time.perf_counter() - began_s
        return {"wall_s": wall_s, "answers": answers, "tokens": self._tokens, "logit_rows": self._rows}


class Ours(Side):
    """The engine of `mambabench zeroshot`."""

    def load(self, directory: str) -> Any:
        """Load as `mambabench zeroshot --model DIR --dtype float32 --device cpu` does."""
        from mambabench.models.load import check, load
        from mambabench.registry import resolve

        # Memory is counted from here on, and lm-eval's side has imported all that it uses by now.
        import_all()
        self._plan = check(resolve(directory), dtype="float32", device="cpu")
        loaded: Any = load(self._plan)
        self._model = loaded
        assert self._model.stateful is not None
        self._tokens = self._rows = 0
        self._count()
        return self._model.module

    def _count(self) -> None:
        """Count at the model's own door, beside the engine's counts."""
        stateful = self._model.stateful
        # Looked up at every call, since a profile replaces them for a while.
        kind = type(stateful)

        def counted_step(ids: Any, *args: Any, **kwargs: Any) -> Any:
            self._tokens += ids.numel()
            return kind.step(stateful, ids, *args, **kwargs)

        def counted_logits(hidden: Any, *, first: int = 0, last: int | None = None) -> Any:
            # A large vocabulary is multiplied in pieces.
            self._rows += len(hidden) if first == 0 else 0
            return kind.logits(stateful, hidden, first=first, last=last)

        stateful.step, stateful.logits = counted_step, counted_logits

    def _backend(self, answerer: Any) -> Any:
        from mambabench.tasks.lm_eval_backend import MambabenchLM

        return MambabenchLM.over(
            answerer,
            tokenizer=self._model.tokenizer,
            max_length=self._model.max_length,
            eos_ids=self._model.record.eos_ids,
        )

    def _collect(self, tasks: list[list[Any]]) -> list[Any]:
        from mambabench.tasks.ahead import Collector, collect

        collector = Collector()
        lm = self._backend(collector)
        return [collect(_task(instances), lm, collector) for instances in tasks]

    def answer(self, tasks: list[list[Any]], request: dict[str, Any]) -> dict[str, Any]:
        """Answer; with "padded", also over the rows that pad the vocabulary, as lm-eval's softmax does."""
        from mambabench.store import AnswerLog
        from mambabench.tasks.answering import Answerer

        stateful = self._model.stateful
        used = stateful.vocab_size
        self._tokens = self._rows = 0
        with tempfile.TemporaryDirectory() as folder:
            log = AnswerLog(Path(folder), "0" * 64, "speed")
            stateful.vocab_size = self._plan.rows_stored if request.get("padded") else used
            try:
                began_s = time.perf_counter()
                asked = self._collect(tasks)
                answerer = Answerer(log, self._model, memory_bytes=request.get("memory_bytes"))
                answerer.answer_all([a.questions for a in asked], [a.worth for a in asked])
                lm = self._backend(Answerer(log, asked_ahead=True))
                answers = [lm.loglikelihood(instances) for instances in tasks]
                wall_s = time.perf_counter() - began_s
            finally:
                stateful.vocab_size = used
                log.close()
        return {
            "wall_s": wall_s,
            "answers": [answer for task in answers for answer in task],
            "tokens": self._tokens,
            "logit_rows": self._rows,
        }

    def other(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the "facts" of the row, or a "profile" of one pass."""
        if request["do"] == "profile":
            from performance.profile_parts import profiled

            found: dict[str, Any] = profiled(lambda: self.answer(self.tasks, request))
            return found
        if request["do"] != "facts":
            return super().other(request)
        from mambabench.scoring.questions import Questions
        from mambabench.scoring.trie import Costs, plan

        questions = Questions.concat([a.questions for a in self._collect(self.tasks)]).distinct()
        sequences = questions.sequences(self._model.max_length)
        # The minimum is that of the trie, whatever sharing costs.
        free = Costs(
            split_tokens=0, state_bytes=0, state_bytes_per_token=0, budget_bytes=1 << 40, batch_tokens=1 << 20
        )
        lengths = np.diff(sequences.offsets)
        forwards = {
            sequences.ids[b : b + n].tobytes() for b, n in zip(sequences.offsets, lengths, strict=False)
        }
        return {
            "tokens_minimum": plan(sequences, free).n_tokens_minimum,
            "rows_read": int(questions.n_continuation.sum()),
            "forwards": len(forwards),
            "longest_tokens": int(lengths.max()),
            "vocab_rows": self._plan.rows_stored,
        }


def _task(instances: list[Any]) -> Any:
    return SimpleNamespace(instances=instances)


def touch(module: Any) -> None:
    """Read every weight once: files are mapped, and count as memory only from then on."""
    for parameter in module.parameters():
        parameter.detach().sum()


def save_checkpoint(name: str, tokenizer: str, directory: str, *, quick: bool) -> dict[str, Any]:
    """Write random weights of a registered model as a transformers directory, tokenizer included.

    Args:
        name: of the registry.
        tokenizer: directory of the tokenizer.
        directory: to be made.
        quick: take a tiny model of the same family instead.
    """
    from transformers import AutoTokenizer

    if quick:
        import builders

        loaded = AutoTokenizer.from_pretrained(tokenizer)
        build = {"mamba": builders.tiny_mamba, "mamba2": builders.tiny_mamba2, "pythia": builders.tiny_neox}
        # Three rows of padding, so that leaving them out shows.
        sizes = {
            "vocab_size": len(loaded) + 3,
            **({"max_position_embeddings": 2048} if "pyt" in name else {}),
        }
        build[name.split("-")[0]](Path(directory), config=sizes, with_tokenizer=False)
        loaded.save_pretrained(directory)
        return {"model": directory}
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    plan = check(
        resolve(name, need_weights=False),
        weights="random",
        dtype="float32",
        device="cpu",
        tokenizer=tokenizer,
        engine="as-shipped",
    )
    model: Any = load(plan)
    # As they are drawn, so many random layers magnify a rounding ten thousand times, in lm-eval's own forward
    # as in ours; the answers of any two programs would differ by more than a mistake does.
    for parameter_name, parameter in model.module.named_parameters():
        if parameter_name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight")):
            parameter.data.mul_(0.5)
    model.module.save_pretrained(directory)
    plan.tokenizer.save_pretrained(directory)
    return {"model": directory}


def main() -> None:
    parser = argparse.ArgumentParser(description="One side of a comparison, asked over stdin.")
    parser.add_argument("side", choices=["ours", "lm-eval", "save"])
    side = parser.parse_args().side
    warnings.simplefilter("ignore")
    made: list[Side] = []

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if side == "save":
            return save_checkpoint(
                request["name"], request["tokenizer"], request["directory"], quick=request["quick"]
            )
        if not made:
            made.append((Ours if side == "ours" else LmEval)(request))
        return made[0].handle(request)

    serve(handle)


if __name__ == "__main__":
    main()
