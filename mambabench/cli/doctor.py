"""`mambabench doctor`."""

from __future__ import annotations

import sys

import click

from mambabench.cli.options import print_json
from mambabench.doctor.finding import PATHS


@click.command(
    name="doctor",
    short_help="Say what is installed, what can run here, and whether it computes right.",
    epilog="""\b
Examples:
  mambabench doctor
  mambabench doctor --quick
  mambabench doctor --path official
  mambabench doctor --json > doctor.json

Exit codes: 0 all that was asked for can be used; 1 a kernel that runs here is wrong; 4 a path given by
--path cannot be used, or a library that every command needs is missing or broken.
""",
)
@click.option("--quick", is_flag=True, help="Look at the installation only: no kernel and no model is run.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=click.Choice(list(PATHS)),
    help="A way of computing that must be usable; may be repeated. Only its kernels are tried then.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(quick: bool, paths: tuple[str, ...], as_json: bool) -> int:
    """Look at libraries, GPU, compilers, machine and Hub; name what is missing, and the command to get it.

    Then every kernel that can run here is held against the same recurrence in float64, and a small model is
    run whole. On a machine without a GPU nothing about CUDA is a mistake. A GPU is chosen by
    CUDA_VISIBLE_DEVICES.

    \b
    cpu       compiled loops of our own on the processor
    official  mamba-ssm's and causal-conv1d's CUDA kernels
    triton    CUDA kernels of our own, which start from a state
    flash     FlashAttention, for Transformers
    """
    from mambabench.doctor.diagnose import diagnose
    from mambabench.doctor.facts import Probes
    from mambabench.doctor.terminal import render, waiting

    with waiting(sys.stderr) as stage:
        diagnosis = diagnose(asked=list(dict.fromkeys(paths)), quick=quick, probes=Probes(), stage=stage)
    if as_json:
        print_json(diagnosis.as_dict())
    else:
        render(diagnosis, sys.stdout)
    return diagnosis.exit_code
