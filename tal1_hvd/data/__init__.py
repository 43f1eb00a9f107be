"""Sequences on their way from files to ranks: encoding, FASTA, dataset folders, splits, batches."""
