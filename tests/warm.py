"""Processes of Python without the seconds that importing TensorFlow takes.

``warm.run`` and ``warm.Popen`` stand in for those of ``subprocess`` with a command
``[sys.executable, script | -m module | -c code, *arguments]``. The process is a fork of a server
that has imported TensorFlow, Keras, TensorFlow Datasets and matplotlib, and nothing of this
package, and has not started TensorFlow's threads (so ``tf.config.threading`` can be set). Number,
signals, exit code, files, folder, environment, arguments and ``sys.path`` are those of a new
interpreter.

Not the same, so use ``subprocess`` in a test about it: what is imported and when, what TensorFlow
prints as it starts or reads from the environment then, the seed of ``hash``, interpreter options.
"""

import atexit
import contextlib
import io
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE

_servers = {}  # by the number of the process that started it: a fork starts its own


def _server():
    if os.getpid() not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("warm_server.py"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        _servers[os.getpid()] = ours
        atexit.register(_end, ours, process)
    return _servers[os.getpid()]


def _end(ours, process):
    ours.close()
    process.wait()


def _parsed(command):
    interpreter, *words = map(os.fspath, command)
    if interpreter != sys.executable or not words:
        raise ValueError(f"must start with sys.executable. Received: {command}")
    kind = words.pop(0) if words[0] in ("-c", "-m") else ""
    what, *arguments = words
    if not kind and what.startswith("-"):
        raise ValueError(f"takes no options of the interpreter but -c and -m. Received: {command}")
    return {"kind": kind, "what": what, "arguments": arguments}


class Popen:
    """As far as tests use it, ``subprocess.Popen``.

    Args:
        command: ``[sys.executable, script | -m module | -c code, *arguments]``.
        stdin: None for ours, ``PIPE``, or a file; ``stdout`` and ``stderr`` alike.
        cwd: Folder to run it in; None for ours.
        env: Its environment; None for ours.
        text: Whether pipes are of text.
        start_new_session: Whether it leads a session and process group of its own.
    """

    def __init__(
        self,
        command,
        *,
        stdin=None,
        stdout=None,
        stderr=None,
        cwd=None,
        env=None,
        text=False,
        start_new_session=False,
    ):
        self.args, self.returncode = command, None
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        closing, given = [], []
        self.stdin = self.stdout = self.stderr = None
        for number, (name, file) in enumerate(
            [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)]
        ):
            if file == PIPE:
                ends = os.pipe()
                ours, file = ends[::-1] if name == "stdin" else ends
                mode = ("w" if name == "stdin" else "r") + ("" if text else "b")
                setattr(self, name, open(ours, mode))  # noqa: SIM115, PTH123 (closed by __exit__)
                closing.append(file)
            elif file is None:
                file = number
            given.append(file if isinstance(file, int) else file.fileno())
        folder = os.open(cwd or ".", os.O_RDONLY)
        how = _parsed(command) | {
            "environment": dict(os.environ if env is None else env),
            "start_new_session": start_new_session,
        }
        socket.send_fds(_server(), [json.dumps(how).encode()], [*given, folder, theirs.fileno()])
        theirs.close()
        for file in (*closing, folder):
            os.close(file)
        self.pid = self._received()

    def poll(self):
        """Exit code, minus the signal's number if one ended the process; None if none yet."""
        return self._wait(0)

    def wait(self, timeout=None):
        """Exit code; raises ``TimeoutExpired`` if there is none after so many seconds."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            with self._status:
                self.returncode = self._received()
        return self.returncode

    def _received(self):
        number = self._status.recv(64)
        if not number:
            raise RuntimeError("the server of warm processes ended: python tests/warm_server.py 0")
        return int(number)

    def communicate(self):
        """Closes the input, reads both outputs, of little errors, to their ends and waits."""
        if self.stdin:
            self.stdin.close()
        outputs = [file.read() if file else None for file in (self.stdout, self.stderr)]
        self.wait()
        return tuple(outputs)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(9)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for file in (self.stdin, self.stdout, self.stderr):
            if file:
                file.close()
        self.wait()


def run(command, *, capture_output=False, check=False, text=False, timeout=None, **options):
    """``subprocess.run``, as far as tests use it; the options are those of ``Popen``."""
    with contextlib.ExitStack() as stack:
        files = {}
        if capture_output:
            for name in ("stdout", "stderr"):
                files[name] = stack.enter_context(tempfile.TemporaryFile())
        process = Popen(command, **files, **options)
        try:
            process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        outputs = {}
        for name, file in files.items():
            file.seek(0)
            outputs[name] = (io.TextIOWrapper(file) if text else file).read()
    result = subprocess.CompletedProcess(command, process.returncode, **outputs)
    if check:
        result.check_returncode()
    return result


if not sys.platform.startswith("linux"):  # where TensorFlow does not survive a fork
    Popen, run = subprocess.Popen, subprocess.run
