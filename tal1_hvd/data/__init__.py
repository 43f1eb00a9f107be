"""Sequences on their way from files to the ranks: encoding, FASTA, dataset folders, splits, shards."""
