"""Train and evaluate Reptile (or first-order MAML) on Omniglot.

    python run_omniglot.py --shots 1 --classes 5 --transductive

The flags become a configuration, which ``supervised_reptile.main.run`` carries out; --help lists
them. An installed package has the same program as ``supervised-reptile omniglot``.
"""

import supervised_reptile.interrupts  # noqa: F401  (first: Ctrl-C while the rest is imported)
from supervised_reptile.tools.train import omniglot

if __name__ == "__main__":
    omniglot()
