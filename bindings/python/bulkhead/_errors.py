"""An exception for each outcome of a call."""


class Error(Exception):
    """What all of bulkhead's exceptions are.

    outcome: its name, as in "worker_lost".
    message: what happened, in one line.
    data:    details that the plugin gave, or None.
    report:  the crash report, a dict, when a worker died of it; else None.
    """

    outcome = "unknown"

    def __init__(self, message, data=None, report=None):
        super().__init__(message)
        self.message = message
        self.data = data
        self.report = report


class PluginError(Error):
    """The plugin answered with an error."""
    outcome = "plugin_error"


class Timeout(Error, TimeoutError):
    """The deadline passed."""
    outcome = "timeout"


class Cancelled(Error):
    """The caller cancelled it."""
    outcome = "cancelled"


class NotSent(Error):
    """It never reached the plugin's code: safe to retry."""
    outcome = "not_sent"


class WorkerLost(Error):
    """The worker died while the call may have been running."""
    outcome = "worker_lost"


class ProtocolError(Error):
    """The worker broke the protocol and was killed."""
    outcome = "protocol"


class Overloaded(Error):
    """Too many calls or bytes are queued for the worker."""
    outcome = "overloaded"


class Unavailable(Error):
    """There is no worker and none could be started."""
    outcome = "unavailable"


class Rejected(Error):
    """The call is not allowed or not possible."""
    outcome = "rejected"


class Misuse(Error, ValueError):
    """The caller's own mistake."""
    outcome = "misuse"


BY_OUTCOME = {each.outcome: each for each in (
    PluginError, Timeout, Cancelled, NotSent, WorkerLost, ProtocolError, Overloaded, Unavailable, Rejected, Misuse)}
