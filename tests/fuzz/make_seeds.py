#!/usr/bin/env python3
"""Writes seeds: the messages that docs/protocol.md shows, for corpus/frames and messages; and those of the fuzzers whose
input is no message: corpus/manifest, fork_requests, calls, lane_transport, references."""
import pathlib
import re
import struct

corpus = pathlib.Path(__file__).parent / "corpus"
page = corpus.parents[2] / "docs/protocol.md"


def write(fuzzer, name, content):
    (corpus / fuzzer).mkdir(parents=True, exist_ok=True)
    (corpus / fuzzer / name).write_bytes(content)


# --- messages: one alone; as frames they come in pieces of as many bytes as the first one says ------------------------
for block in re.findall(r"^```(?:vectors|refused)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
    for name, content in re.findall(r"^(\w+): ([0-9a-f]+)", block, re.M):
        write("messages", name, bytes.fromhex(content))
        write("frames", name, b"\x07" + bytes.fromhex(content))

# --- plugin files: ELF header, sections (none, their names, the manifest), names, manifest -----------------------------
def elf(lines, names=b"\0.shstrtab\0bulkhead_manifest\0", sections=3, size=None, offset=None, kind=1, machine=62):
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, 64, 0, 64, 0, 0, 64, sections, 1)
    at = 64 + 3 * 64
    section = lambda name, kind, offset, size: struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
    table = bytes(64) + section(1, 3, at, len(names)) + section(
        11, kind, at + len(names) if offset is None else offset, len(lines) if size is None else size)
    return header + table + names + lines


plain = b"abi=1\0id=stats\0version=1.2.0\0"
asking = plain + b"\0".join([b"name=S", b"license=MIT", b"thread_safe=yes", b"request=read:/a/x", b"request=read:/etc",
                             b"request=write:/b/c/../d", b"request=create:/d", b"request=connect:443",
                             b"request=bind:80", b"request=syscalls:udp", b"request=handles", b"request=memory:64",
                             b"request=threads:4", b"request=level:none", b"request=read:/\n/", b"request=:", b""])
for name, content in {
        "plain": elf(plain), "asking": elf(asking), "twice": elf(plain + b"id=b\0"), "no_id": elf(b"abi=1\0"),
        "other_abi": elf(b"abi=2\0id=a\0"), "control_characters": elf(plain + b"name=\x1b[31m\xff\0"),
        "no_end": elf(plain + b"name=x"), "many_sections": elf(plain, sections=65535), "none": elf(plain, sections=0),
        "large": elf(plain, size=1 << 40), "outside": elf(plain, offset=(1 << 64) - 8), "nobits": elf(plain, kind=8),
        "no_manifest": elf(plain, names=b"\0.shstrtab\0bulkhead_manifesto\0"), "names_without_end": elf(
            plain, names=b"\0.shstrtab\0bulkhead"), "other_machine": elf(plain, machine=40), "cut": elf(plain)[:150],
        "text": b"#!/bin/sh\n"
}.items():
    write("manifest", name, content)


# --- requests to the fork server: how many descriptors, then a byte of the head that send() has as its own, and the rest --
def request(kind, arguments, strings, fds, count=None, size=None, version=5, end=b"\0"):
    rest = b"".join(each + b"\0" for each in strings[:-1]) + (strings[-1] + end if strings else b"")
    return bytes([fds]) + struct.pack("<6I", 0x62686673, version, kind, arguments, len(strings) if count is None else count,
                                      len(rest) if size is None else size) + rest


policy = (b"read:/usr/share\nwithin:/usr\nconnect:443\nsyscalls:udp\nenvironment:A=b\nthreads:4\ncpus:0.5\n"
          b"level:limited\nlandlock-abi:3\n")
for name, content in {
        "plugin": request(1, 0, [policy, b"LANG=C"], 5), "plugin_with_lanes": request(1, 0, [policy], 7),
        "program": request(2, 2, [b"profile:program\n", b"/bin/echo", b"", b"PATH=/bin"], 5),
        "adopt": request(3, 0, [], 1), "examine": request(4, 0, [b""], 0), "unknown": request(5, 0, [b""], 0),
        "more_arguments": request(2, 9, [b"", b"a"], 5), "most_arguments": request(2, 0xffffffff, [b""], 5),
        "more_strings": request(1, 0, [b"", b"a"], 5, count=9), "fewer_strings": request(1, 0, [b"", b"a"], 5, count=1),
        "no_zero": request(1, 0, [b"", b"a"], 5, end=b""), "other_size": request(1, 0, [b"", b"a"], 5, size=1000),
        "other_version": request(1, 0, [b""], 5, version=4), "no_strings": request(1, 0, [], 5),
        "too_many_descriptors": request(1, 0, [b""], 9), "no_policy": request(1, 0, [b"read:a\nfoo\n"], 5),
        "head_only": request(1, 0, [], 5)[:20]
}.items():
    write("fork_requests", name, content)

