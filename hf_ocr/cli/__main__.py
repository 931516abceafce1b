"""`python -m hf_ocr.cli`: the command without its script."""

import sys

from hf_ocr.cli import main

sys.exit(main())
