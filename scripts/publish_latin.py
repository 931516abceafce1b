"""Measures a shipped checkpoint on the test files, puts new weights in its place, and writes its record and card.

    python scripts/publish_latin.py --data DATA                                       measures crnn-small-latin
    python scripts/publish_latin.py --data DATA --run runs/fourth --share_before 0.5  puts others in its place first
    python scripts/publish_latin.py --data DATA --language_model                      fits its language model first
    python scripts/publish_latin.py --data DATA --checkpoint attention-ocr-small-latin --run runs/attention

Where the package has a checkpoint of this name, new runs went on from it: they are added to its record. The weights of
several runs, and with --share_before those of the package too, are averaged (Wortsman et al., arXiv:2203.05482).

Training and its validation never read the test files. The card has new weights beside those whose place they take, as
the record has these: measure them first where the code has changed since. The synthetic sets are rendered by seed:
"unseen" from font families that no training line used, "seen" from the others.
"""

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps, ImageStat
from tqdm.auto import tqdm
from transformers import AutoModelForTextRecognition

try:
    from datasets import Dataset
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

from hf_ocr.bundle import save_bundle
from hf_ocr.card import try_usage, write_card
from hf_ocr.character_ngrams import fit_language_model
from hf_ocr.data.fonts import find_fonts, load_words, split_families
from hf_ocr.data.latin_lines import language_texts
from hf_ocr.data.lines import read_lines, undecoded_rows
from hf_ocr.data.synthetic_lines import SyntheticLines
from hf_ocr.evaluation import evaluate
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.record import DataFile, DataSource, Result, RunRecord, describe_model, fingerprint, hardware, versions
from hf_ocr.registration import DEFAULT_CHECKPOINT, default_checkpoint
from hf_ocr.report import contact_sheet, report_to_dict, report_to_table, worst_lines

ROOT = Path(__file__).resolve().parent.parent
STORED = torch.float16  # loaded, the weights are in float32
TEST_SETS = {
    "sroie_lines": "receipt lines (SROIE, split by shop; annotated in upper case whatever the print)",
    "iiit5k": "scene words (IIIT 5K-Word)",
    "icdar2015_words": "incidental scene words (ICDAR 2015, all 2,077)",
}
TRAINING_SETS = {
    "sroie_lines": ("CC-BY-4.0", "ICDAR 2019 scanned receipts"),
    "iiit5k": (None, "IIIT 5K-Word, Mishra et al. 2012; a tenth held back"),
    "icdar2015_words": (None, "ICDAR 2015 Robust Reading, task 4.3; a tenth held back"),
    "svt_words": (None, "Street View Text, Wang et al. 2011"),
}
LIMITS = (
    "It reads one line or word; it does not find text on a page.",
    "Handwriting and blackletter were not in its training data.",
    "Words turned by more than about 30 degrees, curved text and letters below about 8 px are read badly.",
    "Scene words are read less well than by networks several times its size (see the results).",
)
LIKE_NOT_EQUAL = (
    "Its runs were stopped and resumed, and on the way schedules were shortened and the augmentation was changed: the "
    "commands give a like model, not an equal one."
)
TRAIN = "python scripts/train_crnn_latin.py --data DATA --output_dir runs/"


class Checkpoint(NamedTuple):
    """What the measuring does not find out of a checkpoint. `load_as` is None for the one that reads by default."""

    description: str
    limits: tuple[str, ...]
    commands: tuple[str, ...]
    load_as: str | None


