"""What samples.py gives to samples that it runs: the files that they name; what they must print and leave behind; how those
end that serve. Each key is a part of a sample's text, and must be in one."""
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import threading

# A part of what it must print. Samples that serve are told to end once they have.
prints = {
    'host.load("stats.so"': "3\n",
    'launch.spawn("sort"': "9\n10\n",
    '"no-such-program"': "error 2: ",
    "launch.async_fork(": '{"id":1,"result":["one","two"]}',
    '"server.js"': "serves port",
    "'./my-program'": "{ echo: { hello: 'there' } }",
    "fork('text.so'": "{ id: 1, result: [ 'one', 'two' ] }",
    "TEST_CASE(": "All tests passed",
    "call text search": '"named":{"year":"1912"}',
    "call text matches": '"text":"1913"',
    "stats.so mean": "3",
    "call lua run": "5",
    "call sqlite query": "Graceland Revisited",
    "cluster http": "listening on",
    "spawn --policy strict": '"reason":"exited"',
    "exec --timeout": '"reason":"exited"',
}

# A file that is there afterwards.
leaves = {
    '"out.jpg"': "images/out.jpg",
    "--out small.jpg": "small.jpg",
    "--out notes.txt.zst": "notes.txt.zst",
}

# Shell commands, and why they are not run.
not_run = {
    "call build/stats.so greet World": "docs/tutorials/authors.md builds such a plugin, and calls it",
    "bulkhead call tools grep error": "journalctl -f does not end, and tools is any plugin",
}

worker = "process.on('message', message => process.send({ got: message }));\n"
server = "require('http').createServer((request, answer) => answer.end('served')).listen(0, '127.0.0.1');\n"
front = "process.on('message', (message, listener) => { listener.close(); process.disconnect(); });\n"


def make(folder, root, plugins):
    """The files that samples name; returns what stands for which path that is not in the folder."""
    folder.chmod(0o755)  # workers of a host that is root run as nobody
    for name in "images", "www", "project":
        (folder / name).mkdir()
    (folder / "images").chmod(0o777)
    files = {"worker.js": worker, "server.js": server, "front.js": front, "notes.txt": "notes\n" * 100, "images/in.png": "an image",
             "project/application.cpp": "", "project/stats.cpp": "", "project/test_stats.cpp": ""}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "host").symlink_to(root / "host")
    shutil.copy(shutil.which("echo"), folder / "tool")
    songs = sqlite3.connect(folder / "music.db")
    songs.execute("CREATE TABLE songs (title, year)")
    songs.execute("INSERT INTO songs VALUES ('Graceland Revisited', 1991)")
    songs.commit()
    songs.close()
    return {"/usr/local/lib/bulkhead/plugins": str(plugins), "./text.so": f"{plugins}/text.so",
            "build/release/bin/bulkhead": "bulkhead",
            "/srv/www": f"{folder}/www", " --port 8080": "", "/srv/images": f"{folder}/images", "/usr/bin/convert": shutil.which("cp")}


def serve(command, until, folder, env, limit=60):
    """Runs a command until it has printed UNTIL, at a terminal so that it prints at once; then ends it by SIGTERM. Returns its
    exit status and what it has printed."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end,
                               start_new_session=True)
    os.close(its_end)
    too_long = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))  # also what keeps the terminal open
    too_long.start()
    printed, told = "", False
    try:
        while some := os.read(terminal, 4096):
            printed += some.decode("utf-8", "replace").replace("\r\n", "\n")
            if until in printed and not told:
                process.send_signal(signal.SIGTERM)
                told = True
    except OSError:  # EIO: all who had the terminal are gone
        pass
    finally:
        os.close(terminal)
    status = process.wait()
    too_long.cancel()
    return status, printed
