"""Train as usual, but save a checkpoint after every epoch, however short."""

import sys

from tal1_hvd.cli.main import main
from tal1_hvd.training import train

if __name__ == "__main__":
    train._SECONDS_BETWEEN_CHECKPOINTS = 0.0
    sys.exit(main(["train", *sys.argv[1:]]))
