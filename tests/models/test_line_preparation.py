"""The rules of size and turned lines are tried where they are used; here what they are held against."""

import sys
from subprocess import run

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_ocr.models.line_preparation import STRETCHES, stretch_line


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_stretched_line_is_that_of_torch(channels, stretch):
    line = np.random.default_rng(0).uniform(-1, 1, (channels, 40, 213)).astype(np.float32)
    size = (40, round(213 * stretch))
    want = F.interpolate(torch.from_numpy(line)[None], size=size, mode="bilinear", antialias=True)[0].numpy()
    got = stretch_line(line, stretch)
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-4)  # a grey level is 8e-3


def test_lines_are_loaded_without_torch(tmp_path):
    """The modules are copied beside an exported network; here their folder stands in for that of the package."""
    code = """
import sys, types
package = types.ModuleType("alone"); package.__path__ = [sys.argv[1]]; sys.modules["alone"] = package
from alone.image_loading import load_image
from alone.line_preparation import resized_width
import numpy as np
assert load_image(np.zeros((5, 9), np.uint8)).size == (9, 5) and resized_width((9, 5), 40, 64, 999) == 72
assert not {"torch", "transformers", "hf_ocr"} & set(sys.modules)
"""
    folder = sys.modules["hf_ocr.models"].__path__[0]
    done = run([sys.executable, "-c", code, folder], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