# --- scripts of calls: see step() in calls.cpp ------------------------------------------------------------------------
start, answer, read, abandon, tick, room, write_on, let_go, fail_all = range(9)
sync, reserved, again = 16, 32, 64  # how a call starts
failed = 16  # how it is answered
last, forged = 0, 255  # which call
for name, steps in {
        "answered": [start, 0, answer, last, read], "failed": [start | sync, 0, answer | failed, last, read],
        "twice": [start, 0, answer, last, answer, last, read], "forged": [start, 0, answer, forged, 1, 2, read],
        "late": [start, 0, abandon, last, answer, last, read, start, 0, answer, last, read],
        "left": [start | sync, 0, let_go, answer, last, read], "timeout": [start, 5, tick, 9, 1, tick, 9, 1],
        "one_ends_another_begins": [start | again, 3, start | again, 0, answer, last, tick, 9, 0, read, fail_all],
        "cut": [room, 9, start, 0, start | reserved, 0, room, 3, write_on, fail_all], "closed": [start, 0, fail_all, start, 0],
        "many": [start, 0] * 13 + [answer, 3, answer, 5, read] + [abandon, 1] * 3 + [start | sync, 0] * 5 + [fail_all]
}.items():
    write("calls", name, bytes(steps))


# --- scripts of lanes: see step() in lane_transport.cpp ---------------------------------------------------------------
(tail_by, head_by, tail_to, head_to, fill, waits, word, say, bells, descriptors, peer, read_ring, write_ring, wait_for, watch,
 ask) = range(16)
