"""`<out>/SUMMARY.md`: the machine, what became of every step, and the headline against its targets.

    python tests/gpu/summary.py OUT

Made of `<out>/<step>.json` alone, after every step, so that what ends early leaves one as well. Standard
library only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = tuple[str, str, str, str]
"""What, target, found, met."""
NAME = "SUMMARY.md"
GB = 1e9


def write(out: Path) -> None:
    """Write the summary of a folder of results."""
    (out / NAME).write_text(text(records(out)), encoding="utf-8")


def records(out: Path) -> dict[str, dict[str, Any]]:
    """Return the last record of every step, in the order in which steps were first done."""
    lines = (out / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


def text(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the summary."""
    parts = ["# Results of tests/gpu/run.sh"]
    if any(record.get("rehearsed") for record in steps.values()):
        parts.append("**A rehearsal on a CPU with tiny models: these figures mean nothing.**")
    parts.append(_machine(found(steps, "environment"), found(steps, "versions")))
    if rows := list(headline(steps)):
        parts.append("## Headline\n\n" + _table(("what", "target", "found", "met"), rows))
    for title, header, lines in (
        ("Decoding one sequence", ("model", "arm", "tokens/s", "share of a copy"), decode_rows(steps)),
        ("10,000 tokens in 24 GB", POINT_HEADER, point_rows(steps, "article_24gb")),
        ("Throughput by batch", POINT_HEADER, point_rows(steps, "figure8_right")),
        ("Peak memory by length", POINT_HEADER, point_rows(steps, "memory_by_length")),
        ("A scan and attention by themselves", POINT_HEADER, point_rows(steps, "figure8_left")),
    ):
        if body := list(lines):
            parts.append(f"## {title}\n\n{_table(header, body)}")
    if crossovers := found(steps, "scan_crossover").get("crossover_tokens"):
        lengths = [(name, f"{n:,}" if n else "never") for name, n in crossovers.items()]
        title = "## From which length mamba_ssm's scan is faster"
        parts.append(f"{title}\n\n{_table(('scan', 'tokens'), lengths)}")
    status = [(n, r["status"], f"{r['wall_s']:.0f} s", str(r.get("why", ""))) for n, r in steps.items()]
    parts.append("## Steps\n\n" + _table(("step", "status", "took", "why"), status))
    return "\n\n".join(parts) + "\n"


