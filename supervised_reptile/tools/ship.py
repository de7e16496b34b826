"""Ship a finished run with the package: ``python -m supervised_reptile.tools.ship RUN NAME``."""

import argparse
from pathlib import Path

from supervised_reptile.pretrained import ship

parser = argparse.ArgumentParser(prog="supervised_reptile.pretrained", description=__doc__)
parser.add_argument("run", type=Path, help="folder of the run, below reproduce.py's --runs")
parser.add_argument("name", help="what to call it, such as omniglot-5way")
arguments = parser.parse_args()
try:
    ship(arguments.run, arguments.name)
except (OSError, ValueError) as error:
    parser.error(str(error))
