"""How fast training is, against plain Keras on the same data and machine."""
