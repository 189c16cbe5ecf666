"""Tests of the Python module, against real plugins in real workers."""

import asyncio
import gc
import os
import pathlib
import sys
import tempfile
import threading
import unittest

import bulkhead

PLUGINS = os.environ["BULKHEAD_TEST_PLUGINS"]
WORKER = os.environ["BULKHEAD_TEST_WORKER"]


def plugin(name):
    return os.path.join(PLUGINS, name + ".so")


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
        def children():
            return {pid for task in pathlib.Path("/proc/self/task").iterdir()
                    for pid in (task / "children").read_text(encoding="ascii").split()}

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
