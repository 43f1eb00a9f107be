"""``python -m tal1_hvd.train ARGS`` is ``tal1-hvd train ARGS``, for horovodrun, mpirun and srun."""

import sys

from tal1_hvd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
