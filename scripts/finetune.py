"""Fine-tunes a recognizer on labelled lines.

    accelerate launch scripts/finetune.py --train_file lines/ --output_dir runs/mine
    accelerate launch scripts/finetune.py --train_file train.parquet --validation_file validation.parquet \\
        --test_file test.parquet --alphabet union --replay_share 0.2 --output_dir runs/mine
    accelerate launch scripts/finetune.py settings.json

Lines come from a parquet file, a folder of them, a folder with metadata.csv or metadata.jsonl beside its images, or a
folder of pairs line.png and line.gt.txt. Images without a text are left out, or read by `--teacher_model`. The data is
looked at first (as `hf-ocr inspect` does), and what would make training wrong stops the run.

A run that was stopped, in whatever way, goes on from its last checkpoint when the same command is given again, and ends
with the same weights, on CPUs bit by bit; with other settings or lines it is refused. OUTPUT_DIR/best holds the model
that read the validation lines best: load it with `pipeline("image-to-text", model="OUTPUT_DIR/best")`. Beside it lie
the record of the run (NAME.json), the card rendered from it, the curves, and the worst lines with their images.
"""

import argparse
import json
import math
import shutil
import sys
import zlib
from dataclasses import asdict, dataclass, field, fields
from datetime import date, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.utils import logging

try:
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list, parse_flag_from_env
    from datasets import Dataset, concatenate_datasets, disable_progress_bars
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

import hf_ocr  # noqa: F401  (registers the models)
from hf_ocr.alphabet import resize_alphabet
from hf_ocr.bundle import licence_of
from hf_ocr.card import try_usage, write_card
from hf_ocr.character_ngrams import choose_language_model
from hf_ocr.checkpointing import save_model
from hf_ocr.cli.inspect import report as inspection_lines
from hf_ocr.data.augmentation import augment
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.data.inspection import inspect_lines
from hf_ocr.data.lines import measurable_lines, pixel_checksums, read_lines, split_lines, undecoded, undecoded_rows
from hf_ocr.distillation import Teacher, read_with_teacher
from hf_ocr.encoder_decoder import decoder_positions, load_recognizer
from hf_ocr.evaluation import Report
from hf_ocr.learning_rate import draw_sweep, sweep_learning_rates
from hf_ocr.models.image_loading import load_image
from hf_ocr.record import DataFile, DataSource, Result, RunRecord, describe_model, fingerprint, hardware, versions
from hf_ocr.registration import default_checkpoint, find_checkpoint
from hf_ocr.report import contact_sheet, draw_curves, report_to_dict, report_to_table, worst_lines
from hf_ocr.training import TrainingConfig, evaluate_in_all_processes, train

BATCHES_PER_CHUNK = 16
FILES_OF_RESULTS = {"validation": "validation_file", "old": "old_test_file", "test": "test_file"}
CURVES, SAMPLE = "curves.png", "sample.png"


@dataclass
class ModelArguments:
    """Which recognizer, and what becomes of its alphabet."""

    model_name_or_path: str = field(
        default_factory=lambda: str(default_checkpoint()),
        metadata={
            "help": "folder of a checkpoint, or its name on the Hub or in the package, of ours or of transformers "
            "(TrOCR, Donut and other encoder-decoders, MGP-STR); by default the one inside the package"
        },
    )
    alphabet: str = field(
        default="fail",
        metadata={
            "help": "new characters: 'fail' stops, 'union' adds them, 'new' keeps those of the lines alone",
            "choices": ["fail", "union", "new"],
        },
    )
    teacher_model: str | None = field(
        default=None,
        metadata={
            "help": "another recognizer, of any family or of transformers, which reads the training lines that have no "
            "text; with distillation_weight its logits are learnt too, on all lines"
        },
    )
    lora_rank: int = field(
        default=0, metadata={"help": "of LoRA, for an encoder-decoder of transformers (extra `lora`); 0: none"}
    )


