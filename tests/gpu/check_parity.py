"""`mambabench zeroshot` on the GPU against the CPU, sample by sample."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compare_samples import compare
from make_checkpoint import write_small
from task_data import task_folder, tasks_there

if TYPE_CHECKING:
    from checks import Figures

DEVICES = ("cpu", "cuda")


def parity(figures: Figures, options: argparse.Namespace) -> None:
    """Run the smoke suite on both devices and compare every sample."""
    checkpoint = write_small(options.work / "checkpoint")
    _compare_devices(figures, options, ["mamba-tiny", str(checkpoint)], ["--suite", "smoke"])


def parity_data(figures: Figures, options: argparse.Namespace) -> None:
    """Run real tasks on both devices and compare every sample."""
    data = task_folder(options.data)
    here = tasks_there(data)
    arguments = [word for task in here for word in ("--task", task)]
    checkpoint = write_small(options.work / "checkpoint")
    _compare_devices(figures, options, ["mamba-tiny", str(checkpoint)], [*arguments, "--data-dir", str(data)])


def _compare_devices(
    figures: Figures, options: argparse.Namespace, models: list[str], arguments: list[str]
) -> None:
    from mambabench.store import StoredRun

    runs = {}
    devices = ("cpu", "cpu") if options.rehearse else DEVICES
    for device in dict.fromkeys(devices):
        command = [sys.executable, "-m", "mambabench", "zeroshot", "--json", "--dtype", "float32"]
        command += ["--device", device, "--limit", str(options.limit), *arguments]
        command += ["--out", str(options.work / "runs" / options.check / device)]
        command += [word for model in models for word in ("--model", model)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            sys.exit(f"zeroshot on {device} ended with exit code {result.returncode}")
        runs[device] = StoredRun(Path(json.loads(result.stdout)["run"]))
    reference, tested = devices
    cells = {
        device: {(cell.model, cell.task.task): cell for cell in run.cells()} for device, run in runs.items()
    }
    agree = cells[reference].keys() == cells[tested].keys() and bool(cells[reference])
    for key in sorted(cells[reference].keys() & cells[tested].keys()):
        pair = [runs[device].read_samples(cells[device][key].fingerprint) for device in (tested, reference)]
        found = compare(*pair)
        agree = agree and found.agrees
        walls = {f"{device}_wall_s": round(cells[device][key].wall_s, 3) for device in cells}
        figures.add(**{" on ".join(key): {**found.as_dict(), **walls}})
    kernel_paths = {name: record.kernel_path for name, record in runs[tested].checkpoints().items()}
    figures.add(agree=agree, cuda_kernels=kernel_paths)
    if not agree:
        sys.exit("the devices differ")
