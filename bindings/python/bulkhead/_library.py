"""The shared library: its functions with their types, and the border across which errors, bytes and callbacks go.

Callbacks are made once and live as long as the module: a call's progress may still be on its way when the call is over.
What they are for is found by a number, their context. What they raise, ctypes gives to sys.unraisablehook."""

import ctypes
import itertools
import json
import os
import threading

import msgpack

from . import _errors

# $BULKHEAD_LIBRARY is for trying a build that is not installed.
_library = ctypes.CDLL(os.environ.get("BULKHEAD_LIBRARY") or "libbulkhead.so.0")

_size = ctypes.c_size_t
_pointer = ctypes.c_void_p
_text = ctypes.c_char_p

LOG = ctypes.CFUNCTYPE(None, _pointer, ctypes.c_int, _text, ctypes.c_long, _text)
TOLD = ctypes.CFUNCTYPE(None, _pointer, _text, _text, _text)
VIOLATION = ctypes.CFUNCTYPE(None, _pointer, _text, _text)
LENT = ctypes.CFUNCTYPE(None, _pointer, _pointer, _size, _pointer)
EVENT = ctypes.CFUNCTYPE(None, _pointer, _text, _pointer, _size, ctypes.POINTER(ctypes.c_int), _size)
PROGRESS = ctypes.CFUNCTYPE(None, _pointer, _pointer, _size)
DONE = ctypes.CFUNCTYPE(None, _pointer, _pointer, _pointer)


class Callbacks(ctypes.Structure):
    _fields_ = [("size", _size), ("context", _pointer), ("on_log", LOG), ("on_lifecycle", TOLD),
                ("on_violation", VIOLATION)]


class Function(ctypes.Structure):
    _fields_ = [("name", _text), ("call", LENT), ("context", _pointer)]


class CallOptions(ctypes.Structure):
    _fields_ = [("size", _size), ("deadline_ms", ctypes.c_int64), ("cancel", _pointer), ("on_progress", PROGRESS),
                ("context", _pointer), ("handles", ctypes.POINTER(ctypes.c_int)), ("handle_count", _size),
                ("stream_window", _size), ("blobs", ctypes.POINTER(_pointer)), ("blob_count", _size)]


_error = ctypes.POINTER(_pointer)
_options = ctypes.POINTER(CallOptions)
_SIGNATURES = {
    "bh_version_text": (_text,),
    "bh_free": (None, _pointer),
    "bh_outcome_name": (_text, ctypes.c_int),
    "bh_error_outcome": (ctypes.c_int, _pointer),
    "bh_error_message": (_text, _pointer),
    "bh_error_data": (_pointer, _pointer, ctypes.POINTER(_size)),
    "bh_error_report_json": (_text, _pointer),
    "bh_error_free": (None, _pointer),
    "bh_host_new": (_pointer, _text, ctypes.POINTER(Callbacks), _error),
    "bh_host_shutdown": (None, _pointer),
    "bh_host_free": (None, _pointer),
    "bh_host_metrics": (_pointer, _pointer, _error),
    "bh_host_reset": (None, _pointer),
    "bh_answer_value": (None, _pointer, _text, _size),
    "bh_answer_error": (None, _pointer, _text),
    "bh_answer_take_handle": (ctypes.c_int, _pointer, _size),
    "bh_answer_add_handle": (ctypes.c_int, _pointer, ctypes.c_int),
    "bh_host_load": (_pointer, _pointer, _text, _text, ctypes.POINTER(Function), _size, _error),
    "bh_host_launch": (_pointer, _pointer, ctypes.POINTER(_text), _text, ctypes.POINTER(Function), _size, _error),
    "bh_plugin_free": (None, _pointer),
    "bh_plugin_name": (_text, _pointer),
    "bh_plugin_info_json": (_pointer, _pointer, _error),
    "bh_plugin_status_json": (_pointer, _pointer, _error),
    "bh_plugin_reload": (ctypes.c_int, _pointer, _text, _error),
    "bh_plugin_recycle": (ctypes.c_int, _pointer, _error),
    "bh_plugin_reset": (ctypes.c_int, _pointer, _error),
    "bh_plugin_unload": (None, _pointer),
    "bh_plugin_save_state": (_pointer, _pointer, ctypes.POINTER(_size), _error),
    "bh_plugin_on_event_with_handles": (None, _pointer, EVENT, _pointer),
    "bh_plugin_make_blob": (_pointer, _pointer, _size, _error),
    "bh_blob_data": (_pointer, _pointer, ctypes.POINTER(_size)),
    "bh_blob_writable": (_pointer, _pointer),
    "bh_blob_free": (None, _pointer),
    "bh_cancel_new": (_pointer,),
    "bh_cancel_request": (None, _pointer),
    "bh_cancel_free": (None, _pointer),
    "bh_reply_value": (_pointer, _pointer, ctypes.POINTER(_size)),
    "bh_reply_blob": (_pointer, _pointer, _error),
    "bh_reply_handle_count": (_size, _pointer),
    "bh_reply_handle": (ctypes.c_int, _pointer, _size),
    "bh_reply_free": (None, _pointer),
    "bh_plugin_call": (_pointer, _pointer, _text, _text, _size, _options, _error),
    "bh_plugin_call_async": (ctypes.c_int, _pointer, _text, _text, _size, _options, DONE, _pointer, _error),
    "bh_plugin_open": (_pointer, _pointer, _text, _text, _size, _options, _error),
    "bh_stream_send": (ctypes.c_int, _pointer, _text, _size, _error),
    "bh_stream_close": (None, _pointer),
    "bh_stream_next": (ctypes.c_int, _pointer, ctypes.POINTER(_pointer), ctypes.POINTER(_size), _error),
    "bh_stream_finish": (_pointer, _pointer, _error),
    "bh_stream_cancel": (None, _pointer),
    "bh_stream_free": (None, _pointer),
}


