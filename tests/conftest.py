import fcntl
import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` is: none but this for one file, as each imports TensorFlow."""
    files = {argument.partition("::")[0] for argument in config.args}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    return min(os.cpu_count() or 1, 4)  # of about a gigabyte each


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what downloads TensorFlow, unless it is asked for by name: -m fresh_environment."""
    if "fresh_environment" in config.option.markexpr:
        return
    reason = "downloads TensorFlow into a new environment; run it with -m fresh_environment"
    for item in items:
        if item.get_closest_marker("fresh_environment"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def omniglot_archives() -> Path:
    """Folder with images_background.zip and images_evaluation.zip; skips where there is none."""
    shared = os.environ.get("SUPERVISED_REPTILE_SHARED", PROJECT.parent / "shared")
    folder = Path(shared) / "datasets" / "omniglot"
    names = ("images_background.zip", "images_evaluation.zip")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        pytest.skip(
            f"needs the Omniglot archives: no {missing[0]} in {folder} "
            "(set SUPERVISED_REPTILE_SHARED to the folder above datasets/omniglot)"
        )
    return folder


@pytest.fixture(scope="session")
def tiny_imagenet() -> Path:
    """Folder with train.zip, val.zip and test.zip of real photographs; skips without it."""
    shared = os.environ.get("SUPERVISED_REPTILE_SHARED", PROJECT.parent / "shared")
    folder = Path(shared) / "datasets" / "tiny-imagenet-fewshot"
    if not (folder / "train.zip").is_file():
        pytest.skip(
            f"needs real photographs: no train.zip in {folder} "
            "(set SUPERVISED_REPTILE_SHARED to the folder above datasets/tiny-imagenet-fewshot)"
        )
    return folder


@pytest.fixture(scope="session")
def prepared_omniglot(omniglot_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with Omniglot prepared, once for all processes of pytest-xdist."""
    from supervised_reptile.datasets import omniglot

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    data_dir, done = root / "omniglot", root / "omniglot_is_prepared"
    with (root / "omniglot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            omniglot.prepare(data_dir, source=omniglot_archives, progress=False)
            done.touch()
    return data_dir
