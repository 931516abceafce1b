"""Rows of text lines: readers, batches, augmentation, rendering."""
