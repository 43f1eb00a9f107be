"""Ranks: how they are started, how they talk, and how a silent one is noticed."""
