"""Columns of the frames of sweeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mambabench.frames.column import WHO, Column, flag, integer, number, text

POINT: Final = (
    text("kind", "the sweep's: latency, throughput, memory or conversation"),
    text("arm", "way of executing the model: eager, graph, sampled or shipped"),
    text("attention", "sdpa, flash, eager, or none for a model without attention"),
    text("dtype", "for example float32"),
    text("device", "cpu or cuda:0"),
    integer("batch_size", "sequences at once"),
    integer("prompt_len_tokens", "of each sequence", "tokens"),
    integer("gen_len_tokens", "generated for each sequence", "tokens"),
    integer(
        "prefill_chunk_tokens", "pieces that prompts are forwarded in; missing for all at once", "tokens"
    ),
)
ESTIMATES: Final = {
    "ttft_s": ("time to the first token", "s"),
    "tpot_s": ("time of each later token", "s"),
    "e2e_s": ("time from the prompt to the last token", "s"),
    "decode_tokens_per_s": ("tokens generated a second after the first, all sequences together", "tokens/s"),
    "prefill_tokens_per_s": ("prompt tokens a second", "tokens/s"),
    "e2e_tokens_per_s": ("generated tokens over the whole time", "tokens/s"),
    "prefill_bytes_per_s": ("bytes of text a second in the prompt", "bytes/s"),
    "decode_bytes_per_s": ("bytes of text a second generated", "bytes/s"),
    "itl_p50_s": ("median time between tokens", "s"),
    "itl_p90_s": ("90th percentile of the time between tokens", "s"),
    "itl_p99_s": ("99th percentile of the time between tokens", "s"),
    "peak_bytes": ("weights, state and everything transient at most", "bytes"),
    "decode_ceiling_share": ("speed of decoding over what the measured copy allows, 1 at the ceiling", ""),
    "prefill_ceiling_share": ("least time that the measured product allows over the time taken", ""),
    "load_s": ("loading the model", "s"),
    "first_call_s": ("the first prefill and step, in which libraries compile", "s"),
    "capture_s": ("recording the CUDA graph", "s"),
    "gross_j_per_token": ("energy of a token", "J"),
    "net_j_per_token": ("energy of a token without what the idle card takes", "J"),
}
"""Figures of a point that are estimated over processes, with what each is and its unit."""


def estimates() -> Iterable[Column]:
    """Yield the columns of all figures: value, ends and method."""
    for name, (what, unit) in ESTIMATES.items():
        yield number(name, f"{what}: geometric mean over processes", unit)
        yield number(f"{name}_low", "lower end, as the method says", unit)
        yield number(f"{name}_high", "upper end", unit)
        yield text(
            f"{name}_method",
            "'t on log': ends of the 95% interval; 'range': smallest and largest process; 'single': one",
        )


FRAMES: Final[dict[str, tuple[str, tuple[Column, ...]]]] = {
    "speed": (
        "One row for each point of a sweep and way of executing the model.",
        (
            *WHO,
            *POINT,
            text("status", "ok, oom, illegal_access, timeout, killed, unsupported, skipped_after_oom, "
                  "failed, or missing where it was not measured yet"),
            text("detail", "what happened, unless ok"),
            text("flags", "what limits the figures, separated by semicolons"),
            flag("fastest", "whether it is the way of executing the model that is judged the fastest"),
            flag("past_training_length", "whether sequences are longer than what the model was trained on"),
            integer("n_processes", "that left a record"),
            integer("n_repeats", "of those that ended well"),
            *estimates(),
            number("host_wait_share", "share of the host's time in which the device had nothing to do"),
            number("bytes_per_token", "of the text that prompts were made of; missing for random ids"),
            integer("weights_bytes", "of the parameters as loaded", "bytes"),
            integer("state_bytes", "of state or cache in the end, all sequences together", "bytes"),
            integer("state_bytes_spec", "the same by the sizes of the architecture", "bytes"),
            integer("transient_bytes", "peak without weights and state", "bytes"),
            integer("peak_process_bytes", "of the whole process", "bytes"),
            integer("requested_bytes", "allocation that failed", "bytes"),
            integer("allocated_bytes", "in use when it failed", "bytes"),
            integer("training_length_tokens", "that the model was trained on", "tokens"),
            text("implementation", "class that ran the forward"),
            text("kernel_path", "what computed the scan or the attention"),
        ),
    ),
    "speed_ratios": (
        "One row for each two models, figure and setting that a sweep measured side by side.",
        (
            text("run", "name of the run's directory"),
            text("kind", "the sweep's"),
            text("first", "label, with the way of executing it where there are several"),
            text("second", "label, with the way of executing it where there are several"),
            text("figure", "ttft_s, tpot_s or peak_bytes"),
            integer("batch_size", "sequences at once"),
            integer("prompt_len_tokens", "of each sequence", "tokens"),
            integer("gen_len_tokens", "generated for each sequence", "tokens"),
            number("ratio", "of the first's figure over the second's, process by process"),
            number("ratio_low", "lower end, as the method says"),
            number("ratio_high", "upper end"),
            text("method", "'t on log', 'range' or 'single'"),
            integer("n_pairs", "of processes"),
        ),
    ),
    "measurements": (
        "One row for each timed repeat of each process of a sweep; one for a process that timed none.",
        (
            *WHO,
            *POINT,
            integer("replicate", "process of the point, from 0"),
            integer("order", "place in the sweep"),
            text("status", "of the process"),
            integer("repeat", "from 0; missing for a process without any"),
            number("ttft_s", "time to the first token", "s"),
            number("tpot_s", "mean time of a later token", "s"),
            number("e2e_s", "from the prompt to the last token", "s"),
            number("peak_bytes", "of the process", "bytes"),
        ),
    ),
    "ceilings": (
        "One row for each round in which a sweep measured what the machine can do.",
        (
            text("run", "name of the run's directory"),
            text("device", "cpu or cuda:0"),
            text("device_name", "processor or GPU"),
            text("dtype", "of the matrix product"),
            integer("round", "of the sweep"),
            number("copy_bytes_per_s", "best copy, read and written together", "bytes/s"),
            number("matmul_flops_per_s", "best matrix product", "operations/s"),
            number("sheet_bytes_per_s", "by the maker's data sheet", "bytes/s"),
            number("sheet_flops_per_s", "by the maker's data sheet", "operations/s"),
            number("load_average", "of the machine before"),
        ),
    ),
    "conversation": (
        "One row for each model, length of history and operation on the conversation's state.",
        (
            *WHO,
            integer("history_tokens", "of the conversation", "tokens"),
            integer("turn_len_tokens", "of the turn that follows", "tokens"),
            integer("n_forks", "continuations of one state"),
            text("operation", "snapshot, restore, fork, resume, prefill_again, rewind, save or load"),
            number("time_s", "geometric mean over processes of their medians", "s"),
            number("time_low_s", "lower end, as the method says", "s"),
            number("time_high_s", "upper end", "s"),
            integer("n_processes", "that it is over"),
            integer("bytes_moved", "newly allocated or written", "bytes"),
            integer("state_bytes", "of one conversation", "bytes"),
            integer("forked_state_bytes", "of all forks, shared memory once", "bytes"),
            flag("certified", "whether resuming gave the logits of forwarding everything again"),
            text("method", "of the ends: 't on log', 'range' or 'single'"),
            flag("past_training_length", "whether more is forwarded than what the model was trained on"),
            flag("forgetful", "whether replies are the same without the history, so that they tell nothing"),
            number("prefill_over_resume", "times that prefill_again takes as long; in the row of resume"),
            number("prefill_over_resume_low", "lower end, as the method says"),
            number("prefill_over_resume_high", "upper end"),
        ),
    ),
}  # fmt: skip
