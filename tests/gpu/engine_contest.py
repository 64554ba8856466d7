"""`mambabench zeroshot` against `lm_eval --model mamba_ssm`: how many times as fast, and whether they agree.

Each side is a process of its own that stays, so that a pass costs no loading; loading is timed apart. lm-eval
gets its fastest batch size for each task, found on part of the documents; ours its own memory budget or a
larger one, whichever is faster. Then both answer the same documents, as many as fit the time given, in the
order A B B A as often as time allows. lm-eval is timed with its own defaults.

Two programs that compute in bfloat16 differ. So both are held against lm-eval in float32, over the same
weights, with lm-eval's softmax in float32 as ours is: they agree if the root-mean-square error of our
log-likelihoods is at most 1.5 times lm-eval's.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_figures import documents_that_fit, ratios, reference_documents
from performance.children import Child, ChildError, our_environment, their_environment
from sample_errors import errors

SIZES = (8, 16, 32, 64, 128, 256)
SLICE_REQUESTS = 512
"""Of each task, to find the best batch size on."""
WORSE = 1.15
"""A batch size that takes so much longer ends the search."""
LARGER_BUDGET_BYTES = 24 * 2**30
RESERVE_S = 30.0
"""For float32, beside another loading, and for closing."""
_SHARE_OF_A_TRY = 1 / 40
"""Of all the time, that a try of one batch size may take."""
MOST_BLOCKS = 3
_ORDER = ("lm-eval", "ours", "ours", "lm-eval")

Say = Callable[..., None]


@dataclass(frozen=True)
class Contest:
    """What is compared.

    Args:
        units: tasks that lm-eval answers in one pass with one batch size.
        num_fewshot: worked examples; null for the tasks' own.
        model: directory of the checkpoint.
        twin: the same checkpoint for lm-eval where it takes another format.
        data: as `--data-dir` takes it.
        work: where runs are left.
        device: "cuda" or "cpu".
        dtype: of both sides.
        backend: lm-eval's.
        standins: null, or where mamba_ssm's compiled parts are replaced the folder of its Python code, "" if
            it is installed.
        seconds: for everything.
        documents: most of each task; null for as many as fit.
        sizes: lm-eval's batch sizes to try.
    """

    units: tuple[tuple[str, ...], ...]
    num_fewshot: int | None
    model: Path
    twin: Path
    data: Path
    work: Path
    device: str
    dtype: str
    backend: str
    standins: str | None
    seconds: float
    documents: int | None
    sizes: tuple[int, ...] = SIZES
    slice_requests: int = SLICE_REQUESTS
    budgets: tuple[int | None, ...] = (None, LARGER_BUDGET_BYTES)
    blocks: int = MOST_BLOCKS

    @property
    def tasks(self) -> list[str]:
        """All tasks."""
        return [task for unit in self.units for task in unit]

    def start(self, side: str) -> Child:
        """Start a side; it waits for `load`."""
        environment = our_environment() if side == "ours" else their_environment()
        if side == "lm-eval" and self.standins:
            environment["PYTHONPATH"] = os.pathsep.join([self.standins, environment["PYTHONPATH"]])
        script = Path(__file__).with_name("engine_sides.py")
        return Child([sys.executable, str(script), side], environment)

    def loading(self, side: str, dtype: str) -> dict[str, Any]:
        """Return the request that lets a side load."""
        return {
            "do": "load", "tasks": self.tasks, "num_fewshot": self.num_fewshot, "data_dir": str(self.data),
            "model": str(self.model if side == "ours" else self.twin), "device": self.device, "dtype": dtype,
            "backend": self.backend, "standins": self.standins is not None,
            "scratch": str(self.work / "scratch"),
        }  # fmt: skip


def hold(contest: Contest, say: Say) -> bool:
    """Do all of it, telling figures as they are found.

    Args:
        contest: what to compare.
        say: takes figures by name.

    Returns:
        Whether the two sides agree.
    """
    began_s = time.monotonic()

    def left_s() -> float:
        return contest.seconds - (time.monotonic() - began_s)

    sides: dict[str, Child] = {}
    load_s: dict[str, float] = {}
    with ExitStack() as open_sides:
        for name in ("ours", "lm-eval"):
            # One after the other, as each would be by itself; imports are part of it.
            loading_s = time.monotonic()
            sides[name] = open_sides.enter_context(contest.start(name))
            loaded = sides[name].ask(**contest.loading(name, contest.dtype))
            load_s[name] = time.monotonic() - loading_s
            say(**{f"{name}_loaded": {"load_s": load_s[name], **loaded}})

        def restart() -> Child:
            sides["lm-eval"].close()
            sides["lm-eval"] = open_sides.enter_context(contest.start("lm-eval"))
            sides["lm-eval"].ask(**contest.loading("lm-eval", contest.dtype))
            return sides["lm-eval"]

        documents = loaded["documents"]
        sizes, each_s = _best_sizes(contest, sides["lm-eval"], restart, documents, left_s, say)
        budget, ours_s = _best_budget(contest, sides["ours"], documents, say)
        reserve_s = RESERVE_S + load_s["lm-eval"]
        n = documents_that_fit(
            contest.documents, max(documents.values()), left_s() - reserve_s,
            lambda limit: sum(min(limit, documents[t]) * (each_s[t] + ours_s) for t in contest.tasks),
        )  # fmt: skip
        say(documents_per_task=n, of_documents=documents)
        passes = _in_turns(contest, sides, n, sizes, budget, lambda: left_s() - reserve_s, say)
        say(batch_sizes=sizes, memory_bytes=budget, **ratios(passes, contest.units, load_s))
        seconds = left_s() - load_s["lm-eval"] - RESERVE_S / 2
        n = min(n, reference_documents(seconds, sum(each_s.values())))
        wide = _wider(contest, sides, n, sizes, budget)
    return _agreement(contest, passes, wide, sizes, say)


def _best_sizes(
    contest: Contest, theirs: Child, restart: Callable[[], Child], documents: Mapping[str, int],
    left_s: Callable[[], float], say: Say,
) -> tuple[list[int], dict[str, float]]:  # fmt: skip
    """Return lm-eval's fastest batch size for each unit, and its seconds a document of each task.

    The search ends early where it would take more than half of all the time. A batch size that breaks the
    process ends it as well, and another process goes on.
    """
    chosen: list[int] = []
    each_s: dict[str, float] = {}
    for unit in contest.units:
        # Kernels are compiled in the first.
        for _ in range(2):
            warm = _lm_eval(theirs, unit, 2, contest.sizes[0])
            if "oom" in warm:
                sys.exit(f"lm-eval runs out of memory with batch size {contest.sizes[0]}: {warm['oom']}")
        n_warm = sum(min(2, documents[task]) for task in unit)
        limit = math.ceil(contest.slice_requests / (warm["requests"] / n_warm) / len(unit))
        in_time = contest.seconds * _SHARE_OF_A_TRY / (warm["wall_s"] / n_warm * len(unit))
        limit = min(limit, max(2, int(in_time)))
        limit = min(limit, max(documents[task] for task in unit), contest.documents or limit)
        tried: list[dict[str, Any]] = []
        for size in contest.sizes:
            if tried and left_s() < contest.seconds / 2:
                break
            try:
                found = _lm_eval(theirs, unit, limit, size)
            except ChildError as error:
                if not tried:
                    raise
                tried.append({"batch_size": size, "failed": str(error).splitlines()[0]})
                theirs = restart()
                break
            if "oom" in found:
                tried.append({"batch_size": size, "oom": found["oom"]})
                break
            tried.append({"batch_size": size, "wall_s": found["wall_s"], "requests": found["requests"]})
            if found["wall_s"] > WORSE * min(t["wall_s"] for t in tried if "wall_s" in t):
                break
            if size >= found["requests"]:
                break
        done = [t for t in tried if "wall_s" in t]
        if not done:
            sys.exit(f"lm-eval runs out of memory with batch size {contest.sizes[0]}: {tried[0]['oom']}")
        best = min(done, key=lambda t: float(t["wall_s"]))
        chosen.append(int(best["batch_size"]))
        counted = sum(min(limit, documents[task]) for task in unit)
        each_s |= dict.fromkeys(unit, float(best["wall_s"]) / counted)
        say(**{f"search {'+'.join(unit)}": {"documents": limit, "best": chosen[-1], "tried": tried}})
    return chosen, each_s


def _best_budget(
    contest: Contest, ours: Child, documents: Mapping[str, int], say: Say
) -> tuple[int | None, float]:
    """Return our faster memory budget, and the seconds of a document."""
    limit = min(max(1, contest.slice_requests // 4), contest.documents or max(documents.values()))
    ours.ask(do="answer", tasks=contest.tasks, documents=2)
    tried = []
    for budget in contest.budgets:
        found = ours.ask(do="answer", tasks=contest.tasks, documents=limit, memory_bytes=budget)
        keys = ("wall_s", "oom", "peak_bytes", "requests", "tokens_forwarded")
        tried.append({"memory_bytes": budget, **{k: found[k] for k in keys if k in found}})
    done = [t for t in tried if "wall_s" in t]
    if not done:
        sys.exit("mambabench runs out of memory")
    best = min(done, key=lambda t: float(t["wall_s"]))
    say(budgets={"documents": limit, "best": best["memory_bytes"], "tried": tried})
    counted = sum(min(limit, n) for n in documents.values())
    return best["memory_bytes"], float(best["wall_s"]) / counted


def _in_turns(
    contest: Contest, sides: Mapping[str, Child], n: int, sizes: list[int], budget: int | None,
    left_s: Callable[[], float], say: Say,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Let both sides answer everything in the order A B B A, once and then as often as time allows.

    A batch size that turns out too large is halved in `sizes`.
    """
    passes: dict[str, list[dict[str, Any]]] = {"lm-eval": [], "ours": []}
    block_s = 0.0
    for block in range(contest.blocks):
        if block and left_s() < block_s:
            break
        began_s = time.monotonic()
        for i, side in enumerate(_ORDER):
            if i >= 2 and left_s() < 0:
                break
            first = not passes[side]
            if side == "lm-eval":
                found = _theirs_whole(contest, sides[side], n, sizes, first=first)
            else:
                found = _ours_whole(contest, sides[side], n, budget, first=first)
            passes[side].append(found)
            brief = {key: value for key, value in found.items() if key != "samples"}
            say(**{f"pass {4 * block + i} {side}": {**brief, "load_average": os.getloadavg()[0]}})
        block_s = time.monotonic() - began_s
    return passes


