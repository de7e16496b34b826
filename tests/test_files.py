"""Files of a run: one guarded reader, one kind of error, and names that are safe to print."""

import errno
import os

import pytest
import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.errors import ConfigError, RunError, printable
from supervised_reptile.runs.files import read_json, reason_of, write_whole, writing

NONSENSE = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe{}",
    "cut short": b'{"task": {"dataset": ',
    "nested deeply": b"[" * 100_000,
    "a number of 400 digits": b'{"seed": 1' + b"0" * 400 + b"}",
    "a number of 5000 digits": b'{"seed": 1' + b"0" * 5000 + b"}",
    "infinite": b'{"seed": 1e999}',
    "not a number": b'{"seed": NaN}',
}


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "missing"):
        with pytest.raises(RunError, match=r"not a file|no such file"):
            read_json(tmp_path / name)


@pytest.mark.parametrize("value", [None, [], 3, "x", {"task": None}, {"task": [], "seed": {}}])
def test_json_that_is_no_configuration_is_refused(value):
    with pytest.raises(ConfigError):
        Config.from_dict(value)


def test_names_cannot_write_to_the_terminal():
    assert printable("run\x1b[2J\r\n\u202eé") == r"run\x1b[2J\r\n\u202eé"
    assert printable(b"\xff".decode(errors="surrogateescape")) == r"\udcff"
    assert str(RunError("no \x1b[31m")) == r"no \x1b[31m"


def test_reasons_have_nothing_of_the_library_that_reports_them(tmp_path):
    full = tf.errors.ResourceExhaustedError(
        None, None, "/x/ckpt-4.part/ckpt-4.data; No space left on device [Op:SaveV2]"
    )
    assert reason_of(full) == "No space left on device"
    broken = tf.errors.DataLossError(None, None, "TensorBundle at /x: bad magic [Op:RestoreV2]")
    assert "Op:" not in reason_of(broken) and "bad magic" in reason_of(broken)
    with (
        pytest.raises(RunError, match=r"cannot write .*file: No space left on device$"),
        writing(tmp_path / "file", tf.errors.OpError),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (tmp_path / "folder.part").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*folder: Is a directory"):
        write_whole(tmp_path / "folder", "text")
