"""A sweep from names to a table: check everything, start what is missing, keep every record.

options = SpeedOptions("latency", (Block(("mamba-tiny",), (128,), (64,), (1,)),))
outcome = run_sweep(options)
outcome.table.rows[0].tpot_s.value

This process never computes: it lays out points, starts one process at a time, waits without spinning and
stores what each leaves the moment it ends. The same sweep again goes on with what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.bench import devices
from mambabench.bench.jobs import CeilingsJob, CertifyJob, Job, MeasureJob, PowerJob
from mambabench.bench.points import Step, smaller_failure
from mambabench.launch.process import run_child
from mambabench.progress import Progress, progress
from mambabench.schema import CertificateRecord
from mambabench.speed_schema import CeilingsRecord, PointRecord, PowerRecord, ReplicateRecord, Status
from mambabench.store import Store
from mambabench.sweep.heard import Heard
from mambabench.sweep.options import DONE, SpeedOptions, SpeedOutcome, SpeedPlan, described, n_cores
from mambabench.sweep.plan import forecast, make_plan

if TYPE_CHECKING:
    from mambabench.store import RunDir

_UNCOMPARED: Final = "shipped"
"""The arm that others are compared with."""
_FIRST_ROUND, _LAST_ROUND = 0, 1
_CEILINGS_LIMIT_S = 300.0
_CERTIFY_LIMIT_S = 1800.0
_POWER_LIMIT_S = 600.0
_OWN_LIMIT_S = 300.0
_LIMIT_PER_MAX_TIME = 10.0
# Of what a point is expected to take by itself: a single prefill may be longer than all repeats should be.
_LIMIT_PER_FORECAST = 4.0
_FREE_SHARE = 0.95


def child_command() -> tuple[str, ...]:
    """Return the command of a measuring process.

    It finds modules in the current directory only where this process does: a folder there that happens to
    have a library's name must not take its place.
    """
    here = not {"", str(Path.cwd())}.isdisjoint(sys.path)
    return (sys.executable, *(() if here else ("-P",)), "-m", "mambabench.bench.child")


def run_sweep(options: SpeedOptions, *, child: Sequence[str] | None = None) -> SpeedOutcome:
    """Measure every point of a sweep, finishing an interrupted one of the same options.

    Args:
        options: what to measure.
        child: command of a measuring process; another one in tests.

    Raises:
        MambabenchError: before anything is started when the options cannot work; afterwards what goes wrong
            stays in the records of its points.
        KeyboardInterrupt: when interrupted; every record so far is kept.
    """
    plan = make_plan(options)
    with Store(options.out).open_run(plan.manifest()) as run:
        sweep = _Sweep(plan, run, child or child_command())
        sweep.finish()
        return sweep.outcome()


class _Sweep:
    """One call's work on an open run.

    Args:
        plan: what is to be measured.
        run: takes the records.
        child: command of a measuring process.
    """

    def __init__(self, plan: SpeedPlan, run: RunDir, child: Sequence[str]) -> None:
        self._plan = plan
        self._run = run
        self._child = tuple(child)
        self._notes = list(plan.notes)
        fingerprints = {step: plan.fingerprint(step) for step in plan.steps}
        self._fingerprints = fingerprints
        # A damaged file of either kind shows now, not after hours.
        run.ceilings()
        stored = {record.fingerprint: record for record in run.replicates()}
        self._records = {f: stored[f] for f in fingerprints.values() if f in stored}
        self._certificates: dict[str, CertificateRecord | None] = {
            r.point.model: r.certificate for r in self._records.values() if r.certificate is not None
        }
        self._refused: dict[str, str] = {}
        self._n_measured = 0

    def finish(self) -> None:
        """Leave a record of every step, and both rounds of ceilings."""
        missing = [step for step in self._plan.steps if not self._is_done(step)]
        rest = [step for step in missing if step.point not in self._plan.obstacles]
        for step in missing:
            if step.point in self._plan.obstacles:
                self._keep(step, "unsupported", self._plan.obstacles[step.point])
        with progress(len(rest), self._plan.options.kind, unit="processes", left=self._left_s) as bar:
            self._ceilings(_FIRST_ROUND, bar)
            self._certify(rest, bar)
            for step in rest:
                bar.stage(f"{described(step.point)}  process {step.replicate + 1}")
                self._measure(step)
                bar.advance(1)
            self._ceilings(_LAST_ROUND, bar)
            self._power(bar)

    def outcome(self) -> SpeedOutcome:
        """Return what the sweep has now."""
        from mambabench.tables.speed.table import build_speed_table

        plan = self._plan
        records = tuple(self._records[f] for f in self._fingerprints.values() if f in self._records)
        table = build_speed_table(
            plan.options.kind,
            plan.options.title,
            records,
            self._run.ceilings(),
            plan.sizes,
            expected=plan.points,
            n_processes=plan.options.processes,
            n_cores=n_cores(),
        )
        return SpeedOutcome(self._run.path, table, records, self._n_measured, tuple(self._notes))

    def _is_done(self, step: Step) -> bool:
        record = self._records.get(self._fingerprints[step])
        return record is not None and record.status in DONE

    def _measure(self, step: Step) -> None:
        """Fill one step, by a process unless it is known that none is needed."""
        point = step.point
        if point.model in self._refused and point.arm != _UNCOMPARED:
            self._keep(step, "failed", self._refused[point.model])
            return
        failed = [r.point for r in self._records.values() if r.status == "oom"]
        if smaller := smaller_failure(point, failed):
            self._keep(step, "skipped_after_oom", f"{described(smaller)} ran out of memory")
            return
        plan, options = self._plan, self._plan.options
        job = MeasureJob(
            **self._asked_of(point),
            kind=options.kind,
            fingerprint=self._fingerprints[step],
            replicate=step.replicate,
            order=step.order,
            repeats=options.repeats,
            max_time_s=options.max_time_s,
            turn_len_tokens=plan.turn_len_tokens,
            n_forks=plan.settings.n_forks,
            certificate=self._certificates.get(point.model),
        )
        free_bytes = self._host_free_bytes()
        emulated_bytes = options.budget_bytes if plan.device == "cpu" else None
        bounds = [n for n in (free_bytes, emulated_bytes) if n is not None]
        heard = self._start(job, self._limit_s(step), rss_budget_bytes=min(bounds, default=None))
        if free_bytes is not None and (emulated_bytes is None or free_bytes < emulated_bytes):
            heard.free_bytes = free_bytes
        self._n_measured += 1
        sizes = plan.sizes.get(point.model)
        trained = None if sizes is None else sizes.training_length_tokens
        self._store(heard.record(job, training_length_tokens=trained))

    def _asked_of(self, point: PointRecord) -> dict[str, Any]:
        """Return what every job at a point holds."""
        plan, options = self._plan, self._plan.options
        subject = plan.subjects[point.model]
        return {
            "model": subject.typed,
            "name": subject.name,
            "weights": plan.weights,
            "seed": options.seed,
            "dtype": plan.dtype,
            "device": plan.device,
            "point": point,
            "budget_bytes": options.budget_bytes,
            "text": None if options.text is None or subject.is_stand_in else str(options.text),
            "tokenizer": options.tokenizer,
        }

    def _power(self, bar: Progress) -> None:
        """Measure the energy of decoding at each point that was measured, once, and keep it with its first
        process; after all times, since asking a card for its energy takes time."""
        missed: dict[str, list[PointRecord]] = {}
        for point in self._plan.points if self._plan.options.power else ():
            kept = (self._records.get(f) for step, f in self._fingerprints.items() if step.point == point)
            measured = [r for r in kept if r is not None and r.status == "ok"]
            if point.gen_len_tokens < 2 or not measured or any(r.power is not None for r in measured):
                continue
            bar.stage(f"{described(point)}  power")
            heard = self._start(PowerJob(**self._asked_of(point)), _POWER_LIMIT_S, rss_budget_bytes=None)
            self._n_measured += 1
            if "power" in heard.last:
                power = PowerRecord.model_validate(heard.last["power"].get("power"))
                self._store(measured[0].model_copy(update={"power": power}))
                continue
            failure = heard.failure()
            missed.setdefault(f"{failure.status}: {failure.detail}", []).append(point)
        for why, points in missed.items():
            more = f" and {len(points) - 1} more" if len(points) > 1 else ""
            self._notes.append(f"power was not measured of {described(points[0])}{more}: {why}")

    def _keep(self, step: Step, status: Status, detail: str) -> None:
        """Store what became of a step for which no process was started."""
        self._store(
            ReplicateRecord(
                fingerprint=self._fingerprints[step],
                kind=self._plan.options.kind,
                point=step.point,
                replicate=step.replicate,
                order=step.order,
                status=status,
                detail=detail,
            )
        )

    def _store(self, record: ReplicateRecord) -> None:
        self._run.write_replicate(record)
        self._records[record.fingerprint] = record

    def _certify(self, rest: Sequence[Step], bar: Progress) -> None:
        """Compare each model that is still to be timed with the model as shipped, in a process of its own."""
        plan = self._plan
        if not plan.options.verify:
            return
        compared = [step.point for step in rest if step.point.arm != _UNCOMPARED]
        for name in dict.fromkeys(point.model for point in compared):
            subject = plan.subjects[name]
            if subject.is_stand_in or name in self._certificates:
                continue
            bar.stage(f"{name}  comparing with the model as shipped")
            arms = dict.fromkeys((p.arm, p.attention) for p in compared if p.model == name)
            job = CertifyJob(
                model=subject.typed,
                name=subject.name,
                weights=plan.weights,
                seed=plan.options.seed,
                dtype=plan.dtype,
                device=plan.device,
                arms=tuple(arms),
            )
            heard = self._start(job, _CERTIFY_LIMIT_S, rss_budget_bytes=self._host_free_bytes())
            if "certificate" in heard.last:
                found = heard.last["certificate"].get("certificate")
                self._certificates[name] = None if found is None else CertificateRecord.model_validate(found)
                continue
            failure = heard.failure()
            # Of an error that has happened to the comparison itself, what it says alone would not tell.
            why = "" if failure.status == "failed" else f"{failure.status}: "
            what = "did not pass its certificate" if "loaded" in heard.last else "could not be loaded"
            self._refused[name] = f"not timed, as it {what}: {why}{failure.detail}"
            bar.note(f"{name}: {self._refused[name]}")

    def _ceilings(self, number: int, bar: Progress) -> None:
        """Measure what the machine can do, unless this round was measured before or no time is to be held
        against it.
        """
        plan = self._plan
        nothing_timed = not plan.options.repeats or len(plan.obstacles) == len(plan.points)
        if nothing_timed or not plan.options.ceilings or any(c.round == number for c in self._run.ceilings()):
            return
        bar.stage("copies and matrix products of this machine")
        weights = [s.weights_bytes(plan.dtype) for s in plan.sizes.values()]
        job = CeilingsJob(
            device=plan.device, dtype=plan.dtype, weights_bytes_hint=max(weights, default=0), round=number
        )
        heard = self._start(job, _CEILINGS_LIMIT_S, rss_budget_bytes=None)
        if "ceilings" in heard.last:
            self._run.write_ceilings(CeilingsRecord.model_validate(heard.last["ceilings"].get("ceilings")))
            return
        failure = heard.failure()
        self._notes.append(f"the machine's ceilings were not measured: {failure.status}: {failure.detail}")

    def _start(self, job: Job, limit_s: float, *, rss_budget_bytes: int | None) -> Heard:
        heard = Heard()
        asked: dict[str, Any] = job.model_dump(mode="json")
        heard.exit = run_child(
            self._child,
            asked,
            on_event=heard.take,
            time_limit_s=limit_s,
            rss_budget_bytes=rss_budget_bytes,
        )
        return heard

    def _host_free_bytes(self) -> int | None:
        """Return what a process may take on a CPU before the machine begins to swap."""
        return int(_FREE_SHARE * devices.free_bytes()) if self._plan.device == "cpu" else None

    def _limit_s(self, step: Step) -> float:
        """Return a time that only a process that hangs takes."""
        expected = forecast(self._plan, step.point)
        rough_s = 0.0 if expected is None else expected.rough_s
        own_s = _OWN_LIMIT_S + _LIMIT_PER_MAX_TIME * self._plan.options.max_time_s
        return own_s + _LIMIT_PER_FORECAST * rough_s

    def _left_s(self) -> float:
        """Return about how long the rest takes: by like processes that have ended, else by the forecast."""
        rest = [step for step in self._plan.steps if self._fingerprints[step] not in self._records]
        known: dict[Any, list[float]] = {}
        for record in self._records.values():
            if record.wall_s:
                known.setdefault(record.point, []).append(record.wall_s)
        rough = {p: f.rough_s for p in self._plan.points if (f := forecast(self._plan, p)) is not None}
        both = [(sum(v) / len(v), rough[p]) for p, v in known.items() if p in rough]
        # How much longer than forecast processes took.
        factor = sum(took for took, _ in both) / max(sum(said for _, said in both), 1e-9) if both else 1.0
        mean = sum(sum(v) for v in known.values()) / max(sum(map(len, known.values())), 1)
        return sum(
            sum(known[s.point]) / len(known[s.point])
            if s.point in known
            else factor * rough.get(s.point, mean)
            for s in rest
            if s.point not in self._plan.obstacles
        )