CHECKPOINTS = {
    "crnn-small-latin": Checkpoint(
        "A convolutional recurrent network with a CTC head that reads lines and words of printed Latin text: receipts, "
        "documents, forms, screens, signs. Small enough for any CPU.",
        (
            *LIMITS,
            LIKE_NOT_EQUAL,
            "Run 1 had neither SVT nor the receipt lines of which the case is not known.",
            "Run 7 was made on one GPU: its length was fitted to the time left while it ran, its fonts were cut to the "
            "alphabet. Its judge is PP-OCR (`hf-ocr convert rapidocr`) after scripts/finetune.py on the training lines "
            "and words of which the case is known.",
            "Run 8 made it faster: the kernels of run 7 at lower ranks, at 38 px, chosen on validation lines.",
            "Run 9 brought synthetic lines in form style, run 10, from its step 1,200 on, three times as many blank "
            "images, with blotches. Their judge is PP-OCR as converted. Its share was chosen on validation lines a "
            "second time, after another, 0.7, had been measured on the test files: these were not quite unseen.",
            "Doubtful texts are chosen with a language model of characters, of the training texts and of word lists: "
            "what is no word of these may be read as one. `model.set_language_model(None)` reads without it.",
        ),
        (
            f"{TRAIN}first",
            f"{TRAIN}second --init_from runs/first/final --max_steps 13000 --learning_rate 1e-3",
            f"{TRAIN}third --init_from runs/second/final --max_steps 5500 --learning_rate 1e-3",
            "python scripts/publish_latin.py --data DATA --run runs/second runs/third",
            f"{TRAIN}fourth --init_from hf_ocr/checkpoints/crnn-small-latin --max_steps 3000 --late_from 0.8 "
            "--learning_rate 1e-3 --seed 4",
            "python scripts/publish_latin.py --data DATA --run runs/fourth --share_before 0.5",
            "python scripts/get_fonts.py --output_dir /usr/share/fonts/truetype/google-fonts",
            f"{TRAIN}fifth --init_from hf_ocr/checkpoints/crnn-small-latin --teacher "
            "hf_ocr/checkpoints/attention-ocr-small-latin --max_steps 4600 --late_from 0.75 --learning_rate 1e-3 "
            "--seed 41",
            "python scripts/publish_latin.py --data DATA --run runs/fifth --share_before 0.333",
            f"{TRAIN}sixth --init_from hf_ocr/checkpoints/crnn-small-latin --max_steps 1600 --late_from 0.65 "
            "--learning_rate 1e-3 --seed 61",
            "python scripts/publish_latin.py --data DATA --run runs/sixth --share_before 0.5",
            f"{TRAIN}seventh --init_from hf_ocr/checkpoints/crnn-small-latin --ranks 0 32 48 64 96 112 144 144 "
            "--teacher hf_ocr/checkpoints/crnn-small-latin --distillation_weight 2 --judge runs/pp-ocr-receipts-words "
            "--max_steps 5229 --late_from 0.79 --learning_rate 1.2e-3 --lines_per_batch 256 --num_workers 15 --seed 81",
            "python scripts/publish_latin.py --data DATA --run runs/seventh",
            "ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 "
            f"{TRAIN.removeprefix('python ')}eighth --init_from hf_ocr/checkpoints/crnn-small-latin --image_height 38 "
            "--ranks 0 20 32 40 56 64 80 80 --lstm_input_size 128 --teacher hf_ocr/checkpoints/crnn-small-latin "
            "--distillation_weight 5 --judge runs/pp-ocr-receipts-words --late_from 0 --learning_rate 4e-4 "
            "--max_steps 600 --eval_steps 100 --seed 8",
            "python scripts/publish_latin.py --data DATA --run runs/eighth --share_before 0.5",
            "python scripts/publish_latin.py --data DATA --language_model",
            f"{TRAIN}ninth --init_from hf_ocr/checkpoints/crnn-small-latin --judge runs/pp-ocrv6-small --max_steps 950 "
            "--late_from 0.4 --learning_rate 5e-4 --eval_steps 95 --seed 111",
            "python scripts/publish_latin.py --data DATA --run runs/ninth --share_before 0.5",
            f"{TRAIN}tenth --init_from hf_ocr/checkpoints/crnn-small-latin --judge runs/pp-ocrv6-small "
            "--max_steps 2000 --late_from 0.4 --learning_rate 5e-4 --eval_steps 200 --seed 121",
            "python scripts/publish_latin.py --data DATA --run runs/tenth --share_before 0.6",
        ),
        None,
    ),
    "attention-ocr-small-latin": Checkpoint(
        "The encoder of crnn-small-latin with a decoder that looks at one character after the other and writes it, read"
        " together with the CTC head: for lines and words of printed Latin text.",
        (
            *LIMITS,
            "It writes one character after the other, and reads slower than crnn-small-latin.",
            "Run 1 had a mix of lines of its own (see its settings), which the first command does not give; runs 1 and "
            "2 had fewer fonts than the later ones.",
        ),
        (
            f"{TRAIN}attention-1 --model_type attention_ocr --init_from hf_ocr/checkpoints/crnn-small-latin "
            "--max_steps 1913 --learning_rate 1e-3 --seed 7",
            f"{TRAIN}attention-2 --model_type attention_ocr --init_from runs/attention-1/final --max_steps 4000 "
            "--learning_rate 7e-4 --seed 11",
            "python scripts/get_fonts.py --output_dir /usr/share/fonts/truetype/google-fonts",
            f"{TRAIN}attention-3 --model_type attention_ocr --init_from runs/attention-2/final --max_steps 2200 "
            "--late_from 0.6 --learning_rate 8e-4 --seed 31",
            "python scripts/publish_latin.py --data DATA --checkpoint attention-ocr-small-latin "
            "--went_on_from runs/attention-1 runs/attention-2 --run runs/attention-3",
            f"{TRAIN}attention-4 --model_type attention_ocr --init_from hf_ocr/checkpoints/attention-ocr-small-latin "
            "--max_steps 1400 --late_from 0.65 --learning_rate 8e-4 --seed 62",
            "python scripts/publish_latin.py --data DATA --checkpoint attention-ocr-small-latin --run runs/attention-4 "
            "--share_before 0.5",
            f"{TRAIN}attention-5 --model_type attention_ocr --init_from hf_ocr/checkpoints/attention-ocr-small-latin "
            "--teacher hf_ocr/checkpoints/vision-text-small-latin --max_steps 1800 --late_from 0.6 "
            "--learning_rate 8e-4 --seed 71",
            "python scripts/publish_latin.py --data DATA --checkpoint attention-ocr-small-latin --run runs/attention-5 "
            "--share_before 0.3",
        ),
        "hf_ocr/checkpoints/attention-ocr-small-latin",
    ),
    "vision-text-small-latin": Checkpoint(
        "The convolutions of crnn-small-latin, four transformer layers that mix near frames, and a transformer decoder "
        "that is read together with the CTC head: for lines and words of printed Latin text.",
        (
            *LIMITS,
            "It reads slower than crnn-small-latin.",
            "Run 1 was planned for 4,600 steps and shortened on the way: its command gives a like model, not an equal "
            "one.",
        ),
        (
            "python scripts/get_fonts.py --output_dir /usr/share/fonts/truetype/google-fonts",
            f"{TRAIN}vision-text --model_type vision_text --init_from hf_ocr/checkpoints/crnn-small-latin --teacher "
            "hf_ocr/checkpoints/crnn-small-latin --max_steps 3300 --late_from 0.55 --learning_rate 1.2e-3 --seed 41",
            "python scripts/publish_latin.py --data DATA --checkpoint vision-text-small-latin --run runs/vision-text",
            f"{TRAIN}vision-text-2 --model_type vision_text --init_from hf_ocr/checkpoints/vision-text-small-latin "
            "--teacher runs/sixth/final --max_steps 2200 --late_from 0.6 --learning_rate 8e-4 --seed 63",
            "python scripts/publish_latin.py --data DATA --checkpoint vision-text-small-latin --run runs/vision-text-2 "
            "--share_before 0.3",
        ),
        "hf_ocr/checkpoints/vision-text-small-latin",
    ),
}


