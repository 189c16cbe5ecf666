"""A worker in Python, written from docs/protocol.md alone: what a program in another language has to do."""

import array
import os
import socket
import sys
import time

import msgpack

HANDLE = 1
channel = None
unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, ext_hook=msgpack.ExtType)
received = bytearray()  # all that the host has sent
descriptors = []
waiting = []  # requests to serve and answers to our own, as they came
deadlines = {}
cancelled = set()
credit = 0
stream_credit = {}  # of calls that stream: bytes of results that may be sent
items = {}  # their arguments that have come; None: the end of them
next_id = 1


def connect():
    global channel
    if os.environ.get("BULKHEAD_PROTOCOL") != "1":
        print("this worker speaks protocol 1", file=sys.stderr)
        sys.exit(64)
    fd = int(os.environ.pop("BULKHEAD_CHANNEL_FD"))
    del os.environ["BULKHEAD_PROTOCOL"]
    os.set_inheritable(fd, False)
    channel = socket.socket(fileno=fd)


def take_in():
    """Reads once. Notifications take effect at once, all else waits its turn; leaves when the host is gone."""
    data, ancillary, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(16 * 4))
    if not data:
        os._exit(0)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            descriptors.extend(numbers)
    received.extend(data)
    unpacker.feed(data)
    for message in unpacker:
        if message[0] == 2:
            on_notification(message[1], message[2])
        else:
            waiting.append(message)


def send(message):
    channel.sendall(msgpack.packb(message))


def on_notification(method, params):
    global credit
    if method == "$/deadline":
        deadlines[params[0]] = params[1]
    elif method == "$/cancel":
        cancelled.add(params[0])
    elif method == "$/open":
        stream_credit[params[0]] = params[1]
        items[params[0]] = []
    elif method == "$/more" and params[0] in stream_credit:
        stream_credit[params[0]] += params[1]
    elif method in ("$/item", "$/end") and params[0] in items:
        items[params[0]].append(params[1] if method == "$/item" else None)
    elif method == "$/credit":
        credit += params[0]
    elif method == "$/shutdown":
        print("python: leaving in good order", flush=True)
        sys.exit(0)


def notify(method, *params):
    """Events and progress wait for credit."""
    global credit
    if method in ("$/event", "$/progress"):
        while credit <= 0:
            take_in()
        credit -= 1
    send([2, method, list(params)])


def ask(function, *params):
    global next_id
    mine, next_id = next_id, next_id + 1
    send([0, mine, function, list(params)])
    while True:
        for message in waiting:
            if message[0] == 1 and message[1] == mine:
                waiting.remove(message)
                return message[2], message[3]
        take_in()


class Failure(Exception):
    def __init__(self, message, data=None, code="plugin_error"):
        super().__init__(message)
        self.error = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


def mean(call, numbers):
    if not numbers:
        raise Failure("no numbers", {"line": 3})
    return sum(numbers) / len(numbers)


def until_cancelled(call):
    while call not in cancelled:
        take_in()
    raise Failure("stopped as asked", code="cancelled")


def report(call, count):
    for i in range(count):
        notify("$/progress", call, i)
        notify("$/event", "tick", {"i": i})
    return count


def relay(call, function, argument):
    error, result = ask(function, argument)
    if error is not None:
        raise Failure("the host said: " + error["message"], code=error["code"])
    return result


def read_handle(call, handle):
    assert handle.code == HANDLE
    fd = descriptors.pop(0)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def take_items(call, window):
    """The stream of arguments, as it comes."""
    notify("$/more", call, window)
    while True:
        while not items[call]:
            if call in cancelled:
                raise Failure("stopped as asked", code="cancelled")
            take_in()
        item = items[call].pop(0)
        if item is None:
            return
        notify("$/more", call, len(msgpack.packb(item)))
        yield item


def send_item(call, value):
    size = len(msgpack.packb(value))
    while stream_credit[call] < size:
        if call in cancelled:
            raise Failure("stopped as asked", code="cancelled")
        take_in()
    stream_credit[call] -= size
    notify("$/item", call, value)


def scale(call, factor):
    count = 0
    for item in take_items(call, 4096):
        send_item(call, item * factor)
        count += 1
    notify("$/end", call)
    return count


def crash(call):
    os._exit(11)


def garbage(call):
    channel.sendall(b"\x01\x02\x03 this is no message")
    time.sleep(60)


methods = {
    "mean": mean,
    "upper": lambda call, text: text.upper(),
    "size": lambda call, data: len(data) if isinstance(data, bytes) else None,
    "deadline": lambda call: deadlines.get(call),
    "environment": lambda call: sorted(name for name in os.environ if name.startswith("BULKHEAD_")),
    "received": lambda call: bytes(received),
    "until_cancelled": until_cancelled,
    "report": report,
    "relay": relay,
    "read_handle": read_handle,
    "log": lambda call, level, text: notify("$/log", level, text),
    "scale": scale,
    "crash": crash,
    "garbage": garbage,
}
description = {
    "id": "python",
    "name": "A worker in Python",
    "version": "1.0",
    "methods": [{"name": name, "doc": "", "signature": name + "(...)"} for name in methods],
}


def answer(call, method, params):
    if method == "$/hello":
        global credit
        credit = params[0]["event_credit"]
        send([1, call, None, {"protocol": 1, "name": "python"}])
        notify("$/ready", description)
        return
    try:
        if method in ("$/ping", "$/drain"):
            result = None
        elif method == "$/describe":
            result = description
        elif method in methods:
            result = methods[method](call, *params)
        else:
            raise Failure("no method " + method, code="rejected")
        send([1, call, None, result])
    except Failure as failure:
        send([1, call, failure.error, None])
    except Exception as problem:  # noqa: BLE001: whatever a method throws is its caller's to know
        send([1, call, str(problem), None])
    finally:
        stream_credit.pop(call, None)
        items.pop(call, None)


connect()
while True:
    while not waiting:
        take_in()
    kind, number, *rest = waiting.pop(0)
    answer(number, *rest)