by_futex, by_socket, its_reader, its_writer = 1, 2, 1, 0
short = lambda number: list(number.to_bytes(2, "big"))
cursor = lambda number: list(number.to_bytes(4, "big"))
sends = lambda size: [tail_by, *short(size)]
takes = lambda size: [head_by, *short(size)]
reads = lambda size: [read_ring, *short(size - 1)]
writes = lambda size, handles=0: [write_ring, *short(size), handles]
hears, ends = [peer, 1], [peer, 0]
rings = lambda times: [bells, times - 1]
brings = lambda count: [descriptors, count - 1]
watches_reading, watches_writing, watches_both, unwatches = [watch, 2], [watch, 1], [watch, 3], [watch, 0]
waits_a_little = lambda what: [wait_for, what]
looks = lambda what: [wait_for, what | 4]
lingers, lingers_on, event, flush, wake, collect = [ask, 0], [ask, 1], [ask, 2], [ask, 3], [ask, 4], [ask, 6]
shuts = [ask, 5, 0]
for name, steps in {
        "through": [fill, 0, 0, 5, *b"hello", *sends(5), *reads(3), *reads(9), *writes(100), *flush, *takes(100), *writes(0)],
        "around": (sends(2000) + reads(4096)) * 5 + (writes(3000) + takes(1500) * 2) * 4,
        "full": writes(8000) + writes(1) + watches_writing + takes(4) + writes(8000) + sends(2047) * 2 + reads(4096),
        "tail_ahead": [tail_to, *cursor(4097)] + reads(1) + reads(1) + writes(1) + looks(2) + watches_reading + event,
        "tail_back": sends(100) + reads(50) + [tail_to, *cursor(49)] + reads(1) + writes(1),
        "tail_over": [tail_to, *cursor(0xffffffff)] + watches_reading + looks(2) + reads(1) + sends(10) + reads(1),
        "head_ahead": writes(10) + [head_to, *cursor(11)] + writes(5000) + reads(1) + writes(1),
        "head_back": writes(100) + takes(100) + writes(5000) + [head_to, *cursor(99)] + writes(1) + looks(1) + reads(1),
        "rung": watches_reading + rings(1) + event + sends(4) + reads(4) + watches_both + rings(2) + event + reads(1),
        "rung_unasked": rings(1) + reads(1) + reads(1),
        "rung_twice": watches_reading + rings(2) + event + reads(1) + writes(1),
        "rung_after_it_watched": watches_reading + unwatches + rings(1) + reads(1) + rings(1) + reads(1),
        "said": watches_reading + [say, 1, 0x93] + event + reads(1),
        "said_more": watches_both + [say, 3, 0xc0, 0xc0, 0x01] + reads(1),
        "said_all": [say, 255, *[0xc0] * 255] + reads(1),
        "handles": brings(2) + sends(10) + reads(10) + collect + [2] + brings(1) + brings(3) + collect + [39] + reads(1),
        "handles_of_one_to_come": brings(16) + reads(1) + sends(1) + reads(1) + collect + [16] + reads(1),
        "handles_of_none": brings(16) + brings(1) + reads(1) + reads(1),
        "handles_of_many": sends(50) + brings(16) * 6 + event + collect + [39] + reads(50) + reads(1),
        "more_handles": brings(20) + reads(1), "handles_and_bell": watches_reading + rings(1) + brings(1) + reads(1),
        "handles_and_bells": rings(1) + brings(1) + event + reads(1),
        "it_sleeps": [waits, its_reader, 4 | by_futex] + writes(10) + [waits, its_reader, 8 | by_socket] + writes(10)
        + flush * 2 + hears + writes(1) + [waits, its_reader, 12 | by_socket] + flush + hears,
        "it_waits_for_room": sends(2047) * 2 + [waits, its_writer, 4 | by_socket] + reads(2000) + reads(200) + hears
        + sends(2047) + [waits, its_writer, 8 | by_futex] + reads(4096),
        "it_asks_for_bells": sum(([waits, its_reader, 4 * i | by_socket] + writes(1) for i in range(1, 60)), []) + hears,
        "sleeps": waits_a_little(2) + waits_a_little(1) + writes(8000) + waits_a_little(1) + waits_a_little(3) + sends(1)
        + waits_a_little(2) + reads(1), "woken": wake + looks(2) + looks(2) + wake + waits_a_little(3),
        "one_cpu": [word, 1, 1] + looks(2) + waits_a_little(2) + lingers + [word, 0, 9] + waits_a_little(2),
        "lingers": lingers + lingers_on * 3 + sends(4) + reads(4) + lingers + lingers_on + watches_reading + looks(2),
        "ends": sends(4) + ends + reads(2) + reads(2) + reads(1) + writes(8000) + writes(1) + looks(3) + sends(1) + reads(1),
        "ends_rung": watches_reading + rings(1) + ends + event + reads(1), "ends_wrongly": rings(1) + ends + reads(1),
        "shut": writes(10) + shuts + writes(10) + looks(3) + waits_a_little(1) + reads(1),
        "gives_handles": writes(10, 3) + writes(10, 16) + hears + ends + writes(10, 1) + watches_writing,
        "gives_too_many": writes(1, 16) * 300 + looks(1) + looks(3) + watches_writing
}.items():
    write("lane_transport", name, bytes([1, name == "sleeps", *steps]))  # takes descriptors; does not spin
    if name in ("lingers", "handles", "handles_of_none", "handles_and_bells"):
        write("lane_transport", name + "_otherwise", bytes([0, 1, *steps]))

# --- references in values; as steps of the allocator they are what they are ---------------------------------------------
def reference(kind, arena, offset, length):
    return b"\xc7\x15\x02" + struct.pack(">BIQQ", kind, arena, offset, length)


for name, content in {
        "bytes": reference(0, 1, 4096, 100), "text": b"\x92\x01" + reference(1, 1, 0, 5), "unknown": reference(2, 1, 0, 5),
        "beyond": reference(0, 1, 65530, 7), "overflow": reference(0, 1, (1 << 64) - 1, 2),
        "long": reference(0, 1, 0, 1 << 33), "among_others": b"\x83\xa1a" + reference(0, 1, 0, 65536) + b"\xc4\x02xy"
        + b"\xcb" + bytes(8) + b"\xd9\x01z\x92\xd4\x01\x00" + reference(1, 9, 1, 0), "cut": reference(0, 1, 0, 5)[:-1],
        "other_size": b"\xc7\x14\x02" + bytes(20), "taken_and_given": bytes.fromhex("10002000300090001000a0007fff8000")
}.items():
    write("references", name, content)
