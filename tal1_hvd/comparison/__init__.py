"""Ways to distribute training, trained in turn on the same data and seeds."""
