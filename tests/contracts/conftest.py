"""The contracts are plain modules: with this their assertions show values, as those of tests do."""

import pytest

NOUNS = ("tensors", "invariance", "persistence", "readings", "errors", "learning", "travel")

pytest.register_assert_rewrite(*(f"contracts.{noun}" for noun in NOUNS))
