"""What long work shows: a bar on a terminal, elsewhere a plain line every half minute."""

import io
import sys

import pytest

from supervised_reptile import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def worked(clock, mode, seconds=100, **options):
    """One unit a second."""
    with progress.Progress(400, "meta-iterations", "it", mode=mode, **options) as bar:
        bar.say("train 50.0 %")
        for _ in range(seconds):
            clock[0] += 1
            bar.add()


@pytest.mark.parametrize("mode", [True, "lines"])
def test_without_a_terminal_there_is_a_plain_line_every_half_minute(clock, capsys, mode):
    worked(clock, mode)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "meta-iterations: 30 of 400 (8%), 1 per second, 6 min left, train 50.0 %",
        "meta-iterations: 60 of 400 (15%), 1 per second, 6 min left, train 50.0 %",
        "meta-iterations: 90 of 400 (22%), 1 per second, 5 min left, train 50.0 %",
    ]


def test_a_run_that_goes_on_counts_its_own_speed(clock, capsys):
    worked(clock, "lines", 30, done=200)
    assert capsys.readouterr().out.startswith(
        "meta-iterations: 230 of 400 (57%), 1 per second, 3 min left"
    )


def test_jobs_that_run_side_by_side_have_names(clock, capsys, monkeypatch):
    monkeypatch.setenv("SUPERVISED_REPTILE_JOB", "omniglot-5way/seed1")
    worked(clock, "lines", 30)
    assert capsys.readouterr().out.startswith("omniglot-5way/seed1: meta-iterations: 30 of 400")


def test_a_terminal_has_a_bar_and_no_lines(clock, capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    worked(clock, True)
    assert capsys.readouterr().out == ""
    assert "100/400" in terminal.getvalue() and "train 50.0 %" in terminal.getvalue()
    # --noprogress: the lines, also on a terminal.
    worked(clock, progress.mode_of(False), 30)
    assert capsys.readouterr().out.count("\n") == 1


def test_nothing_is_shown_to_who_asks_for_nothing(clock, capsys):
    worked(clock, False)
    assert capsys.readouterr() == ("", "")
