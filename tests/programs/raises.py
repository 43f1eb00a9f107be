"""Train as usual, but rank 1 raises in its sixth epoch; arguments as for train."""

import sys

from tal1_hvd.cli.main import main
from tal1_hvd.distributed.environment import launched_rank
from tal1_hvd.training import train

if launched_rank() == 1:
    intact = train.Trainer.train_epoch

    def train_epoch(self, epoch, advance):
        """Raise in the sixth epoch."""
        if epoch == 5:
            raise ValueError("this disk is on fire")
        return intact(self, epoch, advance)

    train.Trainer.train_epoch = train_epoch

sys.exit(main(["train", *sys.argv[1:]]))
