"""Calls: arguments and results as Python's values, deadlines, cancelling, streams."""

import concurrent.futures
import ctypes
import os

import msgpack

from . import _errors, _library

_HANDLE, _BLOB = 1, 2  # extension types


class Handle:
    """A file descriptor: passed to a plugin as an argument or by a function that it was lent, or sent by one with its
    result, with an event or to a function.

    One that came is closed by close(), at the end of a `with`, or when it is collected, unless detach() has taken it. Expect
    any kind of file.
    """

    def __init__(self, fd, owned=False):
        self.fd = fd if isinstance(fd, int) else fd.fileno()
        self._owned = owned

    def fileno(self):
        return self.fd

    def detach(self):
        self._owned = False
        return self.fd

    def close(self):
        if self._owned:
            self._owned = False
            os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


class Blob:
    """Bytes in memory that is shared with a plugin's workers: Plugin.make_blob() makes one to fill and pass as an argument,
    Plugin.call_blob() gives a result as one. `view` is a memoryview of it, which keeps it; that of a result is read-only, and
    its worker can change it for as long as it lives."""

    def __init__(self, address):
        self._address = address
        size = ctypes.c_size_t()
        data = _library.bh_blob_data(address, ctypes.byref(size))
        self._size, self._data = size.value, data
        self._writable = bool(_library.bh_blob_writable(address))

    def __len__(self):
        return self._size

    @property
    def view(self):
        if not self._size:
            return memoryview(b"")
        memory = (ctypes.c_ubyte * self._size).from_address(self._data)
        memory._blob = self  # which has to stay for as long as anybody looks at its bytes
        view = memoryview(memory).cast("B")
        return view if self._writable else view.toreadonly()

    def __bytes__(self):
        return _library.bytes_at(self._data, self._size)

    def __del__(self):
        _library.bh_blob_free(self._address)


class Cancel:
    """Cancels all the calls that it is given to: call.request()."""

    def __init__(self):
        self._address = _library.bh_cancel_new()
        if not self._address:
            raise MemoryError

    def request(self):
        _library.bh_cancel_request(self._address)

    def __del__(self):
        if getattr(self, "_address", None):
            _library.bh_cancel_free(self._address)
            self._address = None


def pack(values, handles=None, blobs=None):
    """Packs what goes to a plugin. Descriptors are collected in `handles`, blobs in `blobs`."""

    def special(value):
        if isinstance(value, Handle) and handles is not None:
            handles.append(value.fd)
            return msgpack.ExtType(_HANDLE, bytes([len(handles) - 1]))
        if isinstance(value, Blob) and blobs is not None:
            if len(blobs) == 255:
                raise _errors.Misuse("a call can have 255 blobs at most")
            blobs.append(value)
            return msgpack.ExtType(_BLOB, bytes([len(blobs) - 1]))
        if isinstance(value, (set, frozenset)):
            return list(value)
        kind = "int of more than 64 bits" if isinstance(value, int) else type(value).__name__
        raise _errors.Misuse(f"a plugin can't be given a {kind}")

    try:
        return msgpack.packb(values, use_bin_type=True, default=special)
    except (OverflowError, UnicodeEncodeError, RecursionError) as problem:  # nested too deep is a ValueError
        raise _errors.Misuse(f"a plugin can't be given this: {problem}") from problem


def with_handles(take):
    """What makes a Handle of each descriptor in a value; take(index) gives it, or -1."""

    def special(code, data):
        if code == _HANDLE and len(data) == 1:
            fd = take(data[0])
            if fd >= 0:
                return Handle(fd, owned=True)
        return msgpack.ExtType(code, data)

    return special


def take_reply(address):
    """The result in a bh_reply, which is freed."""
    special = with_handles(lambda index: _library.bh_reply_handle(address, index))
    try:
        size = ctypes.c_size_t()
        value = _library.bh_reply_value(address, ctypes.byref(size))
        return _library.unpack(_library.bytes_at(value, size.value), special)
    finally:
        _library.bh_reply_free(address)


