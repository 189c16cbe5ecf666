"""Hosts and plugins."""

import asyncio
import atexit
import ctypes
import json
import os
import weakref

from . import _calls, _errors, _library

_LEVELS = ("debug", "info", "warning", "error")


def to_toml(values):
    """Keyword arguments as the TOML that the library reads. A dict is an inline table."""

    def value_text(value):
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return repr(value)
        if isinstance(value, (str, os.PathLike)):
            return json.dumps(os.fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(value_text, value)) + "]"
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{value_text(str(key))} = {value_text(each)}" for key, each in value.items()) + " }"
        raise _errors.Misuse(f"an option can't be a {type(value).__name__}")

    return "".join(f"{key} = {value_text(each)}\n" for key, each in values.items() if each is not None).encode()


@_library.LOG
def _on_log(context, level, plugin, pid, text):
    told = _library.contexts.get(context)
    if told and told["log"]:
        told["log"](_LEVELS[level], _library.text_of(plugin), pid, _library.text_of(text))


@_library.TOLD
def _on_lifecycle(context, kind, plugin, event):
    told = _library.contexts.get(context)
    if told and told["lifecycle"]:
        told["lifecycle"](json.loads(_library.text_of(event)))


@_library.VIOLATION
def _on_violation(context, plugin, event):
    told = _library.contexts.get(context)
    if told and told["violation"]:
        told["violation"](json.loads(_library.text_of(event)))


@_library.EVENT
def _on_event(context, name, value, size, handles, count):
    handler = _library.contexts.get(context)

    def take(index):
        fd = handles[index] if index < count else -1
        if fd >= 0:
            handles[index] = -1
        return fd

    if handler:
        handler(_library.text_of(name), _library.unpack(_library.bytes_at(value, size), _calls.with_handles(take)))


@_library.LENT
def _on_lent(context, arguments, size, answer):
    function = _library.contexts.get(context)
    try:
        if function is None:
            raise RuntimeError("the function is gone")
        special = _calls.with_handles(lambda index: _library.bh_answer_take_handle(answer, index))
        handles = []
        packed = _calls.pack(function(*_library.unpack(_library.bytes_at(arguments, size), special)), handles)
        if any(_library.bh_answer_add_handle(answer, each) < 0 for each in handles):
            raise ValueError("too many descriptors, or one that is not open")
        _library.bh_answer_value(answer, packed, len(packed))
    except BaseException as problem:  # for the plugin to handle
        _library.bh_answer_error(answer, f"{type(problem).__name__}: {problem}".encode("utf-8", "replace"))


_hosts = weakref.WeakSet()


@atexit.register
def _close_hosts():  # no callback may come when Python is gone
    for host in list(_hosts):
        host.close()


class Host:
    """A host: the application's side of all its plugins. Use it in a `with`, or close() it.

    on_log(level, plugin, pid, text), on_lifecycle(event) and on_violation(event) are told, one at a time, what happens;
    events are dicts as in bulkhead/host.h. The options are those of bh_host_new(): worker, crash_dir, cgroup, ...
    """

    def __init__(self, *, on_log=None, on_lifecycle=None, on_violation=None, **options):
        self._address = None
        self._context = _library.contexts.add({"log": on_log, "lifecycle": on_lifecycle, "violation": on_violation})
        callbacks = _library.Callbacks(ctypes.sizeof(_library.Callbacks), self._context)
        if on_log:
            callbacks.on_log = _on_log
        if on_lifecycle:
            callbacks.on_lifecycle = _on_lifecycle
        if on_violation:
            callbacks.on_violation = _on_violation
        try:
            self._address = _library.checked(_library.bh_host_new, to_toml(options), ctypes.byref(callbacks))
        except BaseException:
            _library.contexts.take(self._context)
            raise
        _hosts.add(self)

    def load(self, file, *, functions=None, **options):
        """Loads a plugin, and gives back a Plugin. `functions` are what it may call here, by name. The options are those
        of bh_host_load(): instances=2, deadline="5s", memory_limit="64 MiB", policy={"read": ["/usr/share"]}, ..."""
        return self._start(_library.bh_host_load, os.fsencode(file), functions, options)

    def launch(self, argv, *, functions=None, **options):
        """Starts a program that speaks the worker protocol."""
        words = (ctypes.c_char_p * (len(argv) + 1))(*[os.fsencode(word) for word in argv])
        return self._start(_library.bh_host_launch, words, functions, options)

    def _start(self, function, what, functions, options):
        lent = [(name.encode(), _library.contexts.add(each)) for name, each in (functions or {}).items()]
        table = (_library.Function * len(lent))(*[(name, _on_lent, number) for name, number in lent])
        try:
            address = _library.checked(function, self._address, what, to_toml(options), table, len(lent))
        except BaseException:
            for _, number in lent:
                _library.contexts.take(number)
            raise
        return Plugin(address, [number for _, number in lent])

    def metrics(self):
        """In the text format that Prometheus scrapes."""
        return _library.taken_text(_library.checked(_library.bh_host_metrics, self._address))

    def reset(self):
        """Lets workers be started again after the fork server had died too often."""
        _library.bh_host_reset(self._address)

    def close(self):
        """Unloads all plugins. No callback runs after it."""
        if self._address is not None:
            _library.bh_host_shutdown(self._address)
            _library.contexts.take(self._context)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):  # not before: other threads may be in there
        address, self._address = self._address, None
        if address is not None:
            _library.bh_host_free(address)
            _library.contexts.take(self._context)


