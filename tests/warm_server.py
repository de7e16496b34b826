"""A Python that has imported TensorFlow already and forks into what it receives; see `warm`.

    python warm_server.py FILE_DESCRIPTOR

FILE_DESCRIPTOR is a Unix socket. Each message is JSON of how to start a process, with five file
descriptors: its standard input, output and error, its working directory, and a socket of its own,
which receives the process's number at the start and its exit status at the end.
"""

import contextlib
import gc
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import types
from pathlib import Path

_MOST_BYTES, _DESCRIPTORS = 2**20, 5


def import_what_takes_long():
    """Libraries alone: the package itself is imported by each process, from where it finds it."""
    import keras  # noqa: F401
    import numpy
    import tensorflow_datasets.core  # noqa: F401

    return numpy.random.seed


def serve(server):
    """Forks a process for each message. Returns its message in the process, never in the server.

    The server ends, and its processes with it, when the other side closes the socket.
    """
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and their processes
    gc.freeze()  # pages that a collection does not touch stay shared
    processes = {}
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 1024)
                report_ended(processes)
            if server in ready:
                text, descriptors, *_ = socket.recv_fds(server, _MOST_BYTES, _DESCRIPTORS)
                if not text:
                    for pid in processes:
                        os.kill(pid, signal.SIGKILL)
                    os._exit(0)
                *files, status = descriptors
                pid = os.fork()
                if not pid:
                    break
                for number in files:
                    os.close(number)
                processes[pid] = socket.socket(fileno=status)
    for number in (woken, wake):
        os.close(number)
    for each in (server, *processes.values()):
        each.close()
    return json.loads(text), descriptors


def report_ended(processes):
    while processes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with processes.pop(pid) as other, contextlib.suppress(BrokenPipeError):  # nobody waits
            other.send(b"%d" % os.waitstatus_to_exitcode(status))


def become(how, descriptors, seed_numpy):
    """Takes on what a new interpreter has, from its signals to its random numbers."""
    *standard, folder, status = descriptors
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if how["start_new_session"]:
        os.setsid()
    os.write(status, b"%d" % os.getpid())  # only now can it take signals
    for number, file in enumerate(standard):
        os.dup2(file, number)
    os.fchdir(folder)
    for file in descriptors:
        os.close(file)
    os.environ.clear()
    os.environ.update(how["environment"])
    random.seed()
    seed_numpy()
    sys.argv = ["-c" if how["kind"] == "-c" else how["what"], *how["arguments"]]
    sys.orig_argv = [sys.executable, *([how["kind"]] * bool(how["kind"])), how["what"]]
    sys.orig_argv += how["arguments"]
    first = {"": str(Path(how["what"]).resolve().parent), "-m": str(Path.cwd()), "-c": ""}
    more = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [first[how["kind"]], *more, *sys.path]


def main_module(code, **names):
    """Runs code as the module `__main__`, which stays until the interpreter ends."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main).update(names)
    exec(code, vars(main))


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    _seed = import_what_takes_long()
    _how, _descriptors = serve(socket.socket(fileno=int(sys.argv[1])))
    become(_how, _descriptors, _seed)
    # From here on as in any interpreter: an exception that leaves this module, SystemExit and
    # KeyboardInterrupt among them, ends the process as it ends every Python.
    _what = _how["what"]
    if _how["kind"] == "-m":
        runpy.run_module(_what, run_name="__main__", alter_sys=True)
    elif _how["kind"] == "-c":
        main_module(_what)
    else:
        main_module(compile(Path(_what).read_bytes(), _what, "exec"), __file__=_what)
