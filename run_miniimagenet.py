"""Train and evaluate Reptile (or first-order MAML) on Mini-ImageNet, or on images of your own.

    python run_miniimagenet.py --shots 1 --transductive
    python run_miniimagenet.py --data_dir my/flowers    # with train/, val/, test/, a folder a class

Prepare Mini-ImageNet with ./fetch_data.sh miniimagenet.
"""

from supervised_reptile.config.flags import (
    config_from_flags,
    define_flags,
    options_from_flags,
    run_main,
)
from supervised_reptile.startup import import_tensorflow


def main(argv: list[str]) -> None:
    """Run what the flags describe."""
    config, options = config_from_flags(), options_from_flags()
    # TensorFlow takes seconds to load: only once the flags are known to be good.
    import_tensorflow()
    from supervised_reptile.main import run

    run(config, options)


if __name__ == "__main__":
    define_flags(("miniimagenet",), own_images=True)
    run_main(main)
