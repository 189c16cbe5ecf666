"""Tests of the Python module, against real plugins in real workers."""

import asyncio
import gc
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import unittest

import bulkhead

PLUGINS = os.environ["BULKHEAD_TEST_PLUGINS"]
WORKER = os.environ["BULKHEAD_TEST_WORKER"]
PEER = pathlib.Path(__file__).resolve().parents[3] / "tests/peers/python/worker.py"


def plugin(name):
    return os.path.join(PLUGINS, name + ".so")


def children():
    """The processes that this one has."""
    found = set()
    for thread in pathlib.Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (thread / "children").read_text(encoding="ascii").split()))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            pass
    return found


class Case(unittest.TestCase):
    def host(self, **options):
        host = bulkhead.Host(worker=WORKER, **options)
        self.addCleanup(host.close)
        return host

    def load(self, plugin_name, **options):
        return self.host().load(plugin(plugin_name), **options)


class Calls(Case):
    def test_values_come_back_as_they_went(self):
        chaos = self.load("chaos")
        for value in (None, True, -3, 2**63, 1.5, "text", "", "naïve", b"\x00\xff", [1, [2]], {"a": {"b": [None]}}):
            self.assertEqual(chaos.call("echo", value), value)
        self.assertEqual(chaos.call("echo", (1, 2)), [1, 2])
        self.assertEqual(chaos.call("echo", {1: "one"}), {1: "one"})

    def test_each_outcome_is_an_exception_of_its_own(self):
        chaos = self.load("chaos")
        with self.assertRaises(bulkhead.Rejected) as caught:
            chaos.call("no_such_method")
        self.assertIn("no_such_method", str(caught.exception))
        with self.assertRaises(bulkhead.PluginError):
            chaos.call("echo")
        with self.assertRaises(TimeoutError) as caught:
            chaos.call("sleep_ms", 60_000, deadline=0.05)
        self.assertEqual(caught.exception.outcome, "timeout")
        with self.assertRaises(bulkhead.WorkerLost) as caught:
            chaos.call("die_of", 1)
        self.assertEqual(caught.exception.report["method"], "die_of")
        self.assertEqual(caught.exception.report["signal"], "SIGABRT")
        self.assertEqual(chaos.call("echo", 1), 1)

    def test_details_of_an_error_are_a_value(self):
        chaos = self.load("chaos")
        with self.assertRaises(bulkhead.PluginError) as caught:
            chaos.call("fail_with", "bad", {"code": 7, "lines": [1, 2]})
        self.assertEqual((caught.exception.message, caught.exception.data), ("bad", {"code": 7, "lines": [1, 2]}))
        with self.assertRaises(bulkhead.PluginError) as caught:
            chaos.call("echo")
        self.assertIsNone(caught.exception.data)

    def test_misuse_is_told_before_anything_is_sent(self):
        chaos = self.load("chaos")
        for arguments, options in (((2**70,), {}), ((1,), {"deadline": 0}), ((1,), {"deadline": float("nan")})):
            with self.assertRaises(bulkhead.Misuse):
                chaos.call("echo", *arguments, **options)
        for value in (object(), [bulkhead.Host], "\ud800"):
            with self.assertRaisesRegex(bulkhead.Misuse, "a plugin can't be given"):
                chaos.call("echo", value)

    def test_a_call_is_cancelled_from_another_thread(self):
        chaos = self.load("chaos")
        cancel = bulkhead.Cancel()
        threading.Thread(target=cancel.request).start()
        with self.assertRaises(bulkhead.Cancelled):
            chaos.call("sleep_ms", 60_000, cancel=cancel, deadline=float("inf"))

    def test_progress_is_told_in_order_while_the_call_lasts(self):
        seen = []
        self.assertEqual(self.load("chaos").call("progress", 3000, on_progress=seen.append), 3000)
        told = len(seen)
        self.assertGreater(told, 0)
        self.assertEqual(seen, list(range(told)))

    def test_futures(self):
        chaos = self.load("chaos")
        calls = [chaos.submit("echo", number) for number in range(50)]
        self.assertEqual([call.result(60) for call in calls], list(range(50)))
        slow = chaos.submit("sleep_ms", 60_000)
        self.assertTrue(slow.cancel())
        self.assertIsInstance(slow.exception(60), bulkhead.Cancelled)
        self.assertFalse(slow.cancel())

    def test_asyncio(self):
        chaos = self.load("chaos", instances=2)

        async def main():
            self.assertEqual(await asyncio.gather(*[chaos.call_async("echo", number) for number in range(10)]),
                             list(range(10)))
            with self.assertRaises(bulkhead.Rejected):
                await chaos.call_async("no_such_method")

        asyncio.run(main())

    def test_descriptors_go_along_and_stay_ours(self):
        chaos = self.load("chaos")
        with tempfile.TemporaryFile() as file:
            file.write(b"contents")
            file.seek(0)
            self.assertEqual(chaos.call("read_handle", bulkhead.Handle(file)), "contents")
            self.assertEqual(file.tell(), 8)  # shared with the worker, and still open here

    def test_descriptors_come_with_events_and_go_both_ways_with_functions(self):
        def read(file, size):
            with file:
                return os.read(file.fileno(), size).decode()

        with open("/etc/passwd", "rb") as passwd:
            guest = self.load("guest", policy={"read": ["/etc/passwd"], "handles": True},
                              functions={"read": read, "open": lambda name: bulkhead.Handle(passwd)})
            seen = []
            told = threading.Event()
            guest.on_event(lambda name, value: (seen.append((name, value)), told.set()))
            self.assertTrue(guest.call("emit_file", "/etc/passwd"))
            self.assertTrue(told.wait(30))
            ((name, (path, file)),) = seen
            self.assertEqual((name, path, read(file, 5)), ("file", "/etc/passwd", "root:"))
            self.assertEqual(guest.call("lend_file", "/etc/passwd"), "root:")
            self.assertEqual(guest.call("borrow_file", "x"), "root:")

    def test_blobs_go_by_shared_memory(self):
        blobs = self.load("blobs")
        size = 40 << 20  # more than a message may have
        data = blobs.make_blob(size)
        view = data.view
        view[:3] = b"abc"
        self.assertEqual((len(data), bytes(view[:3])), (size, b"abc"))
        back = blobs.call_blob("invert", data)
        self.assertEqual((len(back), bytes(back.view[:3])), (size, bytes(255 - each for each in b"abc")))
        with self.assertRaises(TypeError):
            back.view[0] = 1
        kept = back.view
        del back
        gc.collect()
        self.assertEqual(kept[2], 255 - ord("c"))  # the view keeps it
        self.assertEqual(blobs.call("sum", blobs.make_blob(b"\x01\x02")), 3)
        self.assertEqual(len(blobs.call_blob("text", 0).view), 0)
        with self.assertRaises(bulkhead.PluginError):
            blobs.call_blob("sum", data)
        with self.assertRaises(bulkhead.Rejected):
            blobs.make_blob(1 << 40)

    def test_a_plugin_is_unloaded_by_with(self):
        host = self.host()
        with host.load(plugin("chaos")) as chaos:
            self.assertEqual(chaos.status()["serving"], 1)
        with self.assertRaises(bulkhead.Unavailable):
            chaos.call("echo", 1)

    def test_closing_while_others_call_is_safe(self):
        host = self.host()
        chaos = host.load(plugin("chaos"), supervision={"drain": {"calls": "10ms"}})
        ended, begun = [], threading.Barrier(5)

        def call():
            begun.wait()
            try:
                while True:
                    chaos.call("sleep_ms", 1)
            except bulkhead.Error as problem:
                ended.append(problem)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        host.close()
        for thread in threads:
            thread.join(60)
        self.assertEqual(len(ended), 4)


