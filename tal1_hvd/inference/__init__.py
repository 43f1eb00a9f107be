"""The trained model at work on sequences."""
