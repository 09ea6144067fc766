"""Checkpoints of other programs: read without running anything in them, and written for others to read."""
