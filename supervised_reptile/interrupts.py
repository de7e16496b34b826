"""Let Ctrl-C end a program without a traceback while it is still starting.

The programs import this module before anything else; ``run_main`` takes over from it.
"""

from __future__ import annotations

import signal


def end_quietly() -> None:
    """Let Ctrl-C end the process at once, as other programs do, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_in_python() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again, after :func:`end_quietly`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


end_quietly()