def _declared(name, result, *arguments):
    function = getattr(_library, name)
    function.restype = result
    function.argtypes = arguments
    return function


def __getattr__(name):  # bh_...: declared when it is first asked for
    if name not in _SIGNATURES:
        raise AttributeError(name)
    function = globals()[name] = _declared(name, *_SIGNATURES[name])
    return function


def _bind(*names):
    return [__getattr__(name) for name in names]


(_version_text, _free, _outcome_name, _error_outcome, _error_message, _error_data, _error_report, _error_free) = _bind(
    "bh_version_text", "bh_free", "bh_outcome_name", "bh_error_outcome", "bh_error_message", "bh_error_data",
    "bh_error_report_json", "bh_error_free")


def version():
    return _version_text().decode()


def text_of(raw):
    """Text that came from the library: UTF-8, but a plugin may have had a hand in it."""
    return None if raw is None else raw.decode("utf-8", "replace")


def bytes_at(address, size):
    return ctypes.string_at(address, size) if address else b""


def unpack(raw, ext_hook=msgpack.ExtType):
    """A value that a plugin sent. Raises PluginError for what is no value of Python's."""
    try:
        return msgpack.unpackb(raw, raw=False, strict_map_key=False, unicode_errors="replace", ext_hook=ext_hook)
    except Exception as problem:
        raise _errors.PluginError(f"the plugin's value can't be one of Python's: {problem}") from problem


def exception_of(error):
    """The exception for a bh_error, which is freed."""
    try:
        outcome = text_of(_outcome_name(_error_outcome(error)))
        message = text_of(_error_message(error))
        size = _size()
        data = _error_data(error, ctypes.byref(size))
        report = _error_report(error)
        kind = _errors.BY_OUTCOME.get(outcome, _errors.Error)
        return kind(message, unpack(bytes_at(data, size.value)) if data else None,
                    json.loads(text_of(report)) if report else None)
    finally:
        _error_free(error)


def checked(function, *arguments, failed=(None, 0)):
    """The function's result; raises when it is one of `failed` and there is an error."""
    error = _pointer()
    result = function(*arguments, ctypes.byref(error))
    if result in failed and error.value:
        raise exception_of(error.value)
    return result


def taken_text(address):
    """The text that a function has returned for us to free."""
    try:
        return text_of(ctypes.string_at(address))
    finally:
        _free(address)


def taken_bytes(address, size):
    try:
        return bytes_at(address, size)
    finally:
        _free(address)


class Registry:
    """What callbacks are for, by the number that is their context."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self._known = {}
        self._lock = threading.Lock()

    def add(self, what):
        with self._lock:
            number = next(self._numbers)
            self._known[number] = what
            return number

    def get(self, number):
        with self._lock:
            return self._known.get(number)

    def take(self, number):
        with self._lock:
            return self._known.pop(number, None)


contexts = Registry()

