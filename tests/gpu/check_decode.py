"""Decoding one sequence: every arm of mambabench against mamba_ssm's own `generate(cg=True)`.

Official and ours take turns as processes: official, ours, official. Official generates two lengths, which are
subtracted, so that the prompt's forward drops out; ours is `mambabench latency`, which also measures how fast
the card copies, and with that the share of the ceiling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from check_engines import STANDINS, standins

if TYPE_CHECKING:
    from checks import Figures

MODELS = ("mamba-1.4b", "mamba-2.8b")
ARMS = ("graph", "eager", "shipped")
PROMPT_TOKENS = 128
SHORT_TOKENS, LONG_TOKENS, REPEATS = 65, 193, 10
AT_LEAST, SHARE_AIM = 1.0, 0.7
"""Times official's speed, and share of the ceiling."""
_TINY = "mamba-tiny"


def decode_vs_official(figures: Figures, options: argparse.Namespace) -> None:
    """Time both for each model, as far as time goes."""
    began_s = time.monotonic()
    figures.add(batch=1, prompt_tokens=PROMPT_TOKENS, at_least=AT_LEAST, share_aim=SHARE_AIM)
    for i, model in enumerate((_TINY,) if options.rehearse else MODELS):
        took_s = time.monotonic() - began_s
        # The second is twice as large, but most of the time is that of starting.
        if i and options.seconds - took_s < 1.2 * took_s:
            figures.add(**{model: {"why": "no time was left"}})
            continue
        official = [_official(model, options)]
        found: dict[str, Any] = {"arms": _ours(model, options)}
        figures.add(**{model: found})
        official.append(_official(model, options))
        found["official"] = {"tokens_per_s": [o["tokens_per_s"] for o in official if o], "by": official}
        figures.add(**{model: found | compared(found)})
    if not any(arm.get("tokens_per_s") for arm in found["arms"].values()):
        sys.exit("no arm of mambabench was timed")


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Return our fastest arm, how many times official's speed it has, and the shares of the ceiling.

    >>> arms = {"graph": {"tokens_per_s": 300.0, "ceiling_share": 0.75}}
    >>> compared({"arms": arms, "official": {"tokens_per_s": [190.0, 210.0]}})["times_as_fast"]
    1.5
    """
    arms = {name: arm for name, arm in found["arms"].items() if arm.get("tokens_per_s")}
    if not arms:
        return {}
    best = max(arms, key=lambda name: float(arms[name]["tokens_per_s"]))
    ours, share = arms[best]["tokens_per_s"], arms[best]["ceiling_share"]
    result = {"best_arm": best, "ceiling_share": share}
    if found["official"]["tokens_per_s"]:
        theirs = median(found["official"]["tokens_per_s"])
        result |= {"times_as_fast": ours / theirs, "official_ceiling_share": share and share * theirs / ours}
    return result


def _ours(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run `mambabench latency` and return each arm's speed and share of the ceiling."""
    prompt, n = (16, 8) if options.rehearse else (PROMPT_TOKENS, LONG_TOKENS)
    arms = ("eager", "shipped") if options.rehearse else ARMS
    command = [sys.executable, "-m", "mambabench", "latency", "--json", "--model", model]
    command += ["--weights", "random"]
    command += ["--prompt-len", str(prompt), "--gen-len", str(n), "--processes", "1", "--max-time", "5"]
    command += ["--device", "cpu" if options.rehearse else "cuda", "--repeats", "5"]
    command += ["--dtype", "float32" if options.rehearse else "bfloat16"]
    command += ["--out", str(options.work / "runs" / options.check)]
    command += [word for arm in arms for word in ("--arm", arm)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    # 3: some arms were not timed; the rows say why.
    if done.returncode not in (0, 3):
        sys.exit(f"mambabench latency of {model} ended with exit code {done.returncode}")
    rows = json.loads(done.stdout)["table"]["rows"] if done.stdout else []
    return {row["point"]["arm"]: _arm(row) for row in rows}


def _arm(row: dict[str, Any]) -> dict[str, Any]:
    names = {"tokens_per_s": "decode_tokens_per_s", "ceiling_share": "decode_ceiling_share"}
    figures = {mine: row[its] and row[its]["value"] for mine, its in names.items()}
    return {**figures, "status": row["status"], "detail": row["detail"], "kernels": row["kernel_path"]}


def _official(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time official's in a process of its own; empty where a rehearsal has no mamba_ssm."""
    if options.rehearse and standins() is None:
        print(f"skipped: rehearsal without {STANDINS}", flush=True)
        return {}
    found = options.work / "official.found.json"
    command = [sys.executable, str(Path(__file__).with_name("checks.py")), "official_generate"]
    command += ["--found", str(found), "--model", model, *(["--rehearse"] if options.rehearse else [])]
    found.unlink(missing_ok=True)
    done = subprocess.run(command, check=False, env=_environment())
    if done.returncode != 0:
        sys.exit(f"official generate of {model} ended with exit code {done.returncode}")
    figures: dict[str, Any] = json.loads(found.read_text())
    found.unlink()
    return figures


def _environment() -> dict[str, str]:
    folder = standins()
    path = [folder or "", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def official_generate(figures: Figures, options: argparse.Namespace) -> None:
    """Time `generate` of mamba_ssm's model with random weights, by CUDA graph where there is a GPU."""
    import torch

    if options.rehearse:
        from models.official_on_cpu import install

        install()
        # Its loop makes two of them, which it then does not ask.
        vars(torch.cuda)["Event"] = lambda **_: SimpleNamespace(record=lambda: None)
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    from mambabench.registry import load_registry

    sizes = {"d_model": 32, "n_layer": 2, "vocab_size": 304}
    short, long, repeats, prompt_tokens = 3, 6, 2, 8
    if not options.rehearse:
        sizes = dict(load_registry()[options.model].config)
        short, long, repeats, prompt_tokens = SHORT_TOKENS, LONG_TOKENS, REPEATS, PROMPT_TOKENS
    device, graph = ("cpu", False) if options.rehearse else ("cuda", True)
    torch.manual_seed(0)
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    model = MambaLMHeadModel(MambaConfig(**sizes), device=device, dtype=dtype).eval()
    prompt = torch.randint(1, sizes["vocab_size"], (1, prompt_tokens), device=device)
    figures.add(model=options.model, dtype=str(dtype), graph=graph, repeats=repeats)

    def generate(n_tokens: int) -> float:
        _wait(device)
        begun = time.perf_counter()
        ids = model.generate(prompt, max_length=prompt_tokens + n_tokens, cg=graph, eos_token_id=None)
        _wait(device)
        took_s = time.perf_counter() - begun
        if ids.shape[1] != prompt_tokens + n_tokens:
            sys.exit(f"generate made {ids.shape[1] - prompt_tokens} tokens instead of {n_tokens}")
        return took_s

    # The longer first: its graph serves the shorter as well, and is recorded before anything is timed.
    generate(long)
    generate(short)
    tpot_s = [(generate(long) - generate(short)) / (long - short) for _ in range(repeats)]
    peak = None if options.rehearse else torch.cuda.max_memory_allocated()
    figures.add(tpot_s=tpot_s, tokens_per_s=1 / median(tpot_s), peak_bytes=peak)


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
