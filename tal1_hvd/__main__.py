"""``python -m tal1_hvd COMMAND`` is ``tal1-hvd COMMAND``."""

import sys

from tal1_hvd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
