"""The networks, from uint8 codes to a probability, one builder a module."""