class Loading(Case):
    def test_options_reach_the_plugin(self):
        chaos = self.load("chaos", name="wild", instances=2, environment=["COLOUR=red \"\x7f"],
                          policy={"threads": 8, "read": ["/usr/share"]})
        self.assertEqual(chaos.name, "wild")
        self.assertEqual(chaos.status()["serving"], 2)
        self.assertEqual(chaos.call("environment", "COLOUR"), "red \"\x7f")
        self.assertIn("sleep_ms", [each["name"] for each in chaos.info()["methods"]])

    def test_mistakes_in_options_are_told(self):
        host = self.host()
        with self.assertRaisesRegex(ValueError, "there is no key instnaces"):
            host.load(plugin("chaos"), instnaces=2)
        with self.assertRaisesRegex(bulkhead.Misuse, "an option can't be a object"):
            host.load(plugin("chaos"), instances=object())
        with self.assertRaises(bulkhead.Unavailable):
            bulkhead.Host(worker="/nowhere")
        with self.assertRaises(bulkhead.Error):
            host.load("/no/such.so")

    def test_functions_are_lent(self):
        def broken():
            raise KeyError("nothing")

        chaos = self.load("chaos", functions={"join": lambda *words: "-".join(words), "broken": broken})
        self.assertEqual(chaos.call("call_host", "join", ["a", "b"]), "a-b")
        with self.assertRaisesRegex(bulkhead.PluginError, "KeyError: 'nothing'"):
            chaos.call("call_host", "broken", [])
        with self.assertRaisesRegex(bulkhead.PluginError, "lends no function"):
            chaos.call("call_host", "system", ["id"])

    def test_programs_are_launched(self):
        host = self.host()
        peer = host.launch(["/usr/bin/python3", PEER], functions={"double": lambda number: number * 2}, name="peer",
                           start_timeout="60s")
        self.assertEqual((peer.name, peer.info()["id"]), ("peer", "python"))
        self.assertEqual((peer.call("upper", "hi"), peer.call("relay", "double", 21)), ("HI", 42))
        with self.assertRaisesRegex(bulkhead.Misuse, "argv is empty"):
            host.launch([])
        with self.assertRaisesRegex(bulkhead.Unavailable, "exited with status 1"):
            host.launch(["/bin/false"])

    def test_what_a_sandbox_denies_is_told(self):
        told, denied = [], threading.Event()

        def violation(event):
            if event["system_call"] == "socket":
                told.append(event)
                denied.set()

        guest = self.host(on_violation=violation).load(plugin("guest"))
        with self.assertRaisesRegex(bulkhead.PluginError, "EPERM"):
            guest.call("connect_to", 443, False)
        self.assertTrue(denied.wait(60))
        self.assertEqual([told[0][key] for key in ("plugin", "method", "result", "grant")],
                         ["guest", "connect_to", "EPERM", "connect:PORT"])

    def test_a_plugin_that_was_given_up_serves_again_after_a_reset(self):
        chaos = self.load("chaos", supervision={"intensity": {"restarts": 0, "period": "60s"}})
        with self.assertRaises(bulkhead.WorkerLost):
            chaos.call("die_of", 1)
        with self.assertRaisesRegex(bulkhead.Unavailable, "more than 0 restarts"):
            chaos.call("echo", 1)
        chaos.reset()
        self.assertEqual(chaos.call("echo", 1), 1)

    def test_a_host_whose_fork_server_was_given_up_serves_again_after_a_reset(self):
        deaths = threading.Semaphore(0)
        before = children()
        host = self.host(on_lifecycle=lambda event: event["kind"].startswith("fork server ") and deaths.release())
        for _ in range(3):
            while not (servers := children() - before):  # the next one may not be there yet
                time.sleep(0.001)
            before |= servers
            for server in servers:
                os.kill(server, signal.SIGKILL)
            self.assertTrue(deaths.acquire(timeout=60))
        with self.assertRaisesRegex(bulkhead.Unavailable, "died 3 times"):
            host.load(plugin("chaos"))
        host.reset()
        self.assertEqual(host.load(plugin("chaos")).call("echo", 1), 1)

    def test_close_ends_calls_and_callbacks(self):
        told = []
        host = self.host(on_lifecycle=told.append)
        chaos = host.load(plugin("chaos"), supervision={"drain": {"calls": "10ms"}})
        call = chaos.submit("sleep_ms", 60_000)
        host.close()
        self.assertTrue(call.done())
        self.assertIsInstance(call.exception(), bulkhead.Error)
        count = len(told)
        self.assertGreater(count, 0)
        with self.assertRaises(bulkhead.Unavailable):
            chaos.call("echo", 1)
        with self.assertRaisesRegex(bulkhead.Unavailable, "shut down"):
            host.load(plugin("chaos"))
        host.close()
        self.assertEqual(len(told), count)

    def test_logs_lifecycle_and_events(self):
        died, ticked = threading.Event(), threading.Event()

        def lifecycle(event):
            if event["kind"] == "exited" and event["report"].get("signal") == "SIGABRT":
                died.set()

        host = self.host(on_lifecycle=lifecycle, on_log=lambda *line: None)
        chaos = host.load(plugin("chaos"))
        chaos.on_event(lambda name, value: (name, value) == ("tick", {"n": 1}) and ticked.set())
        chaos.call("emit", "tick", {"n": 1}, 1)
        self.assertTrue(ticked.wait(60))
        with self.assertRaises(bulkhead.WorkerLost):
            chaos.call("die_of", 0)
        self.assertTrue(died.wait(60))
        self.assertIn('plugin="chaos"', host.metrics())

    def test_what_a_callback_raises_is_reported_and_harmless(self):
        reported = threading.Event()
        chaos = self.load("chaos")
        before, sys.unraisablehook = sys.unraisablehook, lambda what: reported.set()
        try:
            chaos.on_event(lambda name, value: 1 / 0)
            chaos.call("emit", "tick", 0, 1)
            self.assertTrue(reported.wait(60))
        finally:
            sys.unraisablehook = before
        self.assertEqual(chaos.call("echo", 1), 1)

    def test_reload_and_state(self):
        counter = self.load("counter", state={"keep": True, "every": 0})
        counter.call("add", 5)
        counter.reload(plugin("counter_2"))
        self.assertEqual((counter.call("version"), counter.call("total")), (2, 5))
        self.assertIsInstance(counter.save_state(), bytes)

    def test_hosts_and_plugins_that_are_dropped_go(self):
        before = children()
        host = bulkhead.Host(worker=WORKER)
        chaos = host.load(plugin("chaos"))
        mine = children() - before
        self.assertGreaterEqual(len(mine), 2)  # the fork server and a worker
        del chaos, host
        gc.collect()
        self.assertFalse(mine & children())


class Streams(Case):
    def test_results_are_iterated(self):
        streaming = self.load("streaming")
        with streaming.open("count", 1000) as numbers:
            self.assertEqual(list(numbers), list(range(1000)))
            self.assertEqual(numbers.result(), 1000)

    def test_arguments_are_sent(self):
        with self.load("streaming").open("sum") as total:
            for number in range(100):
                self.assertTrue(total.send(number))
            total.close_sending()
            self.assertEqual(total.result(), 4950)
            self.assertFalse(total.send(1))

    def test_a_stream_that_fails_raises_after_its_items(self):
        seen = []
        with self.assertRaisesRegex(bulkhead.PluginError, "that was all"):
            for item in self.load("streaming").open("fail_after", 3):
                seen.append(item)
        self.assertEqual(seen, [0, 1, 2])

    def test_one_that_is_left_is_cancelled(self):
        streaming = self.load("streaming")
        with streaming.open("flood", 4096) as items:
            next(items)
        with self.assertRaises(bulkhead.Cancelled):
            items.result()


if __name__ == "__main__":
    unittest.main()
