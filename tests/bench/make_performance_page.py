#!/usr/bin/env python3
"""Makes docs/performance.md and its plots of the JSON that the benchmarks write: ./dev bench --page.

usage: make_performance_page.py RESULTS_DIR DOCS_DIR [--format png]

The prose is in performance.md.in; each @name@ there is a function of this file. What a target is missed by is said by
the numbers, never by hand.
"""
import argparse
import os
import pathlib
import platform
import re
import shutil
import subprocess

import performance_plots as plots
from performance_results import Results, duration, number, rate, size, table, times

FLOORS = ("spin", "futex", "socketpair", "posix_spawn", "Boost.DLL, in-process")
SOCKET_PEERS = ("ZeroMQ", "Cap'n Proto", "gRPC", "Node child_process.fork", "Python multiprocessing")
PEERS = ("Boost message_queue", *SOCKET_PEERS)
LATENCIES = ("16-byte call, CPUs free", "16-byte call, two CPUs", "16-byte call, one CPU")
PAYLOADS = ("64 KiB call", "64 MiB call")
MANY = "16-byte calls, 64 outstanding"
SPAWN = "spawn to first reply"
MEMORY = "memory of a worker (PSS)"


def name_of(who):
    if who == "bulkhead":
        return "**bulkhead**"
    return f"*{who}*" if who in FLOORS else who


def rows_of(results, work, cells, best_last=False):
    found = results.of(work)
    return [[name_of(each["who"]), *cells(each)] for each in sorted(found, key=lambda r: r["value"], reverse=best_last)]


def compared(each):
    return [times(each.get("to_floor")), times(each.get("to_bulkhead"))]


