"""Python's multiprocessing: see peer.cpp for what the driver asks. Bytes go over a Pipe as they are, without pickling."""
import multiprocessing
import platform
import sys
import time


def serve(connection, other):
    other.close()
    try:
        while True:
            connection.send_bytes(connection.recv_bytes())
    except (EOFError, ConnectionError):
        pass


class Worker:
    def __init__(self):
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(theirs, self.connection), daemon=True)
        self.process.start()
        theirs.close()

    def call(self, payload):
        self.connection.send_bytes(payload)
        return self.connection.recv_bytes()

    def end(self):
        self.process.kill()
        self.process.join()


def check(answer, payload):
    if len(answer) != len(payload):
        raise RuntimeError("the answer is not what was sent")


def calls(worker, payload, count):
    times = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        answer = worker.call(payload)
        times.append(time.perf_counter_ns() - begin)
        check(answer, payload)
    return times


def many(worker, payload, count, outstanding):
    begin = time.perf_counter_ns()
    connection = worker.connection
    sent = 0
    for got in range(count):
        while sent < count and sent - got < outstanding:
            connection.send_bytes(payload)
            sent += 1
        check(connection.recv_bytes(), payload)
    return [time.perf_counter_ns() - begin]


class Peer:
    def __init__(self):
        self.worker = None
        self.crowd = []

    def obey(self, line):
        for each in self.crowd:
            each.end()
        self.crowd = []
        what, *rest = line.split()
        if what == "spawn":
            begin = time.perf_counter_ns()
            made = Worker()
            check(made.call(bytes(16)), bytes(16))
            took = time.perf_counter_ns() - begin
            made.end()
            return [took / 1e3]
        if what == "crowd":
            for _ in range(int(rest[0])):
                self.crowd.append(Worker())
                self.crowd[-1].call(bytes(16))
            return [each.process.pid for each in self.crowd]
        self.worker = self.worker or Worker()
        if what == "worker":
            return [self.worker.process.pid]
        payload = bytes(range(256)) * (int(rest[0]) // 256) + bytes(range(int(rest[0]) % 256))
        if self.worker.call(payload) != payload:
            raise RuntimeError("the answer is not what was sent")
        work = {"calls": calls, "many": many}[what]
        return [nanoseconds / 1e3 for nanoseconds in work(self.worker, payload, *map(int, rest[1:]))]


def main():
    peer = Peer()
    print(f"ready Python multiprocessing\t{platform.python_version()}", flush=True)
    for line in sys.stdin:
        try:
            answer = " ".join(["ok", *map(str, peer.obey(line))])
        except Exception as error:  # told to the driver, whatever it is
            answer = f"error {error!r}"
        print(answer, flush=True)


main()
