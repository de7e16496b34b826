"""Reproduce the published tables: train their rows, and compare our numbers with theirs.

    python reproduce.py --row omniglot-5way --seeds 0,1,2

--help lists the rows and the flags. An installed package has the same program as
``supervised-reptile reproduce``.
"""

import supervised_reptile.interrupts  # noqa: F401  (first: Ctrl-C while the rest is imported)
from supervised_reptile.reproduction.program import main

if __name__ == "__main__":
    main()
