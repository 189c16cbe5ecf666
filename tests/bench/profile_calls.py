#!/usr/bin/env python3
"""Where the CPU time of a call and of a worker's start goes, by perf: ./dev bench --page.

usage: profile_calls.py PEER_BULKHEAD FILE

Records the program that stands for bulkhead among the peers, its workers and its fork server by the CPU's clock, and writes
the time by stage into FILE: nanoseconds a call, and the parts of a start. Exits with 3 where perf is missing or may not
record.
"""
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

CALLS, ROUNDS, SPAWNS = 50_000, 12, 300
WORKS = {"one after the other": f"calls 16 {CALLS}", "64 outstanding": f"many 16 {CALLS} 64"}
HZ = 4000
SIDES = {"peer_bulkhead": "host", "bulkhead-worker": "worker", "bulkhead-forkserver": "fork server"}

# The first that a symbol matches is its stage.
CALL_STAGES = (
    ("kernel", r"\(\[kernel"),
    ("waiting at the ring", r"lane_transport::(wait|ready|readable)|lane_reader::available|spin_policy"),
    ("the ring", r"lane_"),
    ("allocator", r"malloc|_int_free|cfree|operator (new|delete)|unlink_chunk|(take|give)_memory|spare_bytes|__libc_free"),
    ("locks", r"pthread_mutex|lll_lock"),
    ("reference counts", r"_Sp_counted|__shared_count|__weak_count"),
    ("copying", r"memmove|memcpy|memset|memcmp"),
    ("the clock", r"clock|\[vdso"),
    ("Asio", r"boost::asio"),
    ("packing and parsing", r"ipc::(buffer|scanner|parse|take_|begin_|make_|value_size|set_request)|msgpack|typed|pack_"),
    ("channel", r"ipc::channel"),
    ("worker: dispatch, the method", r"session|plugin_runtime|plugin_definition|echo\.so"),
    ("pool, supervision, counters", r"plugin_pool|worker_set|worker_process|worker_blobs|call_meter|call_request|plugin::|reply"),
)
# The same for all that is on the stack.
START_STAGES = (
    ("page faults", r"page_fault|handle_mm_fault"),
    ("fork, exec, exit", r"kernel_clone|copy_process|ret_from_fork|do_exit|execve"),
    ("mapping", r"mmap|munmap|mprotect"),
    ("waiting for one another", r"wait4|waitid|epoll|poll|futex|schedule"),
    ("other system calls", r"do_syscall_64|entry_SYSCALL"),
    ("the kernel's rest", r"\(\[kernel"),
    ("dynamic loader", r"ld-linux"),
)


def samples(program, lines, stacks):
    """Of each sample: whose it is, and what is on its stack."""
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "perf.data")
        done = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HZ), "-o", data, *["-g"][:stacks], "--",
                               program], input="".join(f"{line}\n" for line in lines), capture_output=True, text=True,
                              check=False)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            sys.exit(3)
        told = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym,dso"], capture_output=True, text=True,
                              check=True).stdout
    blocks = told.split("\n\n") if stacks else told.splitlines()
    for block in blocks:
        comm = block.strip()[:15]
        side = next((side for name, side in SIDES.items() if comm.startswith(name[:15])), None)
        if side:
            yield side, block


def stage_of(text, stages):
    return next((name for name, pattern in stages if re.search(pattern, text)), "the rest")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    if not shutil.which("perf"):
        sys.exit(3)
    program, file = sys.argv[1:]
    calls = {}
    for work, line in WORKS.items():
        found = calls[work] = {"host": collections.Counter(), "worker": collections.Counter()}
        for side, text in samples(program, [line] * ROUNDS, False):
            if side in found:
                found[side][stage_of(text, CALL_STAGES)] += 1e9 / HZ / (CALLS * ROUNDS)
    start = collections.Counter()
    for _, text in samples(program, ["spawn"] * SPAWNS, True):
        start[stage_of(text, START_STAGES)] += 1e6 / HZ / SPAWNS
    pathlib.Path(file).write_text(json.dumps(
        {"commit": os.environ.get("BULKHEAD_BENCH_COMMIT", "unknown"), "measured": time.time(), "quick": False,
         "calls": CALLS * ROUNDS, "profile": calls, "start": start}, indent=1))


if __name__ == "__main__":
    main()