def _theirs_whole(contest: Contest, child: Child, n: int, sizes: list[int], *, first: bool) -> dict[str, Any]:
    units: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    runs: list[str] = []
    for i, unit in enumerate(contest.units):
        keep = contest.work / f"lm-eval-{'+'.join(unit)[:40]}" if first else None
        found = _lm_eval(child, unit, n, sizes[i], samples=True, keep=keep)
        while "oom" in found and sizes[i] > 1:
            # Of all documents some are longer than those that the size was found on.
            sizes[i] //= 2
            found = _lm_eval(child, unit, n, sizes[i], samples=True, keep=keep)
        if "oom" in found:
            sys.exit(f"lm-eval runs out of memory with one request: {found['oom']}")
        units.append({"tasks": unit, "batch_size": sizes[i], **_timed(found)})
        samples |= found["samples"]
        runs += [found["run"]] if keep else []
    return {"wall_s": sum(u["wall_s"] for u in units), "units": units, "runs": runs, "samples": samples}


def _ours_whole(contest: Contest, child: Child, n: int, budget: int | None, *, first: bool) -> dict[str, Any]:
    """Answer all tasks in one run, as the command does; then, if there are several units, each by itself."""

    def ask(tasks: Sequence[str], **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = child.ask(
            do="answer", tasks=list(tasks), documents=n, memory_bytes=budget, **more
        )
        return found

    whole = ask(contest.tasks, samples=True, keep=str(contest.work / "ours") if first else None)
    apart = [whole] if len(contest.units) == 1 else [ask(unit) for unit in contest.units]
    units = [{"tasks": unit, **_timed(found)} for unit, found in zip(contest.units, apart, strict=True)]
    samples = whole["samples"]
    return {**_timed(whole), "units": units, "runs": [whole["run"]] if first else [], "samples": samples}


def _lm_eval(
    child: Child, tasks: Sequence[str], documents: int, size: int, *, samples: bool = False,
    keep: Path | None = None, softmax_dtype: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = child.ask(
        do="answer", tasks=list(tasks), documents=documents, batch_size=size, samples=samples,
        keep=None if keep is None else str(keep), softmax_dtype=softmax_dtype,
    )  # fmt: skip
    return found


def _timed(found: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("wall_s", "requests", "peak_bytes", "tokens_forwarded")
    return {key: found[key] for key in keys if key in found}


def _wider(
    contest: Contest, sides: Mapping[str, Child], n: int, sizes: Sequence[int], budget: int | None
) -> dict[str, dict[str, Any]]:
    """Return samples of some documents: ours, and lm-eval's with its softmax in float32, as ours is."""
    ours = sides["ours"].ask(
        do="answer", tasks=contest.tasks, documents=n, memory_bytes=budget, samples=True
    )["samples"]
    return {"ours": ours, "lm-eval": _softmax32(contest, sides["lm-eval"], n, sizes)}


def _softmax32(contest: Contest, child: Child, n: int, sizes: Sequence[int]) -> dict[str, Any]:
    samples: dict[str, Any] = {}
    for unit, size in zip(contest.units, sizes, strict=True):
        found = _lm_eval(child, unit, n, max(1, size // 2), samples=True, softmax_dtype="float32")
        if "oom" in found:
            found = _lm_eval(child, unit, n, contest.sizes[0], samples=True, softmax_dtype="float32")
        samples |= found["samples"]
    return samples


def _agreement(
    contest: Contest, passes: Mapping[str, Sequence[Any]], wide: Mapping[str, Any], sizes: Sequence[int],
    say: Say,
) -> bool:  # fmt: skip
    """Compare every sample, and a part of them with lm-eval in float32."""
    defaults = {side: passes[side][0]["samples"] for side in ("ours", "lm-eval")}
    small = [max(1, size // 4) for size in sizes]
    try:
        with contest.start("lm-eval") as child:
            child.ask(**contest.loading("lm-eval", "float32"))
            exact = _softmax32(contest, child, _most(wide["ours"]), small)
    except ChildError as error:
        say(reference_failed=str(error).splitlines()[0])
        return False
    found = errors(ours=wide["ours"], theirs=wide["lm-eval"], exact=exact)
    as_timed = errors(ours=defaults["ours"], theirs=defaults["lm-eval"], exact=exact)
    say(agreement=found, agreement_with_defaults=as_timed)
    return bool(found["agrees"])


def _most(samples: Mapping[str, Sequence[Any]]) -> int:
    return max(len(rows) for rows in samples.values())
