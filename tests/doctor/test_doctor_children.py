"""Processes that crash, hang, print junk or end early are answers like any other."""

from __future__ import annotations

import json
import sys
from typing import Any

from mambabench.doctor.children import Answer, ask
from mambabench.doctor.finding import KernelFinding
from mambabench.doctor.kernels import Tried, try_kernels, try_whole

SAY = "import json, sys; say = lambda **v: print(json.dumps(v), flush=True)\n"


def answered(program: str, time_limit_s: float = 20.0) -> Answer:
    return ask({"do": "x"}, time_limit_s=time_limit_s, argv=[sys.executable, "-c", SAY + program])


def test_events_come_in_order() -> None:
    answer = answered("say(event='a', n=1); say(event='b'); say(event='a', n=2); say(event='done')")
    assert answer.outcome == "ok"
    assert answer.detail == ""
    assert [event["n"] for event in answer.named("a")] == [1, 2]
    assert answer.first("a")["n"] == 1
    assert answer.first("c") == {}


def test_a_crash_is_an_answer_and_keeps_what_was_said_before() -> None:
    answer = answered("say(event='a'); import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert answer.outcome == "crashed"
    assert "SIGSEGV" in answer.detail
    assert answer.first("a")


def test_a_process_that_hangs_is_ended() -> None:
    answer = answered("say(event='a'); import time; time.sleep(60)", time_limit_s=0.5)
    assert answer.outcome == "timeout"
    assert "time limit" in answer.detail
    assert answer.wall_s < 10


def test_junk_is_no_answer() -> None:
    answer = answered("print('junk'); print('[1]'); print('{not json')")
    assert answer.outcome == "failed"
    assert answer.events == ()
    answer = answered("print('junk'); say(event='done')")
    assert answer.outcome == "ok"


def test_an_error_is_told_by_its_last_line() -> None:
    answer = answered("say(event='a'); raise RuntimeError('the reason')")
    assert answer.outcome == "failed"
    assert "the reason" in answer.detail


def test_who_crashes_on_the_way_out_has_answered() -> None:
    answer = answered("say(event='done'); import os; os.abort()")
    assert answer.outcome == "ok"


def test_a_command_that_cannot_be_started_is_an_answer() -> None:
    answer = ask({"do": "x"}, time_limit_s=5, argv=["/nowhere/python"])
    assert answer.outcome == "failed"
    assert "could not be started" in answer.detail


def measured(kernel: str) -> dict[str, Any]:
    finding = {"path": "official", "kernel": kernel, "shape": "s", "dtype": "float16", "passed": True}
    return {"event": "measured", "finding": finding}


def begun(kernel: str) -> dict[str, Any]:
    return {"event": "case", "kernel": kernel, "shape": "s", "dtype": "float16"}


def tried(answers: list[Answer]) -> tuple[Tried, list[int]]:
    """Return what comes of processes that answer so, and at which case each began."""
    skips: list[int] = []

    def ask(job: Any, **options: Any) -> Answer:
        skips.append(job["skip"])
        return answers[len(skips) - 1]

    return try_kernels("official", "cuda:0", ask, lambda text: None), skips


def test_a_kernel_that_crashes_fails_and_the_others_are_tried() -> None:
    first = Answer((begun("a"), measured("a"), begun("b")), "crashed", "ended by SIGSEGV")
    second = Answer((begun("c"), measured("c"), {"event": "done"}), "ok")
    found, skips = tried([first, second])
    assert skips == [0, 2]
    assert [(f.kernel, f.passed) for f in found.findings] == [("a", True), ("b", False), ("c", True)]
    assert found.findings[1].detail == "the process ended by SIGSEGV"
    assert found.unusable == ""


def test_a_process_that_lost_cuda_is_followed_by_another() -> None:
    lost = {**measured("a")["finding"], "passed": False, "detail": "RuntimeError: CUDA error: an illegal"}
    first = Answer(
        (begun("a"), {"event": "measured", "finding": lost}, {"event": "again"}, {"event": "done"}), "ok"
    )
    second = Answer((begun("b"), measured("b"), {"event": "done"}), "ok")
    found, skips = tried([first, second])
    assert skips == [0, 1]
    assert [(f.kernel, f.passed) for f in found.findings] == [("a", False), ("b", True)]


def test_a_process_says_when_cuda_is_lost_in_it() -> None:
    program = (
        "from mambabench.doctor.child import main; from mambabench.doctor.measure import Case\n"
        "def lost(): raise RuntimeError('CUDA error: an illegal memory access was encountered')\n"
        "def cases(path, device):\n"
        "    for name in 'ab': yield Case(path, name, 's', 'float32', lost, lost, lost)\n"
        "main(cases)"
    )
    job = {"do": "kernels", "path": "official", "device": "cuda:0", "skip": 0}
    answer = ask(job, time_limit_s=60, argv=[sys.executable, "-c", program])
    assert answer.outcome == "ok", answer
    assert [event["event"] for event in answer.events] == ["case", "measured", "again", "done"]


def test_kernels_that_keep_crashing_are_given_up() -> None:
    crash = Answer((begun("a"),), "crashed", "ended by SIGABRT")
    found, skips = tried([crash] * 9)
    assert skips == [0, 1, 2]
    assert not any(f.passed for f in found.findings)


def test_a_process_that_ends_before_any_kernel_makes_the_path_unusable() -> None:
    found, _ = tried([Answer((), "timeout", "ended by its time limit after 9.0 s")])
    assert found.findings == ()
    assert "time limit" in found.unusable


def test_kernels_that_are_not_there_are_no_failure() -> None:
    found, _ = tried([Answer(({"event": "unusable", "reason": "no Triton"}, {"event": "done"}), "ok")])
    assert found == Tried((), "no Triton")


def test_a_model_whose_process_dies_does_not_pass() -> None:
    found = try_whole(
        "mamba-tiny", "cpu", "cpu", lambda job, **options: Answer((), "crashed", "ended by SIGBUS")
    )
    assert not found.passed
    assert "SIGBUS" in found.detail


def test_findings_survive_json() -> None:
    found, _ = tried([Answer((begun("a"), measured("a"), {"event": "done"}), "ok")])
    (one,) = found.findings
    assert KernelFinding(**json.loads(json.dumps(one.__dict__))) == one
