"""Train and evaluate Reptile (or first-order MAML) on Mini-ImageNet, or on images of your own.

    python run_miniimagenet.py --shots 1 --transductive

The flags become a configuration, which ``supervised_reptile.main.run`` carries out; --help lists
them. An installed package has the same program as ``supervised-reptile miniimagenet``.
"""

import supervised_reptile.interrupts  # noqa: F401  (first: Ctrl-C while the rest is imported)
from supervised_reptile.tools.train import miniimagenet

if __name__ == "__main__":
    miniimagenet()
