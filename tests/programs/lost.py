"""Train as usual, a step a graph call, but a rank is killed: ``lost.py RANK TRAIN-FLAGS``.

That is the rank which had this number at its start, after the third step of the fourth epoch.
"""

import os
import signal
import sys

from tal1_hvd.cli.main import main
from tal1_hvd.training import interruptions, trainer

lost, *flags = sys.argv[1:]
# Look for interruptions, and keep what was done, after every step.
trainer._MOST_STEPS_A_CALL = 1
interruptions._SHARE = 1e9
intact = trainer.Trainer.calls


def calls(self, epoch, done=0):
    """Die in the fourth epoch."""
    for number, call in enumerate(intact(self, epoch, done), 1):
        if (epoch, number) == (3, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        yield call


if os.environ.get("HOROVOD_RANK") == lost:
    trainer.Trainer.calls = calls

sys.exit(main(["train", *flags]))
