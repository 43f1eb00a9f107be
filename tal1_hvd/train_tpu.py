"""``python -m tal1_hvd.train_tpu`` equals ``tal1-hvd train --strategy tpu``."""

import sys

from tal1_hvd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "--strategy", "tpu", *sys.argv[1:]]))
