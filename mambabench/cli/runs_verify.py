"""`mambabench runs verify`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mambabench.cli.options import print_json
from mambabench.cli.run_options import AS_JSON, OUT
from mambabench.cli.runs_list import shown

if TYPE_CHECKING:
    from mambabench.compare.verify import Verified

_BYTES_IN_UNIT = 1_000_000


@click.command(
    name="verify",
    short_help="Check that runs say what their files hold; seal them.",
    epilog="""\b
Exit codes:
  0  all that could be checked agrees
  1  something does not agree
  2  no such run
  4  nothing could be checked

\b
Examples:
  mambabench runs verify
  mambabench runs verify zeroshot-smoke-mamba-tiny-75c8b06c --seal
  cd results/zeroshot-smoke-mamba-tiny-75c8b06c && sha256sum -c SHA256SUMS
""",
)
@click.argument("runs", nargs=-1, metavar="[RUN...]")
@click.option(
    "--seal",
    is_flag=True,
    help="Write the sha256 of all files into each run that agrees, as SHA256SUMS, to check from then on.",
)
@OUT
@AS_JSON
def command(runs: Sequence[str], seal: bool, out: Path, as_json: bool) -> int:
    """Check each RUN, by default all under results/, and say what was compared with what.

    \b
    records      every manifest and record can be read and is of this schema
    samples      they are as many as their records say, and give the recorded values
    requests     the digest of what was asked, computed again
    rows         of long context: they give the recorded figures
    processes    of sweeps: each stands once
    answers      every log and segment can be read and belongs where it lies
    checkpoints  their files have the recorded sha256, where they are still on this machine
    sources      likewise the files that were imported
    seal         no file was changed, lost or added since `--seal`

    A run that went on after it was sealed is said to be so: then files were added, and no result changed.
    """
    from mambabench.compare.verify import n_bytes_of, verify_run
    from mambabench.errors import MissingError
    from mambabench.progress import progress
    from mambabench.store.manage import checked_runs, find_place
    from mambabench.tables.runs import render_verified, verified_rows

    paths = checked_runs(runs, out) if runs else list(find_place(out).runs)
    if not paths:
        raise MissingError(f"there is no run in {shown(str(out))}", hint="`--out DIR` looks elsewhere.")
    found: list[Verified] = []
    total = sum(map(n_bytes_of, paths)) // _BYTES_IN_UNIT
    with progress(total, "verify", unit="MB") as bar:
        count = _in_units(bar.advance)
        for path in paths:
            name = shown(path.name)

            def stage(text: str, name: str = name) -> None:
                bar.stage(f"{name}  {text}")

            found.append(verify_run(path, advance=count, stage=stage))
    sealed = {one.path: _sealed(one) for one in found} if seal else {}
    if as_json:
        rows = verified_rows(found)
        print_json(
            {"runs": [r | ({"sealed": sealed[o.path]} if seal else {}) for r, o in _pairs(rows, found)]}
        )
    else:
        for one in found:
            render_verified(one, sys.stdout)
            if seal:
                click.echo(f"  {shown(sealed[one.path])}")
        click.echo(_summary(found))
    if any(one.differs for one in found):
        return 1
    if not any(one.n_checked for one in found):
        raise MissingError("nothing could be checked", hint="Wait until what writes these runs has ended.")
    return 0


def _pairs(rows: list[dict[str, object]], found: list[Verified]) -> list[tuple[dict[str, object], Verified]]:
    return list(zip(rows, found, strict=True))


def _in_units(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Return what adds up bytes and tells of whole units."""
    rest = 0

    def count(n_bytes: int) -> None:
        nonlocal rest
        rest += n_bytes
        if units := rest // _BYTES_IN_UNIT:
            rest -= units * _BYTES_IN_UNIT
            advance(units)

    return count


def _sealed(one: Verified) -> str:
    """Seal a run that agrees, and say what became of it."""
    from mambabench.store.lock import held
    from mambabench.store.seal import SEAL, write_seal

    if one.written_by:
        return "not sealed: it is being written"
    if any(check.outcome == "differs" and check.what != "seal" for check in one.checks):
        return "not sealed: see what does not agree"
    if one.differs:
        return f"not sealed: it is not as it was sealed; if that is right, delete its {SEAL} first"
    with held(one.path):
        n_files = write_seal(one.path)
    return f"sealed: {n_files:,} files in {SEAL}"


def _summary(found: Sequence[Verified]) -> str:
    differing = [one for one in found if one.differs]
    unchecked = [one for one in found if not one.checks]
    n = len(found)
    text = f"{n:,} {'run' if n == 1 else 'runs'}: "
    text += (
        f"{len(differing):,} with something that does not agree"
        if differing
        else "all that was checked agrees"
    )
    return text + (f", {len(unchecked):,} not checked" if unchecked else "")
