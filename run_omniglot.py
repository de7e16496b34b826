"""Train and evaluate Reptile (or first-order MAML) on Omniglot.

    python run_omniglot.py --shots 1 --classes 5 --transductive

Prepare the data with ./fetch_data.sh, or use --dataset glyphs, which needs none.
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
    define_flags(("omniglot", "glyphs"))
    run_main(main)
