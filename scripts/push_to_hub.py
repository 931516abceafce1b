"""Publishes a folder on the Hub, as `hf-ocr push` does: the same arguments, without the package's command installed.

python scripts/push_to_hub.py FOLDER USER/NAME --private
"""

import sys

from hf_ocr.cli import main as hf_ocr_main


def main() -> int:
    return hf_ocr_main(["push", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