class Plugin:
    """A loaded plugin. Unloaded by close(), at the end of a `with`, or with its host."""

    def __init__(self, address, lent):
        self._address = address
        self._contexts = lent
        self.name = _library.text_of(_library.bh_plugin_name(address))

    def call(self, method, *arguments, deadline=None, cancel=None, on_progress=None):
        """Calls a method and gives back its result. deadline: seconds, float("inf") for none; cancel: a Cancel;
        on_progress(value): told what the method reports. Blocks until the deadline at most."""
        request = _calls.Request(method, arguments, deadline, cancel, on_progress)
        try:
            return _calls.take_reply(_library.checked(_library.bh_plugin_call, self._address, *request.arguments()))
        finally:
            request.over()

    def make_blob(self, size):
        """A Blob of `size` bytes to fill, for arguments of this plugin's calls; or one with these bytes."""
        filled = None if isinstance(size, int) else memoryview(size).cast("B")
        blob = _calls.Blob(_library.checked(_library.bh_plugin_make_blob, self._address,
                                            size if filled is None else len(filled)))
        if filled is not None and len(filled):
            blob.view[:] = filled
        return blob

    def call_blob(self, method, *arguments, deadline=None, cancel=None, on_progress=None):
        """call() for a result of bytes or text, which is given as a Blob: where it lies, if it came by shared memory."""
        request = _calls.Request(method, arguments, deadline, cancel, on_progress)
        try:
            reply = _library.checked(_library.bh_plugin_call, self._address, *request.arguments())
        finally:
            request.over()
        try:
            return _calls.Blob(_library.checked(_library.bh_reply_blob, reply))
        finally:
            _library.bh_reply_free(reply)

    def submit(self, method, *arguments, deadline=None, on_progress=None):
        """Starts a call: a concurrent.futures.Future, whose cancel() asks the plugin to stop."""
        cancel = _calls.Cancel()
        request = _calls.Request(method, arguments, deadline, cancel, on_progress)
        return _calls.start(self, request, cancel)

    async def call_async(self, method, *arguments, deadline=None, on_progress=None):
        """call() for asyncio. Cancelling the task cancels the call."""
        call = self.submit(method, *arguments, deadline=deadline, on_progress=on_progress)
        return await asyncio.wrap_future(call)

    def open(self, method, *arguments, deadline=None, cancel=None, on_progress=None, window=0):
        """Calls a method that streams: a Stream."""
        request = _calls.Request(method, arguments, deadline, cancel, on_progress, window)
        return _calls.Stream(_library.checked(_library.bh_plugin_open, self._address, *request.arguments()), request)

    def on_event(self, handler):
        """handler(name, value) is told of each event of the plugin; None: nobody is. Values may have a Handle in them."""
        number = _library.contexts.add(handler) if handler else None
        if number:
            self._contexts.append(number)
        _library.bh_plugin_on_event_with_handles(self._address, _on_event if handler else _library.EVENT(), number)

    def info(self):
        """What it says of itself: a dict with id, version, methods, ..."""
        return json.loads(_library.taken_text(_library.checked(_library.bh_plugin_info_json, self._address)))

    def status(self):
        """How it is: a dict with state, serving, workers, ..."""
        return json.loads(_library.taken_text(_library.checked(_library.bh_plugin_status_json, self._address)))

    def reload(self, file):
        """Replaces it by the version in `file`, without losing a call."""
        _library.checked(_library.bh_plugin_reload, self._address, os.fsencode(file))

    def recycle(self):
        """Gives it fresh workers, one after the other. Does not wait."""
        _library.checked(_library.bh_plugin_recycle, self._address)

    def reset(self):
        """Forgets all its failures. Does not wait."""
        _library.checked(_library.bh_plugin_reset, self._address)

    def save_state(self):
        """The state of a plugin that keeps some: bytes."""
        size = ctypes.c_size_t()
        address = _library.checked(_library.bh_plugin_save_state, self._address, ctypes.byref(size))
        return _library.taken_bytes(address, size.value)

    def close(self):
        """Ends its workers in good order. Calls after it raise Unavailable."""
        _library.bh_plugin_unload(self._address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):  # not before: other threads may be in there
        _library.bh_plugin_free(self._address)
        for number in self._contexts:
            _library.contexts.take(number)