class Page:
    def __init__(self, results):
        self.results = results

    # --- the machine -------------------------------------------------------------------------------------------------

    def machine(self):
        peers = self.results.programs["peers"]
        about = peers["machine"]
        release = dict(re.findall(r'^(\w+)="?(.*?)"?$', pathlib.Path("/etc/os-release").read_text(), re.M))
        memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) >> 20
        lines = [
            ["processor", f"{about['processor']}, {about['cpus']} CPUs" + self.virtual()],
            ["memory", f"{memory} GiB"],
            ["kernel", f"Linux {about['kernel']}"],
            ["system", f"{release.get('PRETTY_NAME', 'unknown')}, glibc {platform.libc_ver()[1]}"],
            ["compiler", f"{about['compiler']}, Release"],
            ["sources", f"commit {self.results.commit}"],
            ["measured", self.results.measured()],
        ]
        return table(["", ""], lines, "ll")

    @staticmethod
    def virtual():
        flags = pathlib.Path("/proc/cpuinfo").read_text()
        return " (virtual)" if re.search(r"^flags.*\bhypervisor\b", flags, re.M) else ""

    def versions(self):
        found = self.results.programs["peers"]["versions"]
        return ", ".join(f"{who} {what}" + (f" ({self.node_origin()})" if who.startswith("Node") else "")
                         for who, what in found.items() if what and not who.startswith("bulkhead,"))

    def node_origin(self):
        """Where the Node comes from that was measured: a package, or not."""
        def said(*command):
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        program = os.path.realpath(self.results.programs["peers"].get("node", ""))
        package = shutil.which("dpkg") and said("dpkg", "-S", program).split(":")[0]
        if not package:
            return f"{program}, of no package"
        about = said("dpkg-query", "-W", "-f", "${Package} ${Version} of ${Maintainer}", package)
        return "package " + re.sub(r" *<.*>", "", about)

    def quick(self):
        if not any(each["quick"] for each in self.results.programs.values()):
            return ""
        return "**A brief run (`--quick`): too few samples to rely on.**\n"

    # --- tables ------------------------------------------------------------------------------------------------------

    def latency(self):
        parts = []
        for work in LATENCIES:
            floor = self.results.of(work)[0]["floor"]
            rows = rows_of(self.results, work, lambda r: [
                duration(r["value"]), duration(r.get("p99")), duration(r.get("p999")), *compared(r)])
            parts.append(f"**{work.split(', ')[1]}**\n\n" + table(
                ["", "p50", "p99", "p99.9", f"to {floor}", "to bulkhead"], rows, "lrrrrr"))
        return "\n\n".join(parts)

    def payload(self):
        parts = []
        for work, bytes_ in zip(PAYLOADS, (64 << 10, 64 << 20)):
            floor = self.results.of(work)[0]["floor"]
            rows = rows_of(self.results, work, lambda r: [
                duration(r["value"]), duration(r.get("p99")), f"{2 * bytes_ / r['value'] / 1e3:.2f} GB/s", *compared(r)])
            parts.append(f"**{work}**, rates count both ways\n\n" + table(
                ["", "p50", "p99", "rate", f"to {floor}", "to bulkhead"], rows, "lrrrrr"))
        return "\n\n".join(parts)

    def throughput(self):
        rows = rows_of(self.results, MANY, lambda r: [rate(r["value"]), *compared(r)], best_last=True)
        return table(["", "calls", "time to spin", "time to bulkhead"], rows, "lrrr")

    def spawn(self):
        rows = rows_of(self.results, SPAWN, lambda r: [duration(r["value"]), *compared(r)])
        return table(["", "p50", "to posix_spawn", "to bulkhead"], rows, "lrrr")

    def memory(self):
        rows = rows_of(self.results, MEMORY, lambda r: [size(r["value"]), *compared(r)])
        return table(["", "PSS", "to socketpair", "to bulkhead"], rows, "lrrr")

    def photos(self):
        return str(self.results.programs["thumbnails"]["photos"])

    def thumbnails(self):
        rows = [[r["who"], f"{r['value']:.1f} /s", f"{100 / r['to_floor']:.1f} %"]
                for r in self.results.of("thumbnails")]
        return table(["", "photos", "of in-process"], rows, "lrr")

    # --- what the numbers say ----------------------------------------------------------------------------------------

    def fastest(self, work, among):
        """Who of them has the lowest cost, and how many times bulkhead's that is."""
        found = [r for r in self.results.of(work) if r["who"] in among and "to_bulkhead" in r]
        best = min(found, key=lambda r: r["to_bulkhead"], default=None)
        return (best["who"], best["to_bulkhead"]) if best else (None, None)

    def beside(self, work, among=PEERS):
        found = sorted((r for r in self.results.of(work) if r["who"] in among and "to_bulkhead" in r),
                       key=lambda r: r["to_bulkhead"])

        def told(each):
            return f"{times(each['to_bulkhead'])} ({each['who']})"

        less = [told(r) for r in found if r["to_bulkhead"] < 1]
        more = [told(r) for r in found if r["to_bulkhead"] >= 1]
        parts = []
        if more:
            parts.append("peers take " + (f"{more[0]} to {more[-1]}" if len(more) > 1 else more[0]) +
                         " of what bulkhead takes")
        if less:
            parts.append(f"{'less' if more else 'peers that take less'}: {', '.join(less)}")
        return "; ".join(parts)

    def latency_verdict(self):
        lines = []
        for work in LATENCIES:
            mine = self.results.one(work, "bulkhead")
            lines.append(f"- {work.split(', ')[1]}: {duration(mine['value'])}, {times(mine.get('to_floor'))} the floor; "
                         f"{self.beside(work)}.")
        return "\n".join(lines)

    def payload_verdict(self):
        return "\n".join(f"- {work}: {times(self.results.one(work, 'bulkhead').get('to_floor'))} shared memory with a "
                         f"copy each way; {self.beside(work)}." for work in PAYLOADS)

    def page_faults(self):
        by_bytes, by_blob, here = (self.results.figure("blobs", f"page faults of a call with 64 MiB, {how}")
                                   for how in ("by bytes", "by blob", "in-process"))
        if not (by_bytes and by_blob and here):
            return ""
        return ("Where 64 MiB of bytes take longer than a copy each way: a `bytes` result is memory of its own, which the "
                "allocator takes from the kernel for each call, so its pages are touched for the first time, in "
                f"{by_bytes['value']:,.0f} page faults a call. By blob (`shared_blob`), whose arenas are used again, there are "
                f"{by_blob['value']:,.0f}. In-process the same call by bytes makes three such copies, of the arguments, the "
                f"result and the answer, and {here['value']:,.0f} page faults.")

    # --- arguments of many sizes -------------------------------------------------------------------------------------

    def sizes(self):
        found = self.results.programs.get("blobs", {}).get("sizes")
        if not found:
            return ""
        threshold = self.results.programs["blobs"]["threshold"]
        rows = [[plots.bytes_text(each["size"]), duration(each["floor"]), duration(each["message"]),
                 duration(each.get("blob")), times(each.get("blob", 0) / each["message"])] for each in found]
        less = [each["size"] for each in found if each.get("blob", float("inf")) < each["message"]]
        verdict = (f"Bytes go by blob from {plots.bytes_text(threshold)} on (`load_options::blobs.threshold`). Here a blob takes "
                   "less than the message " + (f"with {', '.join(map(plots.bytes_text, less))}." if less else "at no size."))
        return "\n\n".join([
            "## From which size on by blob",
            "An argument of so many bytes, once in the message and once by blob; and what two processes take that spin on "
            "shared memory and copy as much on either side. Each side has a CPU of its own.",
            table(["", "spinning and copying", "in the message", "by blob", "to the message"], rows, "lrrrr"),
            "![Time of a call by the size of its argument](images/performance-sizes.svg)",
            verdict])

    def throughput_verdict(self):
        return f"{rate(self.results.one(MANY, 'bulkhead')['value'])} calls; {self.beside(MANY)}."

    # --- where the time goes -----------------------------------------------------------------------------------------

    def profile(self):
        found = self.results.programs.get("profile")
        if not found:
            return ""
        columns = [(work, side) for work in found["profile"] for side in ("host", "worker")]
        stages = sorted({stage for work, side in columns for stage in found["profile"][work][side]},
                        key=lambda stage: -sum(found["profile"][work][side].get(stage, 0) for work, side in columns))

        def cell(work, side, stages):
            return f"{sum(found['profile'][work][side].get(stage, 0) for stage in stages):,.0f}"

        waiting = "waiting at the ring"
        rows = [[stage, *(cell(*each, [stage]) for each in columns)] for stage in stages if stage != waiting]
        rows.append(["**work**", *(f"**{cell(*each, [stage for stage in stages if stage != waiting])}**" for each in columns)])
        rows.append([waiting, *(cell(*each, [waiting]) for each in columns)])
        return "\n\n".join([
            "## Where the time of a call goes",
            f"Nanoseconds of CPU time a call, by `perf record -e cpu-clock` of {found['calls']:,} calls of 16 bytes each way, the "
            "CPUs free. What a side does that waits at the ring, spinning, is beside its work. *Copying* is for the most part "
            "the wait for a line of the ring to come from the other CPU; *the clock* is read while a side spins, and twice a "
            "call by the benchmark itself.",
            table(["", *(f"{work}: {side}" for work, side in columns)], rows, "l" + "r" * len(columns))])

    def spawn_verdict(self):
        mine = self.results.one(SPAWN, "bulkhead")
        return (f"{duration(mine['value'])}, {times(mine.get('to_floor'))} starting and ending `/bin/true`; "
                f"{self.beside(SPAWN)}.")

    def memory_verdict(self):
        return f"{size(self.results.one(MEMORY, 'bulkhead')['value'])}; {self.beside(MEMORY)}."

    def thumbnails_verdict(self):
        one, two = (r for r in self.results.of("thumbnails") if r["who"].startswith("isolated"))
        cpu = self.results.figure("thumbnails", "CPU time")
        return (f"On one core the isolated plugin reaches {100 / one['to_floor']:.1f} % of what the plugin in the host's "
                f"own process does. Two workers reach {1 / two['to_floor']:.2f} times a single thread in-process, and a "
                "plugin that is not thread-safe can have them without a change. "
                f"The CPU time of a photo, which what else runs here does not touch, is {number(cpu['value'])} ms isolated, "
                f"{times(cpu['ratio'])} that in-process.")

    # --- targets -----------------------------------------------------------------------------------------------------

    def judged(self):
        """The rows of the table, and why those are missed that are."""
        rows, reasons = [], []

        def add(what, wanted, found, met, missed_by, why):
            rows.append([what, wanted, found, "met" if met else f"**missed**: {missed_by}"])
            if why and not met:
                reasons.append(f"- {what}: {why()}")

        def at_most(what, found, limit, text, why=None):
            if found is not None:
                add(what, f"≤ {text(limit)}", text(found), found <= limit, f"{times(found / limit)} the target", why)

        def at_least(what, found, limit, text, why=None):
            if found is not None:
                add(what, f"≥ {text(limit)}", text(found), found >= limit, f"{100 * found / limit:.1f} % of it", why)

        def percent(value):
            return f"{value:.1f} %"

        two = self.results.one(LATENCIES[1], "bulkhead")
        at_most("16-byte call, two CPUs, p50", two["value"], 1.5, duration, self.why_two_cpus)
        who, ratio = self.fastest(LATENCIES[1], SOCKET_PEERS)
        at_least(f"two CPUs: faster than every socket peer (nearest: {who})", ratio, 50, times,
                 lambda who=who: self.why_peers(who))
        parked = self.results.figure("lanes", "asleep")
        at_most("16-byte call, worker parked, to futex", parked and parked["ratio"], 1.2, times)
        paused = self.results.figure("lanes", "after 30 ms of nothing")
        at_most("16-byte call after 30 ms of nothing, to futex after as long", paused and paused["ratio"], 1.2, times,
                lambda: "by then a worker sleeps at its socket, where it hears of its host's end as well, both CPUs are idle, and "
                        "code and data of both sides are cold; it varies from run to run ([benchmarks](benchmarks.md)).")
        at_most("16-byte call, one CPU, to futex", self.results.one(LATENCIES[2], "bulkhead").get("to_floor"), 1.5, times)
        for where in ("one CPU", "two CPUs"):
            call = self.results.figure("foundation", f"over the socket, {where}, p50")
            at_most(f"16-byte call over the socket, {where}, to a socketpair", call and call["ratio"], 1.3, times,
                    self.why_socket)
        at_least("calls a second, 64 outstanding", self.results.one(MANY, "bulkhead")["value"], 1e6, rate, self.why_many)
        who, ratio = self.fastest(MANY, PEERS)
        at_least(f"64 outstanding: faster than every peer (nearest: {who})", ratio, 10, times, lambda: (
            "a peer that only moves bytes from queue to queue names no method, keeps no deadline and completes nothing on "
            "an executor, which is most of what a call costs here."))
        at_most("spawn to first reply, to posix_spawn", self.results.one(SPAWN, "bulkhead").get("to_floor"), 1.5, times,
                self.why_spawn)
        large = self.results.figure("foundation", "2 GB against small")
        at_most("spawn to first reply, a host of 2 GB to a small one", large and large["ratio"], 1.1, times)
        at_most("memory of a worker", self.results.one(MEMORY, "bulkhead")["value"], 400, size, self.why_memory)
        crashing = self.results.figure("foundation", "while a neighbour crashes")
        at_most("p99 of a call while a neighbour crashes, to crashes outside of the host", crashing and crashing["ratio"],
                1.1, times)
        blob = self.results.figure("blobs", "the plugin's pass only")
        at_most("64 MiB there and back by blob, to the plugin's pass in-process", blob and blob["ratio"], 1.25, times)
        copied = self.results.figure("blobs", "as an argument, one copy")
        at_least("64 MiB of bytes as an argument, of a warm memcpy", copied and 100 / copied["ratio"], 90, percent)
        one, workers = (r for r in self.results.of("thumbnails") if r["who"].startswith("isolated"))
        at_least("thumbnails, one core, of in-process", 100 / one["to_floor"], 97, percent)
        at_least("thumbnails, two workers, to one thread in-process", 1 / workers["to_floor"], 1, times)
        self.judge_children(at_most, at_least)
        self.judge_clusters(at_least, reasons)
        return rows, reasons

    def judge_children(self, at_most, at_least):
        def ratio(name):
            found = self.results.named("process", name)
            return found and found["ratio"]

        for application in ("small", "2 GB"):
            at_most(f"spawn and wait, {application} application, to posix_spawn of a small process",
                    ratio(f"spawn /bin/true and wait, {application} application"), 1.1, times)
        static, dynamic = ratio("fork to first message, linked statically"), ratio("fork to first message")
        if static:
            beside = f" (dynamically: {times(1 / dynamic)})" if dynamic else ""
            at_least(f"fork to first message: faster than Node's, linked statically{beside}", 1 / static, 30, times)
        at_most("memory of a forked child, to Node's", ratio("memory of a forked child (PSS)"), 1 / 20, times)
        at_most("spawn under policy::strict, to bwrap", ratio("spawn /bin/true under policy::strict and wait"), 1, times)

    def judge_clusters(self, at_least, reasons):
        missed = False
        for load in ("16 connections", "128 connections", "16 connections, pipelined"):
            for how in ("round robin", "shared"):
                found = self.results.named("cluster", f"requests/s, {how}, {load}")
                if found and found["ratio"]:  # else Node was not there
                    at_least(f"requests a second, {how}, {load}, to Node's cluster", 1 / found["ratio"], 3, times)
                    missed |= 1 / found["ratio"] < 3 and "pipelined" not in load
        why = missed and self.why_requests()
        if why:
            reasons.append(f"- requests a second to Node's cluster: {why}")

    def targets(self):
        return table(["", "target", "here", ""], self.judged()[0], "lrrl")

    def why(self):
        reasons = self.judged()[1]
        return "### Why\n\n" + "\n".join(reasons) if reasons else ""

    def value(self, work, who):
        found = next((r for r in self.results.of(work) if r["who"] == who), None)
        return found and found["value"]

    def why_two_cpus(self):
        return (f"two processes that do nothing but spin take {duration(self.value(LATENCIES[1], 'spin'))} on this kind of "
                "machine, where the design's took 0.11 µs: what is left for a call is the bookkeeping of both sides, which "
                "pack, check, look up, time and answer.")

    def why_socket(self):
        one, lanes = (self.results.figure("foundation", f"16-byte call {how}, p50")
                      for how in ("over the socket, one CPU", "by lanes, two CPUs"))
        text = ("a call makes the system calls of the ping-pong, one to send and one to receive on each side, and no other; on two "
                "CPUs both are for the most part what an idle CPU takes to wake up, which changes from run to run ([benchmarks]"
                "(benchmarks.md))")
        return text + (f". On one CPU the call takes {times(one['ratio'])} the ping-pong, and by lanes on two "
                       f"{times(lanes['ratio'])}." if one and lanes else ".")

    def why_peers(self, who):
        return (f"the target was set where waking the other CPU cost 70 to 90 µs. Here a socketpair takes "
                f"{duration(self.value(LATENCIES[1], 'socketpair'))}, its wake-ups included, and {who} "
                f"{duration(self.value(LATENCIES[1], who))}.")

    def why_many(self):
        mine, inside = self.value(MANY, "bulkhead"), self.value(MANY, "bulkhead, in-process")
        if not inside:
            return "completion through an executor is what a call costs."
        return (f"`async_call` to the same plugin in-process, by the same API, makes {rate(inside)}: most of it is the "
                "bookkeeping of a call that completes through an executor" +
                (f", to which lanes and the other process add {100 * (inside / mine - 1):.0f} %." if inside > mine else "."))

    def why_spawn(self):
        floor = self.value(SPAWN, "posix_spawn")
        layers = self.results.figure("sandbox", "spawn to ready, all layers, p50")
        share = f" The sandbox has a small share in it: {times(layers['ratio'])} a bare worker." if layers else ""
        start = self.results.programs.get("profile", {}).get("start")
        if start:
            total = sum(start.values())
            parts = sorted(start.items(), key=lambda part: -part[1])
            share += (f" By `perf`, host, fork server and worker use {duration(total)} of CPU time for a start and an end: " +
                      ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in parts if value > total / 50) + ".")
        return (f"processes are made slowly here: `/bin/true` takes {duration(floor)}, where the design's machine took 0.9 "
                f"to 1.0 ms, and a worker takes more system calls than that.{share}")

    def why_memory(self):
        crowd = self.results.figure("sandbox", "all layers, median")
        text = "what workers share is divided by eight here"
        return f"{text}; {crowd['name'].split(',')[0].replace('PSS of ', '')} has {size(crowd['value'])}." if crowd else text + "."

    def why_requests(self):
        cost = "CPU time of a request"
        one, client, own = (self.results.named("cluster", name) for name in (cost, f"{cost}, wrk's", f"{cost}, pipelined"))
        rate = self.results.named("cluster", "requests/s, round robin, 16 connections")
        if not (one and client and own and rate and one["ratio"]):
            return None
        node, kernel = one["value"] / one["ratio"], one["value"] - own["value"]
        best = self.results.programs["cluster"]["machine"]["cpus"] * 1e6 / (kernel + client["value"])
        return (f"one at a time on each of 16 connections, a request costs the client {duration(client['value'])} of CPU time, "
                f"the servers {duration(one['value'])} and Node's {duration(node)}. Pipelined it costs the servers "
                f"{duration(own['value'])}, which is their own work; the other {duration(kernel)} are the wake-up, the read and "
                "the write for each, which are the kernel's. All processors are busy with the client and these alone at "
                f"{best:,.0f} requests/s, {times(best / (rate['value'] * rate['ratio']))} the requests of Node's.")

    # --- the other programs ------------------------------------------------------------------------------------------

    def others(self):
        parts = []
        for program, all_ in self.results.programs.items():
            if program in ("peers", "thumbnails") or not all_.get("figures"):
                continue
            rows = [[f["name"], f"{number(f['value'])} {f['unit'].replace('us', 'µs')}", f["floor"].replace(" us", " µs"),
                     times(f["ratio"] or None)] for f in all_["figures"]]
            parts.append(f"### `bench_{program}`\n\n" + table(["", "", "beside, in the same run", "ratio"], rows, "lrlr"))
        return "## Further figures\n\n" + "\n\n".join(parts) if parts else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("docs", type=pathlib.Path)
    parser.add_argument("--format", default="svg", choices=("svg", "png"))
    asked = parser.parse_args()
    results = Results(asked.results)
    page = Page(results)
    here = pathlib.Path(__file__).parent
    text = re.sub(r"@(\w+)@", lambda match: getattr(page, match.group(1))(), (here / "performance.md.in").read_text())
    images = asked.docs / "images"
    os.makedirs(images, exist_ok=True)

    def file(name):
        return images / f"performance-{name}.{asked.format}"

    plots.latency(results, LATENCIES, FLOORS, file("latency"))
    plots.payload(results, PAYLOADS, FLOORS, file("payload"))
    sizes = results.programs.get("blobs", {}).get("sizes")
    if sizes:
        plots.sizes(sizes, results.programs["blobs"]["threshold"], file("sizes"))
    plots.single(results, MANY, FLOORS, rate, "calls per second, 64 outstanding", file("throughput"), larger_is_better=True)
    plots.single(results, SPAWN, FLOORS, duration, "from nothing to a worker's first answer", file("spawn"))
    plots.single(results, MEMORY, FLOORS, size, "proportional set size of an idle worker", file("memory"))
    (asked.docs / "performance.md").write_text(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")


if __name__ == "__main__":
    main()