@_library.PROGRESS
def _on_progress(context, value, size):
    report = _library.contexts.get(context)
    if report:
        report(_library.unpack(_library.bytes_at(value, size)))


class Request:
    """What goes with one call: the method, packed arguments, options. Holds all that the library looks at."""

    def __init__(self, method, arguments, deadline=None, cancel=None, on_progress=None, window=0):
        self.method = method.encode()
        handles, self._blobs = [], []
        self.packed = pack(arguments, handles, self._blobs)
        self._blob_table = (ctypes.c_void_p * len(self._blobs))(*[each._address for each in self._blobs])
        self._handles = (ctypes.c_int * len(handles))(*handles)
        self._cancel = cancel
        options = self.options = _library.CallOptions()
        options.size = ctypes.sizeof(options)
        options.handles = self._handles
        options.handle_count = len(handles)
        options.blobs = self._blob_table
        options.blob_count = len(self._blobs)
        options.stream_window = window
        if deadline is not None:
            if not deadline > 0:
                raise _errors.Misuse("deadline is not a number of seconds above 0")
            forever = deadline == float("inf")
            options.deadline_ms = -1 if forever else max(1, min(round(deadline * 1000), 2**62))
        if cancel is not None:
            options.cancel = cancel._address
        self._progress = None
        if on_progress is not None:
            self._progress = options.context = _library.contexts.add(on_progress)
            options.on_progress = _on_progress

    def over(self):
        if self._progress is not None:
            _library.contexts.take(self._progress)

    def arguments(self):
        return self.method, self.packed, len(self.packed), ctypes.byref(self.options)


class Call(concurrent.futures.Future):
    """A call in progress. cancel() asks the plugin to stop; the outcome tells whether it did."""

    def __init__(self, plugin, request, cancel):
        super().__init__()
        self._plugin = plugin  # which must not go before
        self._request = request
        self._bulkhead_cancel = cancel
        self.set_running_or_notify_cancel()

    def cancel(self):
        if self.done():
            return False
        self._bulkhead_cancel.request()
        return True


@_library.DONE
def _on_done(context, reply, error):
    call = _library.contexts.take(context)
    call._request.over()
    try:
        result = take_reply(reply) if reply else None
        problem = None if reply else _library.exception_of(error)
    except BaseException as other:
        problem = other
    if problem is not None:
        call.set_exception(problem)
    else:
        call.set_result(result)


def start(plugin, request, cancel):
    call = Call(plugin, request, cancel)
    context = _library.contexts.add(call)
    try:
        _library.checked(_library.bh_plugin_call_async, plugin._address, *request.arguments(), _on_done, context)
    except BaseException:
        _library.contexts.take(context)
        request.over()
        raise
    return call


class Stream:
    """A call that takes arguments and gives results one by one: for item in stream. One that is left early is cancelled.

    Neither side runs further ahead than a window, so send() may wait for the plugin, and the plugin for us to take.
    """

    def __init__(self, address, request):
        self._address = address
        self._request = request

    def send(self, value):
        """Sends an item. False when the call has ended; result() says how."""
        packed = pack(value)
        return _library.checked(_library.bh_stream_send, self._address, packed, len(packed), failed=(-1,)) == 1

    def close_sending(self):
        """No more will be sent."""
        _library.bh_stream_close(self._address)

    def __iter__(self):
        return self

    def __next__(self):
        item, size = ctypes.c_void_p(), ctypes.c_size_t()
        if _library.checked(_library.bh_stream_next, self._address, ctypes.byref(item), ctypes.byref(size),
                            failed=(-1,)) == 0:
            raise StopIteration
        return _library.unpack(_library.taken_bytes(item.value, size.value))

    def result(self):
        """The method's own result, when it has ended; results not taken are dropped."""
        return take_reply(_library.checked(_library.bh_stream_finish, self._address))

    def cancel(self):
        """Ends the call if it goes on, and wakes all who wait for it."""
        _library.bh_stream_cancel(self._address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()

    def __del__(self):  # not before: other threads may be in there
        _library.bh_stream_free(self._address)
        self._request.over()
