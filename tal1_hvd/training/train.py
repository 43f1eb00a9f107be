"""A training run, from settings to a run folder, on any number of ranks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.data.batches import Batching
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.distributed.optimizer import DistributedOptimizer
from tal1_hvd.distributed.watchdog import Watchdog
from tal1_hvd.evaluation.metrics import summary
from tal1_hvd.evaluation.summary import full_summary
from tal1_hvd.models.registry import build_model
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.checkpoint import (
    Progress,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from tal1_hvd.training.progress import Reporter
from tal1_hvd.training.run_folder import RunFolder
from tal1_hvd.training.schedule import ScaledWarmup
from tal1_hvd.training.settings import TrainSettings
from tal1_hvd.training.step import compile_steps, gather

# Passes in one graph call: enough that the call costs nothing, few enough that progress shows.
_PASSES_A_CALL = 16
