"""Runs native plugins in sandboxed worker processes: bulkhead's C API (bulkhead/host.h) for Python.

    import bulkhead

    with bulkhead.Host() as host, host.load("image.so", memory_limit="256 MiB") as image:
        small = image.call("thumbnail", jpeg, 128, deadline=2.0)

Values are what MessagePack has: None, bool, int, float, str, bytes, list, dict; Handle for file descriptors, Blob for bytes in shared memory. What
fails raises a subclass of Error, one for each outcome. Everything may be used from any thread. Callbacks run on threads
of the host; what they raise goes to sys.unraisablehook. Nothing here blocks other Python threads.
"""

from ._calls import Blob, Cancel, Handle, Stream
from ._errors import (
    Cancelled, Error, Misuse, NotSent, Overloaded, PluginError, ProtocolError, Rejected, Timeout, Unavailable,
    WorkerLost)
from ._host import Host, Plugin
from ._library import version

__version__ = version()
__all__ = [
    "Blob", "Cancel", "Cancelled", "Error", "Handle", "Host", "Misuse", "NotSent", "Overloaded", "Plugin", "PluginError",
    "ProtocolError", "Rejected", "Stream", "Timeout", "Unavailable", "WorkerLost"]
