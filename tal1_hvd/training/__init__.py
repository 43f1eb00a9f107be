"""Training: settings, one step, the loop over epochs, checkpoints, the run folder."""
