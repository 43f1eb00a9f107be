"""Comes together with the other ranks of an elastic job, without Horovod; one may stay away.

The argument is the number of the process that does, or -1; others wait for it for a second.
"""

import os
import signal
import sys

from tal1_hvd.distributed import rendezvous
from tal1_hvd.distributed.rank_process import end_rank

if os.environ["HOROVOD_LOCAL_RANK"] == sys.argv[1]:
    signal.pause()
if sys.argv[1] != "-1":
    rendezvous._START = rendezvous._MARGIN = 0.5
try:
    with rendezvous.come_together(stall_timeout=0.5 if sys.argv[1] != "-1" else 40):
        print(f"rank {os.environ['HOROVOD_RANK']} of {os.environ['HOROVOD_SIZE']}")
except Exception as error:
    end_rank(error)
