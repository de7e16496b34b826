"""Fetch and prepare a data set: ``python -m supervised_reptile.tools.fetch``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from supervised_reptile.config.locations import FOLDER, default_data_dir
from supervised_reptile.datasets.images.layouts import LAYOUTS
from supervised_reptile.errors import DatasetError
from supervised_reptile.startup import import_tensorflow

_PROGRAM = "fetch_data.sh"
_DATASETS = ("omniglot", "miniimagenet", "folder")
_LAYOUTS = [layout.layout for layout in LAYOUTS]
_FILTERS = [each.name.lower() for each in Image.Resampling]


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
        epilog="""\
what DIR may hold:
  omniglot      images_background.zip and images_evaluation.zip,
                or extracted <alphabet>/<character>/*.png
  miniimagenet  folders   {train,val,test}/<wnid>/*.JPEG, as the authors' program made them
                lists     images/*.jpg with train.csv, val.csv, test.csv (Ravi & Larochelle)
                pickles   mini-imagenet-cache-{train,val,test}.pkl (Ren et al.)
                imagenet  ILSVRC2012_img_train.tar with train.csv, val.csv, test.csv
  folder        {train,val,test}/<class>/*, any images that Pillow reads, as folders or zip
                files; the data set is named after DIR

examples:
  ./fetch_data.sh                                  download Omniglot into data/omniglot
  ./fetch_data.sh omniglot --from ~/Downloads      use the two zip files that lie there
  ./fetch_data.sh miniimagenet                     download Mini-ImageNet (1.8 GB)
  ./fetch_data.sh miniimagenet --from ~/imagenet   take it from one of the layouts above
  ./fetch_data.sh folder --from ~/flowers          images of your own
The characters of --dataset glyphs are drawn by the program and need no fetching.""",
    )
    parser.add_argument(
        "dataset",
        nargs="?",
        default="omniglot",
        help=f"one of: {', '.join(_DATASETS)} (default: omniglot)",
    )
    parser.add_argument(
        "--from", dest="source", metavar="DIR", help="take the data from DIR; download nothing"
    )
    parser.add_argument(
        "--layout",
        choices=_LAYOUTS,
        help="miniimagenet: which layout to use, if DIR has more than one",
    )
    parser.add_argument(
        "--image_size",
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="miniimagenet, folder: height and width to store (default: 84)",
    )
    parser.add_argument(
        "--resize",
        choices=_FILTERS,
        help="miniimagenet, folder: how images are brought to that size (default: nearest, as the "
        "authors' program; Pillow's own default is now bicubic)",
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
        help="omniglot, miniimagenet: download from another address; the checksums must match",
    )
    return parser


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset not in _DATASETS:
        parser.error(f"dataset must be one of: {', '.join(_DATASETS)}. Received: {args.dataset!r}")
    if args.source and args.url:
        parser.error("--from and --url exclude each other")
    if args.dataset == "folder" and not args.source:
        parser.error("folder needs --from DIR, the folder of the images")
    applies = {
        "layout": ("miniimagenet",),
        "url": ("omniglot", "miniimagenet"),
        "image_size": ("miniimagenet", "folder"),
        "resize": ("miniimagenet", "folder"),
    }
    for name, datasets in applies.items():
        if getattr(args, name) is not None and args.dataset not in datasets:
            parser.error(f"--{name} is not for {args.dataset}")
    if args.image_size is not None and args.image_size < 1:
        parser.error(f"--image_size must be at least 1. Received: {args.image_size}")


def _prepare_photographs(args: argparse.Namespace) -> str:
    """Prepare Mini-ImageNet or a folder of images; returns what to say then."""
    from supervised_reptile.datasets.images import photographs

    root, name = Path(args.source) if args.source else None, args.dataset
    if root is not None and not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    if name == "folder":
        name = FOLDER + root.resolve().name
    data_dir = Path(args.data_dir)
    store = photographs.ImageStore(name, data_dir, args.image_size or 84, args.resize or "nearest")
    in_place = data_dir / store.folder
    source = photographs.find_source(name, root or in_place, args.layout)
    if source is None and root is not None:
        layout = f"the layout {args.layout!r}" if args.layout else "any layout listed in --help"
        raise DatasetError(f"{root} does not hold {args.dataset} in {layout}")
    urls = {"url": args.url} if args.url else {}
    path = photographs.prepare(store, source, **urls)
    command = f"python run_miniimagenet.py --data_dir {data_dir} --dataset '{name}'"
    if args.image_size:
        command += f" --image_size {args.image_size}"
    if args.resize:
        command += f" --resize {args.resize}"
    return f"{name} is ready in {path}; use it with: {command}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code: 0, or 1 after one line on stderr. Wrong usage exits with 2.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check_usage(parser, args)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else one warning for every retry

    # Imported here and below to answer --help and wrong usage at once.
    try:
        import_tensorflow()
        if args.dataset == "omniglot":
            from supervised_reptile.datasets import omniglot

            path = omniglot.prepare(
                args.data_dir, source=args.source, url=args.url or omniglot.OFFICIAL_URL
            )
            message = f"Omniglot is ready in {path}"
        else:
            message = _prepare_photographs(args)
    except (DatasetError, ValueError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{_PROGRAM}: interrupted; run it again to continue", file=sys.stderr)
        return 130
    print(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
