#!/usr/bin/env python3
"""Whether the wall clock is read where a time is told and nowhere else, so that who sets it moves no deadline."""
import pathlib
import re
import sys

top = pathlib.Path(__file__).resolve().parents[2]
folders = ["host", "ipc", "plugin_api", "sdk"]

# Types and conversions of a time that is there already ask no clock. libstdc++'s high_resolution_clock is its system_clock.
wall = re.compile(r"""
    \bsystem_clock\b (?!::(?:time_point|duration|to_time_t|from_time_t)\b)
  | \b(?:high_resolution|file|utc|tai|gps|second|microsec)_clock\b
  | \b(?:FUTEX_)?CLOCK_(?:REALTIME|TAI)\w* | \bFUTEX_LOCK_PI\b
  | \b(?:gettimeofday|timespec_get|ftime|last_write_time)\b
  | (?<![\w.>]) (?:std::|::)? time \s*\(\s* (?:nullptr|NULL|0|&\s*\w+)? \s*\)
  | \b(?:deadline|system)_timer\b | \b(?:pthread_\w+_|sem_|mq_)timed\w+ | \btimed_(?:wait|lock|send|receive)\w*
""", re.VERBOSE)

# Where it is read, and all of the line that does.
places = {
    "host/daemon/log_book.hpp": "std::chrono::system_clock::time_point when = std::chrono::system_clock::now();",
    "host/src/worker_end.cpp": "report.time = std::chrono::system_clock::now();",
    # Held against a time of the file system's, which goes by that clock.
    "host/src/sandbox/plugin_file.cpp": "::clock_gettime(CLOCK_REALTIME, &now);",
}

caught = ["const auto until = std::chrono::system_clock::now() + limit;", "using clock = std::chrono::system_clock;",
          "auto now = std::chrono::high_resolution_clock::now();", "clock_gettime(CLOCK_REALTIME_COARSE, &now);",
          "timerfd_create(CLOCK_REALTIME, 0);", "const auto now = ::time(nullptr);", "time_t now = time(&other);",
          "pthread_cond_timedwait(&changed, &mutex, &until);", "boost::asio::system_timer timer;",
          "gettimeofday(&now, nullptr);"]
passed = ["const auto now = std::chrono::steady_clock::now();", "report.time(0);", "clock_gettime(CLOCK_MONOTONIC, &now);",
          "std::string text(std::chrono::system_clock::time_point time);", '"gettimeofday", "time"', "// of CLOCK_REALTIME"]


def code(text):
    """Without its comments, and with nothing in its literals; the lines stay."""
    tokens = r"//[^\n]*|/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.[^'\n]*)'"
    return re.sub(tokens, lambda found: "\n" * found[0].count("\n") or " ", text, flags=re.DOTALL)


def reads(text):
    lines = text.splitlines()
    return [(number, lines[number - 1].strip()) for number, line in enumerate(code(text).splitlines(), 1) if wall.search(line)]


def main():
    for line in caught:
        assert reads(line), f"not caught: {line}"
    for line in passed:
        assert not reads(line), f"caught: {line}"
    found, wrong = {}, []
    for folder in folders:
        for file in sorted((top / folder).rglob("*")):
            if file.suffix not in (".c", ".cpp", ".h", ".hpp"):
                continue
            name = str(file.relative_to(top))
            for number, line in reads(file.read_text(encoding="utf-8")):
                if places.get(name) == line:
                    found[name] = found.get(name, 0) + 1
                else:
                    wrong.append(f"{name}:{number}: {line}")
    wrong += [f"{name}: reads it once, it was said" for name in places if found.get(name) != 1]
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
