"""One side of the comparison of engines as a process: lm-eval's own backend, or `mambabench zeroshot`.

    python tests/gpu/engine_sides.py lm-eval      # answers requests on stdin; see performance.children.serve

Both get the same task objects, whose data are the same files. A pass of lm-eval is its `evaluate`, from tasks
to metrics, over a model that stays loaded; a pass of ours is the command's own run over a model that stays
loaded, from tasks to a table on disk, into a folder that is new each time. lm-eval runs with its own
defaults: its cache of logits on, softmax in the model's type, right padding, windows of 2,048 tokens.
"""

from __future__ import annotations

import argparse
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from performance.children import serve


class Side:
    """What both sides have in common.

    Args:
        given: "tasks", names, "num_fewshot", worked examples or null for the tasks' own, "data_dir", "model",
            a directory, "device", "dtype", and for lm-eval "backend": "mamba_ssm" or "hf".
    """

    def __init__(self, given: dict[str, Any]) -> None:
        from mambabench.tasks.offline import prepare

        self.given = given
        suite = self.suite(given["tasks"])
        self.prepared = {p.name: p for p in prepare(suite.tasks, data_dir=Path(given["data_dir"]))}
        self.load()

    def suite(self, names: list[str]) -> Any:
        """Return a suite of some of the tasks."""
        from mambabench.suite import suite_from_tasks

        return suite_from_tasks(names, num_fewshot=self.given["num_fewshot"])

    def load(self) -> None:
        """Load the model."""
        raise NotImplementedError

    def answer(self, names: list[str], limit: int, request: dict[str, Any]) -> dict[str, Any]:
        """Do one pass and return "wall_s" and "samples" by task."""
        raise NotImplementedError

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked: describe what was loaded, or answer."""
        if request["do"] == "load":
            return {
                "documents": {name: p.n_docs_total for name, p in self.prepared.items()},
                **self.described(),
            }
        _reset_peak(self.given["device"])
        try:
            found = self.answer(request["tasks"], request["documents"], request)
        except Exception as error:
            from mambabench.bench.failures import classify

            failure = classify(error)
            if failure.status != "oom":
                raise
            found = {"oom": failure.detail}
        samples = found.pop("samples", {})
        if request.get("samples"):
            found["samples"] = samples
        found["requests"] = sum(len(sample["resps"]) for rows in samples.values() for sample in rows)
        return {**found, "peak_bytes": _peak_bytes(self.given["device"])}

    def described(self) -> dict[str, Any]:
        """Return what was loaded, for the record."""
        raise NotImplementedError


class LmEval(Side):
    """lm-eval with `--model mamba_ssm`, or with `--model hf` where that is rehearsed."""

    def load(self) -> None:
        """Load as `lm_eval --model mamba_ssm --model_args pretrained=DIR,dtype=bfloat16` does."""
        import lm_eval.models  # noqa: F401 - registers the backends
        from lm_eval.api.registry import get_model

        if self.given.get("standins"):
            from models.official_on_cpu import install

            install()
        directory = self.given["model"]
        self.lm = get_model(self.given["backend"])(
            pretrained=directory,
            tokenizer=directory,
            dtype=self.given["dtype"],
            device=self.given["device"],
            batch_size=1,
        )
        self._softmax_dtype = self.lm.softmax_dtype

    def described(self) -> dict[str, Any]:
        """Return the backend and the settings that it chose by itself."""
        model = self.lm.model
        return {
            "implementation": f"{type(model).__module__}.{type(model).__name__}",
            "logits_cache": self.lm.logits_cache,
            "max_length": self.lm.max_length,
            "parameter_dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}),
        }

    def answer(self, names: list[str], limit: int, request: dict[str, Any]) -> dict[str, Any]:
        """Evaluate with the given "batch_size"; with "softmax_dtype", in that type instead of its own."""
        import torch
        from lm_eval.evaluator import evaluate

        self.lm.batch_size_per_gpu = request["batch_size"]
        wider = request.get("softmax_dtype")
        self.lm.softmax_dtype = getattr(torch, wider) if wider else self._softmax_dtype
        began_s = time.perf_counter()
        # Its bootstrap is no part of what is compared: ours has none.
        results = evaluate(
            lm=self.lm,
            task_dict={"tasks": {name: self.prepared[name].task for name in names}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
        _wait(self.given["device"])
        found: dict[str, Any] = {"wall_s": time.perf_counter() - began_s}
        samples = results.pop("samples")
        # Before they are written, which turns their numbers into text.
        found["samples"] = _brief(samples)
        if request.get("keep"):
            found["run"] = self._stored(results, samples, Path(request["keep"]), limit)
        return found

    def _stored(self, results: Any, samples: Any, folder: Path, limit: int) -> str:
        """Write lm-eval's own files and make a run of them; return the run's name."""
        from lm_eval.loggers import EvaluationTracker

        from mambabench.importers.write import ImportOptions, import_results

        files = folder.parent / f"{folder.name}-files"
        shutil.rmtree(files, ignore_errors=True)
        tracker = EvaluationTracker(output_path=str(files))
        name = Path(self.given["model"]).name
        tracker.general_config_tracker.log_experiment_args(
            model_source=self.given["backend"],
            model_args=f"pretrained={name}",
            system_instruction=None,
            chat_template=None,
            fewshot_as_multiturn=False,
        )
        results["config"] = {
            "model": self.given["backend"],
            "model_args": f"pretrained={name},dtype={self.given['dtype']}",
            "limit": limit,
            "bootstrap_iters": 0,
        }
        results["date"] = time.time()
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
        options = ImportOptions(out=folder, name=f"lm-eval-{name}", command=("mambabench", "import"))
        outcome = import_results((files,), options)
        shutil.rmtree(files)
        return outcome.path.name


class Ours(Side):
    """`mambabench zeroshot`."""

    def load(self) -> None:
        """Load as the command does, the certificate included."""
        from mambabench.execute import check_zeroshot
        from mambabench.models import ready

        checked = check_zeroshot(self._options(self.given["tasks"], None, Path(self.given["scratch"])), [])
        (self.plan,) = checked.plans
        self.model = ready.ready(self.plan, verify=True)
        # Runs below take the model that is there.
        vars(ready)["ready"] = lambda plan, **_: self.model

    def described(self) -> dict[str, Any]:
        """Return whose code runs the model, and how it compared with the model as shipped."""
        record = self.model.record
        certificate = record.certificate
        return {
            "implementation": record.implementation,
            "kernels": record.kernel_path,
            "certificate": None if certificate is None else certificate.model_dump(mode="json"),
            "dtypes": record.dtypes,
            "max_length": self.plan.max_length,
        }

    def _options(self, names: list[str], limit: int | None, out: Path, memory: int | None = None) -> Any:
        from mambabench.zeroshot import ZeroshotOptions

        return ZeroshotOptions(
            models=(self.given["model"],),
            suite=self.suite(names),
            out=out,
            data_dir=Path(self.given["data_dir"]),
            limit=limit,
            dtype=self.given["dtype"],
            device=self.given["device"],
            memory_budget_bytes=memory,
        )

    def answer(self, names: list[str], limit: int, request: dict[str, Any]) -> dict[str, Any]:
        """Run the command; "memory_bytes" replaces its own budget, "keep" names the folder of the run."""
        from mambabench.execute import run_zeroshot
        from mambabench.store import StoredRun
        from mambabench.zeroshot import Checked

        keep = request.get("keep")
        out = Path(keep or self.given["scratch"])
        shutil.rmtree(out, ignore_errors=True)
        options = self._options(names, limit, out, request.get("memory_bytes"))
        checked = Checked([self.plan], [self.prepared[name] for name in names])
        began_s = time.perf_counter()
        outcome = run_zeroshot(options, checked=checked)
        _wait(self.given["device"])
        wall_s = time.perf_counter() - began_s
        outcome.raise_for_failures()
        run = StoredRun(outcome.path)
        samples = _brief({cell.task.task: run.read_samples(cell.fingerprint) for cell in outcome.cells})
        tokens = sum(cell.n_tokens_forwarded for cell in outcome.cells)
        if keep is None:
            shutil.rmtree(out)
        found = {} if keep is None else {"run": outcome.path.name}
        return {"wall_s": wall_s, "samples": samples, "tokens_forwarded": tokens, **found}


def _brief(samples: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what is compared of samples by task."""
    return {
        task: [
            {
                "doc_id": sample["doc_id"],
                "filter": sample["filter"],
                "resps": [[float(answer[0][0]), bool(answer[0][1])] for answer in sample["resps"]],
            }
            for sample in rows
        ]
        for task, rows in samples.items()
    }


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def _reset_peak(device: str) -> None:
    """Give back what the last pass kept, which the other side may need, and begin a new peak."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    return int(peak)


def main() -> None:
    """Answer requests."""
    parser = argparse.ArgumentParser(description="One side of a comparison, asked over stdin.")
    parser.add_argument("side", choices=["ours", "lm-eval"])
    kind = Ours if parser.parse_args().side == "ours" else LmEval
    warnings.simplefilter("ignore")
    made: list[Side] = []

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(kind(request))
        return made[0].handle(request)

    serve(handle)


if __name__ == "__main__":
    main()
