"""Weights from elsewhere, as checkpoints of this package: one file a source."""
