"""Nonsense as input: flags, flag files and files of runs; ``data_fuzz`` has the data.

Each reader must accept what it is given or refuse it with an error of ours, in one line.
"""

import json
import random
import shlex

from absl import flags

from supervised_reptile.config import Config, paper_config
from supervised_reptile.config.command_line import parse_flags
from supervised_reptile.config.flags import config_from_flags, define_flags
from supervised_reptile.errors import UserError
from supervised_reptile.runs.curve_recovery import rows_of
from supervised_reptile.runs.files import read_json
from supervised_reptile.runs.learning_curve import read_curve
from supervised_reptile.runs.record import record_of, recorded_accuracies, training_environments

_PIECES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"[" * 3000,
    b'{"a":' * 2000,
    b"true",
    b'"',
    b"\n",
    "é\u202e\x1b[2J".encode(),
    b"\xed\xa0\x80",
)


def mutated(rng, content):
    """A content with a few bytes changed, removed, repeated or put in."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        how = rng.randrange(5)
        if how == 0 and content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif how == 1:
            del content[at:end]
        elif how == 2:
            content[at:at] = content[at : min(end, at + 300)]
        elif how == 3:
            content[at : min(end, at + 8)] = rng.choice(_PIECES)
        else:
            del content[at:]
    return bytes(content)


def _config(path):
    config = Config.from_dict(read_json(path))
    assert Config.from_json(config.to_json()) == config


def _flags(words):
    values = flags.FlagValues()
    define_flags(("omniglot", "glyphs"), flag_values=values)
    parse_flags(["run.py", *words], values)
    config_from_flags(values)


def _seeds():
    """A good input of each kind."""
    config = paper_config("glyphs", shots=1)
    accuracy = {"mean": 0.5, "interval95": 0.1, "tasks": 10}
    record = {"config": config.to_dict(), "iterations": 1, "accuracy": {"test": accuracy}}
    parts = [{"from_iteration": 0, "environment": {"commit": "abc"}}]
    curve = "iteration,seconds,meta_step,inner_loss,train,test\n0,1.5,1,1.9,0.4,0\n4,2,0.6,1,1,0\n"
    words = "--shots 1 --classes=5 --inner-batch 10 --transductive --learning-rate=0.001 --seed 3"
    return {
        "config.json": [config.to_json().encode()],
        "results.json": [json.dumps(record).encode()],
        "trained_on.json": [json.dumps(parts).encode()],
        "curve.csv": [curve.encode()],
        "flags": [words.encode()],
        "flag file": ["\n".join(words.split(" --")).encode()],
    }


def _readers(folder):
    def words_of(content):
        text = content.decode("utf-8", "surrogateescape").replace("\0", "")
        try:
            return shlex.split(text)
        except ValueError:
            return text.split()

    def from_file(read, name):
        path = folder / name

        def reader(content):
            path.write_bytes(content)
            read(path)

        return reader

    config = paper_config("glyphs", shots=1)

    def result(path):
        record_of(path, config)
        recorded_accuracies(path, config)

    def curve(path):
        rows_of(path, ("iteration", "seconds", "meta_step", "inner_loss", "train", "test"))
        read_curve(path)

    # A flag file is what it holds, whatever its name: --flagfile inside it would read others.
    return {
        "config.json": from_file(_config, "config.json"),
        "results.json": from_file(result, "results.json"),
        "trained_on.json": from_file(
            lambda path: training_environments(path.parent), "trained_on.json"
        ),
        "curve.csv": from_file(curve, "curve.csv"),
        "flags": lambda content: _flags(words_of(content)),
        "flag file": from_file(lambda path: _flags([f"--flagfile={path}"]), "flags.cfg"),
    }


def carry_out(folder, seed, table, inputs):
    """So many inputs of each kind; flags, which are slow, get fewer."""
    rng, seeds, readers = random.Random(seed), _seeds(), _readers(folder)
    weights = {"flags": 0.3, "flag file": 0.3}
    total = sum(weights.get(kind, 1) for kind in readers)
    for kind, read in readers.items():
        for _ in range(round(inputs * weights.get(kind, 1) / total)):
            content = mutated(rng, rng.choice(seeds[kind]))
            try:
                read(content)
            except (UserError, flags.Error) as error:
                one_line = "\n" not in str(error) or isinstance(error, flags.Error)
                verdict = "one clear line" if one_line else "traceback"
            except SystemExit:  # --help
                verdict = "accepted"
            except Exception as error:
                table.count(f"nonsense: {kind}", "traceback", f"{error!r} for {content[:300]!r}")
                continue
            else:
                verdict = "accepted"
            table.count(f"nonsense: {kind}", verdict, repr(content[:300]))
