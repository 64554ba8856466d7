"""Children are run, watched and ended; nothing of them is left, and their parent sleeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mambabench.errors import MambabenchError
from mambabench.launch import process as process_module
from mambabench.launch.process import ChildExit, run_child
from mambabench.launch.resident import Resident

MIB = 1 << 20
BEGIN = "from mambabench.launch.inside import begin\nc = begin()\nimport os, sys, time, signal\n"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, a thread or an open file behind."""
    me = psutil.Process()
    children, threads, files = me.children(recursive=True), threading.active_count(), me.num_fds()
    yield
    assert set(me.children(recursive=True)) <= set(children)
    assert threading.active_count() <= threads
    assert me.num_fds() <= files


@pytest.fixture(params=["pidfd", "poll"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with and without a file descriptor that tells of the end."""
    if request.param == "poll":
        monkeypatch.setattr(process_module, "_open_end", lambda pid: None)


def _run(program: str, job: Any = None, **given: Any) -> tuple[ChildExit, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    options: dict[str, Any] = {"on_event": events.append, "time_limit_s": 20.0} | given
    ended = run_child([sys.executable, "-c", BEGIN + program], job or {}, **options)
    return ended, events


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


@pytest.mark.usefixtures("either_way")
def test_a_job_comes_back_in_events() -> None:
    job = {"task": "measure", "text": 'ä "quoted"\nline', "n": [1, 2.5, None]}
    ended, events = _run("c.send({'event': 'a', 'job': c.job})\nc.send({'event': 'b'})\nsys.exit(3)", job)
    assert events == [{"event": "a", "job": job}, {"event": "b"}]
    assert ended.returncode == 3
    assert not ended.timed_out
    assert not ended.over_budget
    assert 0 < ended.wall_s < 10
    assert ended.peak_rss_bytes > MIB


def test_what_is_printed_is_no_event() -> None:
    ended, events = _run(
        "print('{\"event\": \"printed\"}')\nos.system('echo from a shell')\n"
        "os.write(c.fd, b'not json\\n[1, 2]\\n')\nc.send({'event': 'a'})\nos.write(c.fd, b'{\"cut')"
    )
    assert events == [{"event": "a"}]
    lines = ended.stderr_tail.splitlines()
    assert sorted(lines) == sorted(['{"event": "printed"}', "from a shell", "not json", "[1, 2]", '{"cut'])


def test_the_last_thirty_lines_are_kept() -> None:
    ended, _ = _run(
        "for i in range(1000): print('line', i, file=sys.stderr)\n"
        "sys.stderr.write('\\r'.join(f'{i}%' for i in range(20000)))\n"
        "raise ValueError('what happened')"
    )
    lines = ended.stderr_tail.splitlines()
    assert len(lines) == 30
    assert lines[-1] == "ValueError: what happened"
    assert "line 999" in lines
    assert all(len(line) <= 2000 for line in lines)


@pytest.mark.usefixtures("either_way")
def test_a_backlog_of_events_and_errors_does_not_block() -> None:
    program = (
        "big = 'x' * 3_000_000\nc.send({'event': 'big', 'text': big})\n"
        "for i in range(20000):\n"
        "    c.send({'event': 'n', 'i': i})\n"
        "    if i % 20 == 0: print('noise' * 50, file=sys.stderr)\n"
    )
    ended, events = _run(program, {"job": "y" * 1_000_000})
    assert ended.returncode == 0
    assert len(events[0]["text"]) == 3_000_000
    assert [e["i"] for e in events[1:]] == list(range(20000))


def test_what_was_written_just_before_the_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_ready(self: Any, seconds: float) -> list[Any]:
        time.sleep(0.01)
        return []

    monkeypatch.setattr(process_module._Watched, "_select", nothing_ready)
    monkeypatch.setattr(process_module, "_open_end", lambda pid: None)
    ended, events = _run("for i in range(100): c.send({'i': i})\nprint('last words')")
    assert events == [{"i": i} for i in range(100)]
    assert ended.stderr_tail == "last words"


def test_a_child_that_does_not_read_its_job() -> None:
    ended = run_child(
        [sys.executable, "-c", "pass"], {"job": "y" * 1_000_000}, on_event=print, time_limit_s=20
    )
    assert ended.returncode == 0


@pytest.mark.usefixtures("either_way")
def test_the_time_limit_ends_a_child_that_would_go_on() -> None:
    ended, events = _run("c.send({'event': 'a'})\ntime.sleep(60)", time_limit_s=1.0)
    assert ended.timed_out
    assert ended.returncode == -signal.SIGTERM
    assert events == [{"event": "a"}]
    assert 1.0 <= ended.wall_s < 2.9


def test_events_do_not_restart_the_limit() -> None:
    ended, events = _run("while True:\n    c.send({'event': 'a'})\n    time.sleep(0.01)", time_limit_s=1.0)
    assert ended.timed_out
    assert ended.wall_s < 2.9
    assert len(events) > 3


def test_a_child_that_refuses_to_end_is_made_to() -> None:
    ended, events = _run(
        "signal.signal(signal.SIGTERM, lambda *_: c.send({'event': 'asked'}))\nc.send({'event': 'ready'})\n"
        "while True: time.sleep(1)",
        time_limit_s=1.0,
    )
    assert ended.timed_out
    assert ended.returncode == -signal.SIGKILL
    # What it writes while it is asked is still read.
    assert events == [{"event": "ready"}, {"event": "asked"}]
    assert 2.9 < ended.wall_s < 5.5


def test_a_child_that_finishes_when_asked_keeps_its_own_code() -> None:
    ended, _ = _run("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\ntime.sleep(60)", time_limit_s=1.0)
    assert (ended.timed_out, ended.returncode) == (True, 7)


_GROW = (
    "blocks = []\nfor _ in range(40):\n    blocks.append(bytearray(b'1') * (8 << 20))\n    time.sleep(0.03)\n"
)
_BASELINE = (
    "import psutil\nc.send({'event': 'baseline', 'baseline_bytes': psutil.Process().memory_info().rss})\n"
)


def test_memory_above_the_baseline_is_bounded() -> None:
    ended, events = _run(_BASELINE + _GROW, rss_budget_bytes=64 * MIB)
    assert ended.over_budget
    assert not ended.timed_out
    assert ended.returncode == -signal.SIGKILL
    assert ended.baseline_bytes == events[0]["baseline_bytes"]
    above = ended.peak_rss_bytes - events[0]["baseline_bytes"]
    assert 64 * MIB < above < 200 * MIB


def test_a_budget_that_suffices_changes_nothing() -> None:
    program = _BASELINE + "block = bytearray(b'1') * (96 << 20)\ntime.sleep(0.3)\nc.send({'event': 'done'})"
    ended, events = _run(program, rss_budget_bytes=106 * MIB)
    assert not ended.over_budget
    assert ended.returncode == 0
    assert events[-1] == {"event": "done"}
    above = ended.peak_rss_bytes - events[0]["baseline_bytes"]
    # With the interpreter, but not above it, this is more than the budget.
    assert 92 * MIB < above < 106 * MIB < ended.peak_rss_bytes


def test_before_a_baseline_nothing_is_bounded() -> None:
    ended, _ = _run("block = bytearray(b'1') * (48 << 20)\ntime.sleep(0.2)", rss_budget_bytes=MIB)
    assert not ended.over_budget
    assert ended.baseline_bytes is None


@linux
@pytest.mark.parametrize("proc", [True, False])
def test_memory_of_children_counts(proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not proc:
        monkeypatch.setattr(Resident, "_open", lambda self, pid: False)
    program = (
        "import subprocess, threading\n"
        "def grow(): subprocess.run([sys.executable, '-c', "
        "'import time; b = bytearray(b\"1\") * (80 << 20); time.sleep(1.6)'])\n"
        "thread = threading.Thread(target=grow)\nthread.start()\nthread.join()"
    )
    ended, _ = _run(program)
    assert 84 * MIB < ended.peak_rss_bytes < 160 * MIB


def test_resident_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = Resident(os.getpid())
    monkeypatch.setattr(Resident, "_open", lambda self, pid: False)
    fallback = Resident(os.getpid())
    assert fallback.bytes() == pytest.approx(direct.bytes(), rel=0.05)
    assert fallback.bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    direct.close()
    fallback.close()


def test_a_process_that_has_ended_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    resident = Resident(child.pid)
    assert resident.bytes() > 0
    child.communicate()
    assert resident.bytes() == 0
    resident.close()


@pytest.mark.usefixtures("either_way")
def test_children_of_the_child_are_ended_too() -> None:
    program = (
        "import subprocess\n"
        "kid = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "c.send({'event': 'kid', 'pid': kid.pid})"
    )
    ended, events = _run(program)
    assert ended.returncode == 0
    assert ended.wall_s < 20
    assert _eventually(lambda: _gone(events[0]["pid"]))


def test_a_crash_is_told_by_its_signal() -> None:
    ended, _ = _run("os.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.returncode == -signal.SIGSEGV
    assert not ended.over_budget
    assert not ended.timed_out


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_parent_ends_the_child_and_goes_on(error: type[BaseException]) -> None:
    pids = []

    def interrupted(event: dict[str, Any]) -> None:
        pids.append(event["pid"])
        raise error

    began_s = time.monotonic()
    with pytest.raises(error):
        _run("c.send({'pid': os.getpid()})\ntime.sleep(60)", on_event=interrupted)
    assert time.monotonic() - began_s < 5
    assert _gone(pids[0])


_PARENT = """
import json, sys
from mambabench.launch.process import run_child
def on_event(event):
    print(json.dumps(event), flush=True)
try:
    run_child([sys.executable, "-c", sys.argv[1]], {}, on_event=on_event, time_limit_s=60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise SystemExit(130)
"""


def _parent(program: str) -> tuple[subprocess.Popen[str], int]:
    """Start a parent with a child; return it and the child's pid."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, BEGIN + program], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, json.loads(parent.stdout.readline())["pid"]


def test_an_interrupt_reaches_the_parent_first() -> None:
    parent, child = _parent("c.send({'pid': os.getpid()})\ntime.sleep(60)")
    # Not in the parent's group, so that a terminal's Ctrl-C does not reach it.
    assert os.getpgid(child) == child
    parent.send_signal(signal.SIGINT)
    out, _ = parent.communicate(timeout=10)
    assert (out.strip(), parent.returncode) == ("interrupted", 130)
    assert _gone(child)


def test_an_interrupted_child_is_asked_first(tmp_path: Path) -> None:
    program = (
        "def finish(*_):\n    time.sleep(0.2)\n"
        f"    open({str(tmp_path / 'finished')!r}, 'w').close()\n    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, finish)\nc.send({'pid': os.getpid()})\ntime.sleep(60)"
    )
    parent, child = _parent(program)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=10)
    assert (tmp_path / "finished").exists()
    assert _gone(child)


def test_two_interrupts_end_a_child_that_refuses_to() -> None:
    parent, child = _parent(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nc.send({'pid': os.getpid()})\ntime.sleep(60)"
    )
    began_s = time.monotonic()
    parent.send_signal(signal.SIGINT)
    time.sleep(0.3)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=10)
    assert time.monotonic() - began_s < 1.9
    assert _gone(child)


@linux
def test_a_child_dies_with_its_parent() -> None:
    parent, child = _parent("c.send({'pid': os.getpid()})\ntime.sleep(60)")
    parent.kill()
    parent.communicate()
    assert _eventually(lambda: _gone(child))


@linux
def test_a_child_whose_parent_died_before_it_looked_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    started = subprocess.run(
        [sys.executable, "-c", "from mambabench.launch.inside import die_with_parent; die_with_parent()"],
        env=os.environ | {"MAMBABENCH_PARENT_PID": str(gone.pid)},
        check=False,
    )
    assert started.returncode == -signal.SIGKILL


def test_the_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("KEPT", "yes")
    names = ("OMP_WAIT_POLICY", "PYTHONUNBUFFERED", "KEPT", "MORE", "MAMBABENCH_PARENT_PID")
    program = f"c.send({{n: os.environ.get(n) for n in {names}}})"
    _, events = _run(program, environment={"MORE": "too"})
    assert events == [
        {
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
            "KEPT": "yes",
            "MORE": "too",
            "MAMBABENCH_PARENT_PID": None,
        }
    ]
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    _, events = _run(program)
    assert events[0]["OMP_WAIT_POLICY"] == "ACTIVE"
    assert events[0]["MORE"] is None


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MambabenchError, match="could not be started"):
        run_child([str(tmp_path / "none")], {}, on_event=print, time_limit_s=5)


def test_the_parent_sleeps_while_it_waits() -> None:
    before = os.times()
    ended, _ = _run("time.sleep(2)")
    after = os.times()
    used_s = after.user + after.system - before.user - before.system
    # A spinning parent would use all of it; the bound leaves room for a start on a busy machine.
    assert used_s < 0.1 * ended.wall_s


def test_importing_it_imports_nothing_heavy() -> None:
    program = (
        "import sys, mambabench.launch.process\n"
        "print([m for m in ('torch', 'numpy', 'psutil', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
