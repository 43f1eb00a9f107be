"""Train as usual, but rank 1 raises in its sixth epoch; arguments as for train."""

import sys

from tal1_hvd.cli.main import main
from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.training.trainer import Trainer

if launched_rank() == 1:
    intact = Trainer.calls

    def calls(self, epoch, done=0):
        """Raise in the sixth epoch."""
        if epoch == 5:
            raise ValueError("this disk is on fire")
        return intact(self, epoch, done)

    Trainer.calls = calls

sys.exit(main(["train", *sys.argv[1:]]))