def joined_lines(
    rows: Dataset, count: int = 200, parts: int = 10, height: int = 40, seed: int = 0
) -> list[dict[str, Any]]:
    """Lines side by side at one height (px), a space apart: about twice as long as the longest line of training."""
    draw = random.Random(seed)
    joined = []
    for _ in range(count):
        chosen = [rows[index] for index in draw.sample(range(len(rows)), parts)]
        images = [row["image"].convert("RGB") for row in chosen]
        images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
        gap = height // 2
        line = Image.new("RGB", (sum(image.width + gap for image in images), height), images[0].getpixel((0, 0)))
        left = 0
        for image in images:
            line.paste(image, (left, 0))
            left += image.width + gap
        joined.append({"image": line, "text": " ".join(row["text"] for row in chosen)})
    return joined


def changed_lines(
    rows: Dataset, change: Callable[[Image.Image, int, random.Random], Image.Image], count: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Some of the lines, in grey, each changed; `change` is given the grey of its paper too."""
    draw = random.Random(seed)
    changed = []
    for index in draw.sample(range(len(rows)), count):
        image = rows[index]["image"].convert("L")
        line = change(image, int(ImageStat.Stat(image).median[0]), draw)
        changed.append({"image": line, "text": rows[index]["text"]})
    return changed


def loose(image: Image.Image, paper: int, draw: random.Random) -> Image.Image:
    """With up to three heights of empty ground before and behind it, as a generous crop has."""
    before, behind = (round(draw.uniform(0.0, 3.0) * image.height) for _ in range(2))
    return ImageOps.expand(image, (before, 0, behind, 0), paper)


def tilted(image: Image.Image, paper: int, draw: random.Random) -> Image.Image:
    """Turned by up to six degrees either way, as a box round a line of a photograph holds it."""
    return image.rotate(draw.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True, fillcolor=paper)


def install(sources: list[Path], shares: list[float], folder: Path) -> None:
    """The weighted mean of the weights; a language model is that of the first source which has one."""
    models = [AutoModelForTextRecognition.from_pretrained(source, dtype=torch.float32) for source in sources]
    language_models = [model.language_model for model in models if getattr(model, "language_model", None) is not None]
    for model in models:
        if hasattr(model, "set_language_model"):
            model.set_language_model(None)
    states = [model.state_dict() for model in models]
    model = models[-1]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        raise SystemExit(f"{', '.join(map(str, sources))}: other layers. Only weights of one network have a mean.")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(sum(share * state[name] for share, state in zip(shares, states, strict=True)))
    if language_models:
        model.set_language_model(language_models[0])
    model.config.invalid_labels = model.config.empty_labels = "error"
    store(model, TextRecognitionProcessor.from_pretrained(sources[-1]), folder)


def store(model: Any, processor: TextRecognitionProcessor, folder: Path) -> None:
    """As `STORED`, without the code that `save_pretrained` puts beside the weights."""
    shutil.rmtree(folder, ignore_errors=True)
    save_bundle(model, processor, folder, weights_dtype=STORED)
    for module in folder.glob("*.py"):
        module.unlink()
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "auto_map" in json.dumps(content):
            path.write_text(json.dumps(_without_code(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_code(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {k: _without_code(v) for k, v in content.items() if k not in ("auto_map", "custom_pipelines")}


def test_sets(data: Path) -> Iterator[tuple[str, str, str, Any, tuple[DataFile, ...]]]:
    """Name, split, title, rows and file of each set."""
    for name, title in TEST_SETS.items():
        file = data / name / "test.parquet"
        yield name, "test", title, read_lines(file), (fingerprint(file),)
    receipts = read_lines(data / "sroie_lines" / "test.parquet")
    yield "sroie_lines", "test, joined", "ten receipt lines side by side", joined_lines(receipts), ()
    for change, title in (
        (loose, "receipt lines with empty ground before and behind"),
        (tilted, "receipt lines turned by up to six degrees"),
    ):
        yield "sroie_lines", f"test, {change.__name__}", title, changed_lines(receipts, change), ()
    seen, unseen = split_families(find_fonts(), held_out=0.15, seed=0)
    for style, split, faces in (
        ("document", "unseen fonts", unseen),
        ("document", "seen fonts", seen),
        ("form", "unseen fonts", unseen),
    ):
        lines = SyntheticLines(faces, load_words(), seed=20_000, styles={style: 1.0})
        rows = [row for row in (lines[index] for index in range(1030)) if row["text"]][:1000]
        yield f"synthetic {style}s", split, f"synthetic lines in {style} style", rows, ()


def measure_all(reader: Any, processor: Any, data: Path, sheets: Path | None) -> list[Result]:
    results = []
    for dataset, split, title, rows, files in test_sets(data):
        report = evaluate(reader, processor, tqdm(undecoded_rows(rows), desc=title, disable=None))
        print(f"\n{title}\n{report_to_table(report)}")
        results.append(Result(dataset, split, report_to_dict(report), title, files))
        if sheets:
            sheets.mkdir(parents=True, exist_ok=True)
            contact_sheet(worst_lines(report), rows).save(sheets / f"{dataset}-{split}.png")
    return results


def headlines(result: Result) -> Result:
    """Without the slices and the confusions."""
    kept = {name: result.report[name] for name in ("num_lines", "interval", "figures")}
    return replace(result, report=kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="output_dir of scripts/train_crnn_latin.py")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--went_on_from", type=Path, nargs="+", default=[], help="runs before these, for the record")
    parser.add_argument("--data", type=Path, required=True, help="folder with sroie_lines, iiit5k, icdar2015_words")
    parser.add_argument("--share_before", type=float, default=0.0, help="share of the weights that the package has now")
    parser.add_argument("--language_model", action="store_true", help="fit a new one; of a crnn")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the worst lines of each set")
    arguments = parser.parse_args()
    folder, known = default_checkpoint().parent / arguments.checkpoint, CHECKPOINTS[arguments.checkpoint]
    cards = ROOT / "model_cards"
    earlier = None
    if folder.exists():
        earlier = RunRecord.load(cards / f"{folder.name}.json")
    elif not arguments.run:
        parser.error(f"the package has no {folder.name}: expected the --run whose weights are to be it.")

    def load() -> tuple[Any, TextRecognitionProcessor]:
        model = AutoModelForTextRecognition.from_pretrained(folder)
        return model, TextRecognitionProcessor.from_pretrained(folder)

    before: tuple[Result, ...] = ()
    if earlier and (arguments.run or arguments.language_model):
        if earlier.weights != (fingerprint(folder / "model.safetensors"),):
            parser.error(f"the record of {folder.name} is of other weights than the package has: measure these first.")
        before = tuple(headlines(result) for result in earlier.results)
    elif earlier:
        before = earlier.results_before
    if arguments.run:
        share, count = arguments.share_before, len(arguments.run)
        lighter = arguments.run[0] / "start"  # the weights that the package has now, in the layers of the run
        was = [lighter if lighter.exists() else folder] * (share > 0)
        install(
            was + [run / "final" for run in arguments.run], [share] * len(was) + [(1 - share) / count] * count, folder
        )
    model, processor = load()
    if arguments.language_model:
        model.set_language_model(fit_language_model(processor.tokenizer, language_texts(arguments.data)))
        store(model, processor, folder)
    reader = model.reading_copy(torch.float32)
    results = measure_all(reader, processor, arguments.data, arguments.sheets)

    samples = read_lines(ROOT / "tests" / "samples")
    picture = cards / f"{folder.name}.png"
    sheet = contact_sheet(evaluate(reader, processor, samples).predictions, samples)
    sheet.save(picture, optimize=True)

    runs = [*arguments.went_on_from, *arguments.run]
    ends = [json.loads((run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]) for run in runs]
    settings = dict(earlier.settings) if earlier else {}
    done = max((int(name.split(":")[0].removeprefix("run ")) for name in settings), default=0)
    machine = earlier.hardware if earlier else hardware()
    for number, run in enumerate(runs, done + 1):
        own = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        machine = own.pop("hardware")
        settings |= {f"run {number}: {name}": value for name, value in own.items()}
    if earlier and machine["cpu"] not in earlier.hardware["cpu"]:
        machine["cpu"] = f"{earlier.hardware['cpu']} (runs 1 to {done}), {machine['cpu']}"

    def total(before: float | None, name: str) -> float:
        return (before or 0) + sum(end[name] for end in ends)

    faces, _ = split_families(find_fonts(), held_out=0.15, seed=0)
    record = RunRecord(
        name=folder.name,
        description=known.description,
        licence="apache-2.0",
        model=describe_model(model, processor) | {"dtype": str(STORED).removeprefix("torch.")},
        settings=settings,
        created=date.today().isoformat() if runs or earlier is None else earlier.created,
        hours=round(total(earlier and 3600 * earlier.hours, "seconds") / 3600, 2),
        steps=total(earlier and earlier.steps, "step"),
        lines_seen=total(earlier and earlier.lines_seen, "lines"),
        hardware=machine,
        versions=versions(),
        training_data=(
            DataSource("synthetic lines", origin=f"hf_ocr.data.synthetic_lines, {len(faces)} font faces, seed 0"),
            *(
                DataSource(
                    name,
                    "train",
                    len(Dataset.from_parquet(str(arguments.data / name / "train.parquet"))),
                    origin,
                    licence,
                    (fingerprint(arguments.data / name / "train.parquet"),),
                )
                for name, (licence, origin) in TRAINING_SETS.items()
            ),
        ),
        results=tuple(results),
        results_before=before,
        speed=earlier.speed if earlier and not (runs or arguments.language_model) else (),
        weights=(fingerprint(folder / "model.safetensors"),),
        languages=("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv"),
        limits=known.limits,
        command="\n".join(known.commands),
        evaluation_command=f"python scripts/publish_latin.py --data DATA --checkpoint {folder.name}",
        load_as=known.load_as,
        pictures={picture.name: "sample lines and what was read"},
    )
    write_card(try_usage(record, "tests/samples/receipt-2.png", ROOT).save(cards))


if __name__ == "__main__":
    main()