@dataclass
class DataArguments:
    """Lines to learn from, and to measure on."""

    train_file: list[str] = field(metadata={"help": "lines to train on"})
    validation_file: list[str] | None = field(
        default=None,
        metadata={"help": "lines that choose the best weights; else validation_split of the training lines"},
    )
    test_file: list[str] | None = field(default=None, metadata={"help": "lines that are read once, at the end"})
    validation_split: float = field(
        default=0.1, metadata={"help": "share held back where validation_file is not given"}
    )
    image_column_name: str = "image"
    text_column_name: str = "text"
    teacher_min_score: float = field(
        default=0.95, metadata={"help": "least probability a character for what teacher_model reads to be learnt"}
    )
    augmentation: str = field(
        default="line", metadata={"help": "of images, made grey", "choices": ["none", "line", "word"]}
    )
    replay_file: list[str] | None = field(
        default=None, metadata={"help": "lines like those the model has learnt from, against forgetting"}
    )
    replay_share: float = field(default=0.2, metadata={"help": "of the lines, where replay_file is given"})
    old_test_file: list[str] | None = field(
        default=None, metadata={"help": "lines like those it has learnt from, measured in every evaluation"}
    )
    max_width: int = field(default=1600, metadata={"help": "px at the model's height; wider lines are left out"})


@dataclass
class TrainingArguments:
    """How to learn; names as in the example scripts of transformers."""

    output_dir: str
    num_train_epochs: float = 20.0
    max_steps: int = field(default=-1, metadata={"help": "instead of num_train_epochs"})
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "lines in the mean: wide lines come in fewer"}
    )
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-4
    lr_scheduler_type: str = field(default="cosine", metadata={"choices": ["cosine", "linear", "one_cycle"]})
    warmup_ratio: float = 0.05
    weight_decay: float = 0.02
    max_grad_norm: float = field(default=5.0, metadata={"help": "clip the gradient; 0: do not"})
    average_decay: float = field(default=0.99, metadata={"help": "of the moving average of the weights"})
    freeze_steps: int = field(default=0, metadata={"help": "first steps in which only the head learns"})
    distillation_weight: float = field(
        default=0.0,
        metadata={
            "help": "of the logits of teacher_model, or, against forgetting, of the untuned model, on the same images; "
            "try 1"
        },
    )
    mixed_precision: str | None = field(
        default=None,
        metadata={"help": "instead of what accelerate is configured for", "choices": ["no", "bf16", "fp16"]},
    )
    gradient_checkpointing: bool = field(
        default=False,
        metadata={"help": "compute layers again instead of keeping their results: less memory, more time"},
    )
    eval_steps: int = 200
    save_steps: int = 200
    save_total_limit: int = 2
    metric_for_best_model: str = field(
        default="cer",
        metadata={
            "help": "of the validation lines, which chooses the best weights",
            "choices": ["cer", "cer_ignoring_case", "wer", "exact"],
        },
    )
    early_stopping_patience: int | None = None
    dataloader_num_workers: int = 1
    find_learning_rate: bool = field(
        default=False, metadata={"help": "sweep learning rates, draw OUTPUT_DIR/learning-rate.png, and end"}
    )
    report_to: str | None = field(default=None, metadata={"help": "tensorboard, or another tracker of accelerate"})
    seed: int = 0


def parse_settings(parser: HfArgumentParser, file: str) -> tuple[Any, ...]:
    """The arguments in a JSON file, held to what the command line is held to."""
    try:
        parsed = parser.parse_json_file(file)
    except TypeError as error:  # of a dataclass
        raise ValueError(f"{file}: {error}. Give what `python scripts/finetune.py --help` asks for.") from error
    for part in parsed:
        for setting in fields(part):
            value, choices = getattr(part, setting.name), setting.metadata.get("choices")
            if choices and value is not None and value not in choices:
                raise ValueError(f"{file}: {setting.name} is {value!r}, expected one of {', '.join(choices)}.")
            if setting.name.endswith("_file") and isinstance(value, str):
                setattr(part, setting.name, [value])
    return parsed


