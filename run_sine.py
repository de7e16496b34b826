"""The sine wave of the paper's Sec. 4 (Fig. 1): Reptile, FOMAML, MAML and joint training.

    python run_sine.py

Short for ``python -m experiments sine``; --help lists the flags.
"""

import sys

import supervised_reptile.interrupts  # noqa: F401  (first: Ctrl-C while the rest is imported)
from experiments.__main__ import start

if __name__ == "__main__":
    start("sine", sys.argv)
