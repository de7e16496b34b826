"""Progress of long work: a bar on a terminal, else a plain line every half minute."""

from __future__ import annotations

import os
import sys
import time
from typing import Literal

from tqdm import tqdm

INTERVAL = 30.0
"""Seconds between two plain lines."""

Mode = bool | Literal["lines"]
"""``True``: a bar on a terminal, else lines. ``"lines"``: always lines. ``False``: nothing."""


def mode_of(progress: bool) -> Mode:
    """Return the mode of a program: ``--noprogress`` turns off the bar but keeps the lines."""
    return progress or "lines"


def is_on_terminal() -> bool:
    """Return whether bars can be shown."""
    return sys.stderr is not None and sys.stderr.isatty()


class Progress:
    """Show how much of some work is done.

    When several processes work in parallel, its lines and bar begin with the name of the process,
    from the environment variable ``SUPERVISED_REPTILE_JOB``.

    Args:
        total: Number of units of work.
        what: Name of the units, such as ``"meta-iterations"``.
        unit: Short name of one unit.
        done: Number of units that are already done.
        mode: What to show.
    """

    def __init__(self, total: int, what: str, unit: str, *, done: int = 0, mode: Mode = True):
        job = os.environ.get("SUPERVISED_REPTILE_JOB")
        self._what = f"{job}: {what}" if job else what
        self._total, self._first, self._done = total, done, done
        self._note = ""
        self._started = self._last_line = time.monotonic()
        bar = mode is True and is_on_terminal()
        self._lines = not bar and bool(mode)
        self._bar = tqdm(
            total=total, initial=done, unit=unit, desc=self._what, smoothing=0.05, disable=not bar
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def add(self, units: int = 1) -> None:
        """Count finished units."""
        self._done += units
        self._bar.update(units)
        now = time.monotonic()
        if self._lines and now - self._last_line >= INTERVAL:
            self._last_line = now
            print(self._line(now), flush=True)

    def say(self, note: str) -> None:
        """Set the text after the numbers."""
        self._note = note
        self._bar.set_postfix_str(note, refresh=False)

    def _line(self, now: float) -> str:
        rate = (self._done - self._first) / (now - self._started)
        left = (self._total - self._done) / rate if rate else 0.0
        parts = [
            f"{self._what}: {self._done:,} of {self._total:,} ({self._done / self._total:.0%})",
            f"{rate:.3g} per second",
            f"{_duration(left)} left",
        ]
        return ", ".join([*parts, self._note] if self._note else parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