def files_of(data: DataArguments) -> dict[str, Any]:
    """The settings that name files, those that are given."""
    return {name: value for name, value in vars(data).items() if name.endswith("_file") and value}


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Leaves the lines of the description as they are, and shows the defaults."""


def main() -> None:
    arguments = (ModelArguments, DataArguments, TrainingArguments)
    parser = HfArgumentParser(arguments, description=__doc__, formatter_class=HelpFormatter)
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        model_arguments, data, training = parse_settings(parser, sys.argv[1])
    else:
        model_arguments, data, training = parser.parse_args_into_dataclasses()
    # Without a GPU, accelerate takes several processes for single ones unless it is told that CPUs are meant.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=timedelta(hours=6))  # others wait while one looks at the data
    say = print if state.is_main_process else lambda *words: None
    say(f"{state.num_processes} process{'es' if state.num_processes > 1 else ''} on {state.device}")
    output = Path(training.output_dir)
    for file in chain.from_iterable(files_of(data).values()):
        if output.resolve().is_relative_to(Path(file).resolve()):
            raise ValueError(f"--output_dir {output} lies in {file}, which it would change. Name another folder.")
    if not sys.stderr.isatty():  # their bars show in pipes and files too
        logging.disable_progress_bar()
        disable_progress_bars()

    if model_arguments.lora_rank and (training.freeze_steps or model_arguments.alphabet != "fail"):
        raise ValueError(
            "lora_rank goes with neither freeze_steps nor a growing alphabet: beside its matrices nothing learns, the "
            "vocabulary layers among it. Leave it out."
        )
    torch.manual_seed(training.seed)
    model, processor = load_recognizer(model_arguments.model_name_or_path, model_arguments.lora_rank)
    if getattr(model, "language_model", None) is not None:  # of other texts than those that it learns now
        model.set_language_model(None)

    def lines(files: list[str] | None) -> Dataset | None:
        return files and read_lines(files, data.image_column_name, data.text_column_name, unlabelled=True)

    def measurable(name: str, files: list[str] | None) -> Dataset | None:
        given = lines(files)
        try:
            rows = given and measurable_lines(given, processor.image_processor)
        except ValueError as error:
            raise ValueError(f"{name} lines: {error}") from error
        if rows is not None and len(rows) < len(given):
            left_out = f"{len(given) - len(rows):,} {name} lines are left out"
            say(f"{left_out}: no text, or an image that is broken or no text line, see hf-ocr inspect")
        return rows

    teacher_model = model_arguments.teacher_model
    given = lines(data.train_file)
    validation, test = measurable("validation", data.validation_file), measurable("test", data.test_file)
    old_test = measurable("old test", data.old_test_file)
    replay = lines(data.replay_file)
    replay = replay and replay.filter(lambda text: text is not None, input_columns="text")
    training_lines = given.filter(lambda text: text is not None, input_columns="text")
    unlabelled = given.filter(lambda text: text is None, input_columns="text")
    if not len(training_lines) and teacher_model is None:
        raise ValueError(
            f"{', '.join(data.train_file)}: none of the {len(given):,} images has a text. Expected line.gt.txt beside "
            "line.png, metadata.csv, or a parquet file with a column of texts."
        )
    if validation is None:
        if not len(training_lines):
            raise ValueError("no training line has a text to validate on. Give --validation_file.")
        prepare = processor.image_processor
        training_lines, held_back = split_lines(training_lines, data.validation_split, prepare, training.seed)
        validation = measurable_lines(held_back, prepare)
    held_out = {"validation": validation, "old_test": old_test, "test": test}
    num_labelled = len(training_lines)
    if teacher_model is not None and len(unlabelled):
        grown = [] if model_arguments.alphabet == "fail" else training_lines["text"]
        alphabet = set(processor.tokenizer.alphabet).union(*grown)
        read = read_with_teacher(unlabelled, teacher_model, alphabet, data.teacher_min_score)
        measured_on = {key for rows in held_out.values() if rows is not None for key in pixel_checksums(rows)}
        read = read.select([index for index, key in enumerate(pixel_checksums(read)) if key not in measured_on])
        say(f"{len(unlabelled):,} training lines without text, of which the teacher is sure of {len(read):,}")
        training_lines = concatenate_datasets([training_lines, read])
    elif teacher_model is not None and not training.distillation_weight:
        raise ValueError(
            f"--teacher_model {teacher_model} has nothing to teach: all training lines have a text. Add lines without, "
            "or let its logits be learnt with --distillation_weight 1."
        )
    elif len(unlabelled):
        say(f"{len(unlabelled):,} training lines have no text and are left out: a --teacher_model would read them")
    if not len(training_lines):
        raise ValueError(
            "there is nothing to learn: no training line has a text, and no teacher was sure of one. Give "
            "texts, or a --teacher_model, or a lower --teacher_min_score."
        )
    if state.is_main_process:
        splits = {"train": training_lines, "replay": replay, **held_out}
        look_at(splits, model, processor, model_arguments.alphabet, data.max_width)
    state.wait_for_everyone()
    if model_arguments.alphabet != "fail":
        texts = [text for rows in (training_lines, validation, replay) if rows is not None for text in rows["text"]]
        processor.tokenizer = resize_alphabet(model, processor.tokenizer, texts, model_arguments.alphabet)
    if hasattr(model, "recognize"):
        # Lines that cannot be aligned were reported above; a blank image is right to read as nothing.
        model.config.invalid_labels, model.config.empty_labels = "skip", "blank"

    change = None if data.augmentation == "none" else partial(augment, kind=data.augmentation)
    sources = [Source(training_lines, 1 - (data.replay_share if replay is not None else 0), change)]
    if replay is not None:
        sources.append(Source(replay, data.replay_share, change))
    chunks = LineChunks(
        sources,
        processor,
        lines_per_chunk=training.per_device_train_batch_size * BATCHES_PER_CHUNK,
        batches_per_chunk=BATCHES_PER_CHUNK,
        max_width=data.max_width,
        seed=training.seed,
        few_shapes=torch.cuda.is_available(),
        rank=state.process_index,
        world=state.num_processes,
    )
    steps = training.max_steps
    if steps < 0:
        a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * state.num_processes
        steps = math.ceil(training.num_train_epochs * len(training_lines) / (a_step * sources[0].share))
    if training.find_learning_rate:
        if not state.is_main_process:
            return
        batches = (batch for index in range(len(chunks)) for batch in chunks[index])
        sweep = sweep_learning_rates(model, batches, mixed_precision=training.mixed_precision)
        output.mkdir(parents=True, exist_ok=True)
        draw_sweep(sweep, output / "learning-rate.png")
        say(f"--learning_rate {sweep.suggestion:.1e} is a good start: see {output / 'learning-rate.png'}")
        return
    settings = {name: value for name, value in asdict(training).items() if name not in (
        "num_train_epochs", "per_device_train_batch_size", "max_steps", "find_learning_rate")}  # fmt: skip
    measured = {"validation": validation} | ({} if old_test is None else {"old": old_test})

    def validate(average: Any) -> dict[str, Report]:
        return {name: evaluate_in_all_processes(average, processor, rows) for name, rows in measured.items()}

    teacher = None
    if training.distillation_weight > 0:
        teacher = Teacher(*load_recognizer(teacher_model or model_arguments.model_name_or_path), processor)
    found: dict[str, tuple[DataFile, ...]] = {}
    if state.is_main_process:
        found = {name: tuple(map(fingerprint, files)) for name, files in files_of(data).items()}
    (found,) = broadcast_object_list([found])
    origin = {
        **{name: [file.sha256 for file in files] for name, files in found.items() if name != "test_file"},
        "texts": zlib.crc32("\n".join(training_lines["text"]).encode()),  # read by a teacher, some of them
        "augmentation": data.augmentation,
    }
    train(model, processor, chunks, TrainingConfig(max_steps=steps, **settings), validate, teacher, origin)

    best = load_recognizer(output / "best")[0].to(state.device)
    if hasattr(best, "set_language_model"):
        learnt = [text for rows in (training_lines, replay) if rows is not None for text in rows["text"]]

        def error_rate(model: Any) -> float:
            return evaluate_in_all_processes(model, processor, validation).figures["cer"]

        if choose_language_model(best, processor.tokenizer, learnt, error_rate) and state.is_main_process:
            save_model(best, processor, output / "best")
    if test is not None:
        measured["test"] = test
    reports = {name: evaluate_in_all_processes(best, processor, rows) for name, rows in measured.items()}
    if state.is_main_process:
        for name, report in reports.items():
            print(f"\n{name}\n{report_to_table(report)}")
            contact_sheet(worst_lines(report), measured[name]).save(output / f"worst-{name}.png")
        draw_curves(output / "log.jsonl", output / CURVES)
        # For the lines of code on the card.
        load_image(undecoded(undecoded_rows(validation)[0]["image"])).save(output / SAMPLE)
        counts = num_labelled, len(training_lines) - num_labelled
        write_record(output, best, processor, reports, found, counts, model_arguments, data, training)


def look_at(splits: dict[str, Dataset | None], model: Any, processor: Any, alphabet: Any, max_width: int) -> None:
    """Print what was found in the data; stop where training would go wrong."""
    found = {name: undecoded_rows(rows) for name, rows in splits.items() if rows is not None}
    train_splits = len(found.keys() & {"train", "replay"})
    frames, positions = getattr(model.base_model, "frame_count", None), decoder_positions(model)
    # New characters of old lines stop no run, and those of a test do not grow the alphabet.
    alphabet_splits = {"train", "validation", "test" if alphabet == "fail" else "replay"}
    inspection = inspect_lines(found, processor, frames, alphabet, positions, max_width, train_splits, alphabet_splits)
    print("\n".join(inspection_lines(inspection)), flush=True)
    if inspection.errors:
        raise SystemExit("The errors above would make training wrong. Mend them and start again.")


def write_record(
    output: Path,
    model: Any,
    processor: Any,
    reports: dict[str, Report],
    files: dict[str, tuple[DataFile, ...]],
    num_lines: tuple[int, int],
    model_arguments: ModelArguments,
    data: DataArguments,
    training: TrainingArguments,
) -> None:
    """OUTPUT_DIR/NAME.json, and the card rendered from it, also as README.md of the best model."""
    models = {name: getattr(model_arguments, name) for name in ("model_name_or_path", "teacher_model")}
    for name, model_name in models.items():
        if model_name is not None and Path(model_name).is_dir():
            models[name] = Path(model_name).name  # where it lies here is of no use elsewhere
    paths = {name: [Path(path) for path in value] for name, value in files_of(data).items()}
    sources = [DataSource("training lines", num_lines=num_lines[0], files=files["train_file"])]
    if num_lines[1]:
        origin = f"read by {models['teacher_model']}"
        sources.append(DataSource("lines without text", num_lines=num_lines[1], origin=origin))
    if data.replay_file:
        sources.append(DataSource("replayed lines", files=files["replay_file"]))
    log = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    record = RunRecord(
        name=output.resolve().name,
        description=f"{models['model_name_or_path']}, fine-tuned.",
        model=describe_model(model, processor),
        settings=asdict(model_arguments) | asdict(data) | asdict(training) | models | paths | {"output_dir": output},
        created=date.today().isoformat(),
        hours=round(log[-1]["seconds"] / 3600, 2),
        steps=log[-1]["step"],
        lines_seen=log[-1]["lines"],
        hardware=hardware(),
        versions=versions(),
        training_data=tuple(sources),
        results=tuple(
            Result(name, name, report_to_dict(report), files=files.get(FILES_OF_RESULTS[name], ()))
            for name, report in reports.items()
        ),
        weights=(fingerprint(output / "best" / "model.safetensors"),),
        licence=licence_of(Path(find_checkpoint(model_arguments.model_name_or_path))),
        load_as=f"{output.resolve().name}/best",
        pictures={CURVES: "loss and character error rates over the steps"},
    )
    record.save(output)  # whatever comes of the trial below
    card = write_card(try_usage(record, f"{record.name}/{SAMPLE}", output.resolve().parent).save(output))
    shutil.copy(card, output / "best" / "README.md")
    for picture in record.pictures:
        shutil.copy(output / picture, output / "best")
    print(f"\nThe best model is in {output / 'best'}, its card in {card}.")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:  # they say what is wrong; where it was raised helps nobody
        raise SystemExit(f"finetune.py: {error}") from error