def found(steps: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return what a step found; empty if it was not done."""
    return dict(steps.get(name, {}).get("found") or {})


def headline(steps: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the rows of the headline's table, of the steps that were done."""
    for step, what in (("engine_vs_lm_eval", "four tasks"), ("mmlu_vs_lm_eval", "MMLU 5-shot")):
        figures = found(steps, step)
        if "together" in figures:
            yield from _engine(figures, what)
    figures = found(steps, "decode_vs_official")
    for model, of_model in figures.items():
        if isinstance(of_model, dict) and "best_arm" in of_model:
            yield from _decode(model, of_model, figures)
    yield from _throughput(found(steps, "figure8_right").get("points", []))


def _throughput(points: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield how many times the second model's throughput the first has, batch by batch and at best."""
    speeds: dict[str, dict[int, float]] = {}
    for point in points:
        if point.get("e2e_tokens_per_s"):
            of_model = speeds.setdefault(point["model"], {})
            batch = point["batch_size"]
            of_model[batch] = max(point["e2e_tokens_per_s"], of_model.get(batch, 0.0))
    if len(speeds) != 2:
        return
    (first, mine), (second, other) = sorted(speeds.items())
    each = [f"{b}: {mine[b] / other[b]:.2f}" for b in sorted(mine.keys() & other.keys())]
    best = max(mine.values()) / max(other.values())
    words = f"{best:.2f} times at the best batch of each; by batch {', '.join(each)}"
    yield f"throughput of {first} against {second}, prompt included", "the paper: 4 to 5 times", words, ""


def _engine(figures: Mapping[str, Any], what: str) -> Iterator[Row]:
    at_least, aim = figures["at_least"], figures["aim"]
    n = figures["documents_per_task"]
    together = figures["together"]
    ratio = together["times_as_fast"]
    target = f"at least {at_least:g} times, aim {aim:g}"
    met = "aim" if ratio >= aim else "yes" if ratio >= at_least else "no"
    title = f"engine against lm-eval's {figures['backend']}, {what}, up to {n} documents each"
    yield title, target, _times(together), met
    yield "... with imports, loading and the certificate", "", _times(figures["with_loading"]), ""
    if len(figures["by_unit"]) > 1:
        for size, (unit, of_unit) in zip(figures["batch_sizes"], figures["by_unit"].items(), strict=True):
            yield f"... {unit} by itself, lm-eval's batch {size}", "", _times(of_unit), ""
    if agreement := figures.get("agreement"):
        words = (
            f"{agreement['our_rms_error_nats']:.2g} against {agreement['their_rms_error_nats']:.2g} nats "
            f"of {agreement['n_held_against_float32']} log-likelihoods"
        )
        same = agreement["same_choice_share"]
        words += "" if same is None else f"; same choice {same:.1%}"
        yield (
            f"... its error beside lm-eval's, {figures['dtype']} against float32", "at most 1.5 times", words,
            "yes" if agreement["agrees"] else "no",
        )  # fmt: skip


def _times(figures: Mapping[str, Any]) -> str:
    low, high = figures["range"]
    n = f"{len(figures['lm_eval_s'])} and {len(figures['ours_s'])} passes"
    return f"{figures['times_as_fast']:.2f} times ({low:.2f} to {high:.2f}; {n})"


def _decode(model: str, figures: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[Row]:
    arm = figures["best_arm"]
    if "times_as_fast" in figures:
        ratio = figures["times_as_fast"]
        yield (
            f"{model}, batch 1, {arm} against generate(cg=True)", f"at least {targets['at_least']:g} times",
            f"{ratio:.2f} times", "yes" if ratio >= targets["at_least"] else "no",
        )  # fmt: skip
    share = figures["ceiling_share"]
    if share is not None:
        aim = targets["share_aim"]
        yield (
            f"{model}, batch 1, {arm}: share of what a copy reaches", f"aim {aim:.0%}", f"{share:.1%}",
            "yes" if share >= aim else "no",
        )  # fmt: skip


def decode_rows(steps: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield every arm's speed, and official's."""
    for model, figures in found(steps, "decode_vs_official").items():
        if not isinstance(figures, dict) or "arms" not in figures:
            continue
        for arm, of_arm in figures["arms"].items():
            speed = of_arm["tokens_per_s"]
            words = f"{speed:.1f}" if speed else f"{of_arm['status']}: {of_arm['detail']}"
            yield model, arm, words, _percent(of_arm["ceiling_share"])
        speeds = figures.get("official", {}).get("tokens_per_s", [])
        if speeds:
            words = " and ".join(f"{speed:.1f}" for speed in speeds)
            yield model, "official generate", words, _percent(figures.get("official_ceiling_share"))


POINT_HEADER = (
    "model", "arm", "attention", "batch", "prompt", "peak GB", "first token", "decode tokens/s",
    "whole tokens/s", "status",
)  # fmt: skip


def point_rows(steps: Mapping[str, Mapping[str, Any]], step: str) -> Iterator[tuple[str, ...]]:
    """Yield the points of a sweep."""
    points: Sequence[Mapping[str, Any]] = found(steps, step).get("points", [])
    order = sorted(points, key=lambda p: (p["batch_size"], p["prompt_len_tokens"]))
    for p in order:
        yield (
            p["model"],
            p["arm"],
            p["attention"],
            str(p["batch_size"]),
            f"{p['prompt_len_tokens']:,}",
            _number(p.get("peak_bytes"), 1 / GB, "{:.2f}"),
            _number(p.get("least_ttft_s"), 1e3, "{:.2f} ms"),
            _number(p.get("decode_tokens_per_s"), 1, "{:.1f}"),
            _number(p.get("e2e_tokens_per_s"), 1, "{:.1f}"),
            p["status"] if p["status"] == "ok" else f"{p['status']}: {p.get('why', '')}",
        )


def _number(value: float | None, scale: float, form: str) -> str:
    return "" if value is None else form.format(value * scale)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _machine(environment: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    packages = versions.get("packages") or environment.get("packages") or {}
    memory = environment.get("memory_bytes")
    lines = [
        f"- card: {environment.get('card', 'not looked at')}"
        + (f", {memory / GB:.0f} GB" if memory else "")
        + (f", compute capability {environment['capability']}" if "capability" in environment else ""),
        f"- driver: {environment.get('driver', 'not looked at')}; CUDA of torch "
        f"{environment.get('torch_cuda')}, of nvcc {environment.get('nvcc_release', 'none')}",
        f"- Python {environment.get('python', '?')}, {environment.get('cores', '?')} cores, "
        f"{environment.get('platform', '')}",
        f"- packages: {', '.join(f'{name} {version}' for name, version in packages.items())}",
    ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header)]
    # A reason may hold what a table takes for its own.
    lines += [[" ".join(cell.replace("|", "/").split()) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print((Path(sys.argv[1]) / NAME).read_text(encoding="utf-8"))
