"""Image heights for crnn-small: each trained from fresh weights for the same time, read on the same validation lines.

    python scripts/compare_heights.py --data DATA --output_dir runs/heights

A taller image costs more a step, so a lower one gets more steps: the seconds a step are measured first, in short runs
that take turns. The result is written to model_cards/crnn-small-latin-heights.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hf_ocr.record import hardware, versions

ROOT = Path(__file__).parent.parent
TURNS, STEPS_A_TURN = 3, 40


def trained(arguments: argparse.Namespace, folder: str, height: int, steps: int) -> dict[str, Any]:
    """The last entry of the log of a run of scripts/train_crnn_latin.py."""
    output = arguments.output_dir / folder
    command = [sys.executable, ROOT / "scripts" / "train_crnn_latin.py", "--data", arguments.data]
    command += ["--output_dir", output, "--image_height", height, "--max_steps", steps, "--seed", arguments.seed]
    # Measured at the end alone.
    subprocess.run([str(part) for part in [*command, "--eval_steps", steps]], check=True)
    return dict(json.loads((output / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as for train_crnn_latin.py")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--heights", type=int, nargs="+", default=[32, 40, 48], help="px")
    parser.add_argument("--minutes", type=float, default=20, help="for each height")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seconds = dict.fromkeys(arguments.heights, float("inf"))
    for turn in range(TURNS):
        for height in arguments.heights:
            entry = trained(arguments, f"speed-{height}-{turn}", height, STEPS_A_TURN)
            seconds[height] = min(seconds[height], entry["seconds"] / STEPS_A_TURN)
    rows = []
    for height in arguments.heights:
        steps = round(60 * arguments.minutes / seconds[height])
        entry = trained(arguments, str(height), height, steps)
        read = {name: value for name, value in entry.items() if name.endswith(("_exact", "_cer"))}
        rows.append({"height_px": height, "seconds_a_step": round(seconds[height], 3), "steps": steps, **read})
        print(rows[-1], flush=True)
    result = {"minutes": arguments.minutes, "seed": arguments.seed, "hardware": hardware(), "versions": versions()}
    text = json.dumps({**result, "heights": rows}, indent=1) + "\n"
    (ROOT / "model_cards" / "crnn-small-latin-heights.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
