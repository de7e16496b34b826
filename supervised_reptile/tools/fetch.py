"""Fetch and prepare a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from supervised_reptile.config import RESIZE_FILTERS
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.config.locations import FOLDER, default_data_dir
from supervised_reptile.datasets.images.layouts import LAYOUTS
from supervised_reptile.errors import ConfigError, DatasetError, printable
from supervised_reptile.programs import command
from supervised_reptile.startup import import_tensorflow

DATASETS = ("omniglot", "miniimagenet", "folder")
_FLAGS = {
    "dataset": Flag("omniglot", f"Data set: {', '.join(DATASETS)}."),
    "from": Flag(None, "Folder that contains the data; nothing is downloaded then.", str),
    "layout": Flag(
        None,
        "miniimagenet: which layout to use, if --from has more than one.",
        choices=[layout.layout for layout in LAYOUTS],
    ),
    "image_size": Flag(
        None,
        "miniimagenet, folder: height and width to store, in pixels, at least 1. When not given: "
        "84.",
        int,
    ),
    "resize": Flag(
        None,
        f"miniimagenet, folder: filter that resizes images: "
        f"{', '.join(RESIZE_FILTERS)}. When not given: nearest, as in the authors' program "
        "(Pillow's own default is now bicubic).",
        choices=RESIZE_FILTERS,
    ),
    "data_dir": Flag(
        default_data_dir(), "Folder to store the data in (or set SUPERVISED_REPTILE_DATA)."
    ),
    "url": Flag(
        None,
        "omniglot, miniimagenet: download from another address; the checksums must match.",
        str,
    ),
}
# Data sets that each flag applies to.
_APPLIES = {
    "layout": ("miniimagenet",),
    "url": ("omniglot", "miniimagenet"),
    "image_size": ("miniimagenet", "folder"),
    "resize": ("miniimagenet", "folder"),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``fetch_data.sh``.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_fetch, _FLAGS, argv, _description(), operands=("dataset",))


def _description() -> str:
    program = command("fetch")
    examples = {
        "": "download Omniglot into data/omniglot",
        " omniglot --from ~/Downloads": "use the two zip files in that folder",
        " miniimagenet": "download Mini-ImageNet (1.8 GB)",
        " miniimagenet --from ~/imagenet": "use one of the layouts below",
        " folder --from ~/flowers": "prepare images of your own",
    }
    width = max(map(len, examples)) + len(program) + 2
    lines = "\n".join(f"    {program + more:<{width}}{text}" for more, text in examples.items())
    return f"""\
Fetch a data set, check that it is complete, and store it for training. An interrupted run can be
repeated: verified downloads are kept.

{lines}

The program draws the characters of --dataset glyphs itself, so they need no fetching.

Contents of the folder of --from:
  omniglot      images_background.zip and images_evaluation.zip,
                either of them unzipped, or <alphabet>/<character>/*.png
  miniimagenet  folders   {{train,val,test}}/<wnid>/*.JPEG, as the authors' program made them
                lists     images/*.jpg with train.csv, val.csv, test.csv (Ravi & Larochelle)
                pickles   mini-imagenet-cache-{{train,val,test}}.pkl (Ren et al.)
                imagenet  ILSVRC2012_img_train.tar with train.csv, val.csv, test.csv
  folder        {{train,val,test}}/<class>/*, as folders or zip files: AVIF, BMP, GIF, JPEG,
                JPEG 2000, PNG, PPM, TGA, TIFF or WebP; the data set is named after the folder
"""


def _fetch(**given: Any) -> None:
    """Prepare the data set that the flags describe."""
    _check(given)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else a warning for every retry
    import_tensorflow()  # only here: --help and mistakes do not wait for it
    if given["dataset"] == "omniglot":
        from supervised_reptile.datasets import omniglot

        url = given["url"] or omniglot.OFFICIAL_URL
        path = omniglot.prepare(given["data_dir"], source=given["from"], url=url)
        print(printable(f"Omniglot is ready in {path}"))
    else:
        print(printable(_prepare_photographs(given)))


def _check(given: dict[str, Any]) -> None:
    dataset = given["dataset"]
    if dataset not in DATASETS:
        raise ConfigError(f"dataset must be one of: {', '.join(DATASETS)}. Received: {dataset!r}")
    if given["from"] and given["url"]:
        raise ConfigError("--from and --url exclude each other")
    if dataset == "folder" and not given["from"]:
        raise ConfigError("folder needs --from DIR, the folder of the images")
    for name, datasets in _APPLIES.items():
        if given[name] is not None and dataset not in datasets:
            raise ConfigError(f"--{name} is not for {dataset}")
    url, size = given["url"], given["image_size"]
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url must begin with http:// or https://. Received: {url!r}")
    if size is not None and size < 1:
        raise ConfigError(f"--image_size must be at least 1. Received: {size}")


def _prepare_photographs(given: dict[str, Any]) -> str:
    """Prepare Mini-ImageNet or a folder of images, and return the closing message."""
    from supervised_reptile.datasets.images import photographs

    root, name = Path(given["from"]) if given["from"] else None, given["dataset"]
    if root is not None and not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    if name == "folder" and root is not None:  # which it must not be without
        name = FOLDER + root.resolve().name
    data_dir, layout = Path(given["data_dir"]), given["layout"]
    size, resize = given["image_size"], given["resize"]
    store = photographs.ImageStore(name, data_dir, size or 84, resize or "nearest")
    source = photographs.find_source(name, root or data_dir / store.folder, layout)
    if source is None and root is not None:
        known = f"the layout {layout!r}" if layout else "any layout listed in --help"
        raise DatasetError(f"{root} does not hold {given['dataset']} in {known}")
    urls = {"url": given["url"]} if given["url"] else {}
    path = photographs.prepare(store, source, **urls)
    use = f"{command('miniimagenet')} --data_dir {data_dir} --dataset '{name}'"
    use += f" --image_size {size}" if size else ""
    use += f" --resize {resize}" if resize else ""
    return f"{name} is ready in {path}; use it with: {use}"


if __name__ == "__main__":
    main()
