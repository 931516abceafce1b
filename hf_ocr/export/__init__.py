"""Recognizers for runtimes other than PyTorch."""
