#!/usr/bin/env bash
# Check and measure mambabench on a machine with an NVIDIA GPU, torch and nvcc, and no network.
#
#   tests/gpu/run.sh --wheels DIR --out DIR [--data DIR] [--steps a,b,c | --group NAME] [--continue]
#   tests/gpu/run.sh --rehearse --out DIR [--data DIR]     all that runs on a CPU, with tiny models, in minutes
#
# DIR of --wheels holds wheels of what mambabench needs beside torch, and the sdists of causal-conv1d and
# mamba-ssm. What is found goes to --out, step by step, and in brief to SUMMARY.md there; `publish.py` takes
# from it what can be shown. A --group fits one loan of ten minutes of a machine. `--dry-run` works anywhere.
# All options, steps and groups: --help.
#
# NOT RUN ON HARDWARE YET, all of it: the build, which was done for a card of 9.0 where there is none, and the
# checks, written against the sources of causal-conv1d 1.7.0 and mamba-ssm 2.3.1 and 2.3.2.post1, and
# dry-run only; of mambabench itself the official model on CUDA, recording and replaying CUDA graphs, times by
# CUDA events, memory by CUDA's allocator and NVML, an emulated budget of a GPU, ceilings of a GPU, and power;
# the Triton kernels, and the doctor's look at a card. On CPUs these were tried with stand-ins: mamba_ssm's
# Python code with its kernels replaced, graphs by calling the recorded function again, Triton's interpreter,
# and false clocks and cards. All steps but the build and the compiled kernels' own checks were rehearsed on a
# CPU with tiny models.
# What the steps measure lies in --out/runs, one folder a step, each a run as mambabench stores it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" "$here/drive.py" "$@"
