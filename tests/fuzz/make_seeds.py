#!/usr/bin/env python3
"""Writes the seeds of those fuzzers whose input is no message: corpus/manifest, fork_requests, calls, references."""
import pathlib
import struct

corpus = pathlib.Path(__file__).parent / "corpus"


def write(fuzzer, name, content):
    (corpus / fuzzer).mkdir(parents=True, exist_ok=True)
    (corpus / fuzzer / name).write_bytes(content)


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
