"""Fetch and prepare a data set: ``python -m supervised_reptile.datasets.prepare``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from supervised_reptile.errors import DatasetError
from supervised_reptile.places import default_data_dir

_PROGRAM = "fetch_data.sh"
_DATASETS = ("omniglot",)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description="Fetch a data set, check that it is complete, and store it for training.\n"
        "An interrupted run can be repeated: verified downloads are kept.",
        epilog="examples:\n"
        "  ./fetch_data.sh                     download Omniglot into data/omniglot\n"
        "  ./fetch_data.sh --from ~/Downloads  use the two zip files that lie there\n"
        "The characters of --dataset glyphs are drawn by the program and need no fetching.",
    )
    parser.add_argument(
        "dataset",
        nargs="?",
        default="omniglot",
        help=f"one of: {', '.join(_DATASETS)} (default: omniglot)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="use DIR/images_background.zip and DIR/images_evaluation.zip, or extracted "
        "DIR/<alphabet>/<character>/*.png, and download nothing",
    )
    parser.add_argument(
        "--data_dir",
        "--data-dir",
        default=default_data_dir(),
        metavar="DIR",
        help="where to store the data (default: data, or the environment variable "
        "SUPERVISED_REPTILE_DATA)",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="download the official archives from another address; their checksums must match",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code: 0, or 1 after one line on stderr. Wrong usage exits with 2.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.dataset not in _DATASETS:
        parser.error(f"dataset must be one of: {', '.join(_DATASETS)}. Received: {args.dataset!r}")
    if args.source and args.url:
        parser.error("--from and --url exclude each other")

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else one warning for every retry

    # Imported here to answer --help and wrong usage at once.
    from supervised_reptile.datasets import omniglot

    try:
        path = omniglot.prepare(
            args.data_dir, source=args.source, url=args.url or omniglot.OFFICIAL_URL
        )
    except (DatasetError, ValueError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{_PROGRAM}: interrupted; run it again to continue", file=sys.stderr)
        return 130
    print(f"Omniglot is ready in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
