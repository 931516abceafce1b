"""Trains the shipped checkpoint crnn-small-latin: real receipt lines and scene words, and synthetic lines.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \\
        python scripts/train_crnn_latin.py --data DATA --output_dir runs/crnn-small-latin

With `--model_type attention_ocr --init_from CRNN` another family learns from the same lines and begins with the
encoder of a CRNN; `vision_text` begins with its convolutions. With `--teacher CHECKPOINT` each of these families learns
from any of them: it tells the case of lines that are annotated in capitals, and its logits are learnt beside the
labels. What a model to go on from misreads and the teacher, or the `--judge`, reads as labelled is drawn more often; a
judge may see other frames, as PP-OCR does (`hf-ocr convert rapidocr`, finetune.py). With `--ranks`, `--channels` and
`--hidden_size` the CRNN to go on from is first made one with fewer products, for speed.

Where the machine has no bfloat16, all is float32. A GPU waits for its lines: give it `--lines_per_batch 256` and as
many `--num_workers` as there are cores but one. Several processes (`accelerate launch`) share the work, each with
batches of its own. What is chosen of the training lines is kept in the output folder, so that one machine can choose
and another train.

The shipped weights took 10 runs and 9.9 hours on the two cores of an AMD EPYC, run 7 on one GPU. They read 94.99 % of
the SROIE test lines, 88.20 % of the IIIT5K test words and 75.20 % of those of ICDAR 2015 exactly (letters and digits),
and documents in unseen fonts at a CER of 1.61 %. All commands, versions and figures: model_cards/crnn-small-latin.json,
written by scripts/publish_latin.py. The lines it was measured on are never read here.

A stopped run goes on from its last checkpoint when the same command is given again, on a machine that has bfloat16 if
the first one had it. Fonts are those found under /usr/share/fonts and words those under /usr/share/dict; on Debian and
Ubuntu these packages make a good mixture (about 1,400 faces of 650 families):

    apt install --no-install-recommends fonts-{aenigma,anonymous-pro,bebas-neue,breip,cabinsketch,cantarell,cardo,\\
    cmu,comfortaa,comic-neue,courier-prime,croscore,crosextra-caladea,crosextra-carlito,dancingscript,dejavu-core,\\
    dejavu-extra,dkg-handwriting,dosis,dustin,ebgaramond,essays1743,firacode,freefont-ttf,hack,inconsolata,inter,\\
    jetbrains-mono,joscelyn,junicode,kaushanscript,kristi,lato,league-spartan,liberation,linuxlibertine,lobster,\\
    noto-core,noto-mono,ocr-a,ocr-b,oldstandard,open-sans,opendin,quicksand,roadgeek,roboto-slab,roboto-unhinted,\\
    sil-charis,sil-gentiumplus,stix,texgyre,urw-base35,vollkorn,yanone-kaffeesatz} \\
    wamerican wbritish wdutch wfrench witalian wngerman wpolish wportuguese wspanish wswedish

scripts/get_fonts.py adds the families of Google Fonts.
"""

import argparse
import json
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForTextRecognition

try:
    from accelerate import PartialState
    from datasets import Dataset, concatenate_datasets

    from hf_ocr.line_choice import Reader, hard_cases, load_reader, once, with_case
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

from hf_ocr.batch_reading import fingerprint_checkpoint
from hf_ocr.data.augmentation import augment
from hf_ocr.data.batches import ChunkSequence, LineChunks, Source
from hf_ocr.data.fonts import find_fonts, load_words, split_families
from hf_ocr.data.latin_lines import real_lines
from hf_ocr.data.synthetic_lines import SyntheticLines
from hf_ocr.distillation import Teacher
from hf_ocr.evaluation import Report
from hf_ocr.low_rank import with_low_rank_kernels
from hf_ocr.models.configuration_attention_ocr import AttentionOcrConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.modeling_vision_text import VisionTextForTextRecognition
from hf_ocr.models.pipeline_text_recognition import cpu_computes_bfloat16
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.pruning import with_fewer_units
from hf_ocr.record import hardware
from hf_ocr.text import LATIN_ALPHABET
from hf_ocr.training import TrainingConfig, evaluate_in_all_processes, train

SMALL_MODELS = {
    "crnn": CrnnForTextRecognition,
    "attention_ocr": AttentionOcrForTextRecognition,
    "vision_text": VisionTextForTextRecognition,
}


class Mix(NamedTuple):
    """Shares of receipt lines and of scene words; the rest is synthetic, in these styles."""

    receipts: float
    words: float
    styles: dict[str, float]


EARLY = Mix(0.19, 0.19, {"scene": 0.5, "receipt": 0.28, "document": 0.13, "screen": 0.09})
LATE = Mix(0.2, 0.35, {"scene": 0.36, "receipt": 0.17, "document": 0.18, "form": 0.13, "screen": 0.16})
WORDS = Mix(0.18, 0.28, {"scene": 0.5, "receipt": 0.12, "document": 0.16, "form": 0.14, "screen": 0.08})
# Lines by which --ranks, --lstm_input_size, --channels and --hidden_size choose what is kept.
CALIBRATION = {"sroie_cased": 600, "iiit5k": 300, "icdar2015_words": 300}
# Of the receipt lines drawn, and of the words, at most this share are hard cases, each at most so many times as often
# as another line.
HARD, HARD_TIMES = 0.25, 3

BATCHES_PER_CHUNK = 16


def lighter(
    reader: Any,
    processor: TextRecognitionProcessor,
    data: Path,
    ranks: list[int],
    lstm_input_size: int | None,
    channels: int,
    hidden_size: int,
) -> Any:
    """With what suits some of the training lines; no ranks leave the kernels, and what LSTMs see, as they are."""
    real = real_lines(data, held_back=False)
    lines = [real[name].shuffle(seed=0).select(range(count)) for name, count in CALIBRATION.items()]
    images = [
        processor(images=[image], return_tensors="pt")["pixel_values"] for rows in lines for image in rows["image"]
    ]
    if ranks:
        reader = with_low_rank_kernels(reader, [rank or None for rank in ranks], images, lstm_input_size)
    if (channels, hidden_size) != (reader.config.conv_channels[-1], reader.config.lstm_hidden_size):
        reader = with_fewer_units(reader, channels, hidden_size, images)
    return reader


def not_upright(row: dict) -> bool:
    width, height = row["image"].size
    return height > 1.5 * width and len(row["text"]) > 2


def new_model(model_type: str, image_height: int, reader: Any) -> Any:
    """With what a reader, where there is one, has learnt."""
    settings = {"invalid_labels": "skip", "empty_labels": "blank"}
    model_class = SMALL_MODELS[model_type]
    if reader is not None and isinstance(reader, model_class):
        for name, value in settings.items():
            setattr(reader.config, name, value)
        return reader
    if reader is not None:
        if model_class is AttentionOcrForTextRecognition:
            settings["attention_size"] = AttentionOcrConfig.small().attention_size
        return model_class.from_crnn(reader, **settings)
    config = model_class.config_class.small(vocab_size=len(LATIN_ALPHABET) + 1, image_height=image_height, **settings)
    return model_class(config)


def training_chunks(
    data: Path,
    output: Path,
    processor: TextRecognitionProcessor,
    fresh: bool,
    case_reader: Reader | None,
    learner: Reader | None,
    judge: Path | None,
    switch: int,
    lines_per_batch: int,
    seed: int,
) -> ChunkSequence:
    """From fresh weights EARLY, then LATE from step `switch` on; to go on from others, WORDS in place of EARLY.

    The case reader, a model and its processor, tells the case of the lines annotated in capitals; without one they are
    left out. Where there is a judge, hard cases of the learner, from which training goes on, are replayed.
    """
    real = real_lines(data, held_back=False)
    receipts, words = [real["sroie_cased"]], [real["iiit5k"], real["icdar2015_words"]]
    if case_reader is not None:
        receipts.append(with_case(real["sroie_upper"], case_reader, output / "cased-receipts.json"))
        words.append(with_case(real["svt"], case_reader, output / "cased-words.json"))
    receipt_lines = concatenate_datasets(receipts)
    upright_words = concatenate_datasets(words).filter(lambda row: not not_upright(row))
    print(f"{len(receipt_lines):,} receipt lines, {len(upright_words):,} words")
    hard_lines, hard_words = [], []
    if learner is not None and judge is not None:
        hard_lines = hard_cases(receipt_lines, learner, judge, output / "hard-lines.json")
        hard_words = hard_cases(upright_words, learner, judge, output / "hard-words.json")
        print(f"{len(hard_lines):,} of these lines and {len(hard_words):,} of these words are hard")
    state = PartialState()
    faces, _ = split_families(find_fonts(), held_out=0.15, seed=0)
    vocabulary = load_words()

    def mixed(mix: Mix, short_chunks: int = 0) -> LineChunks:
        synthetic = SyntheticLines(faces, vocabulary, seed=seed, styles=mix.styles)
        sources = [Source(synthetic, 1 - mix.receipts - mix.words)]
        for kind, share, rows, hard in (
            ("line", mix.receipts, receipt_lines, hard_lines),
            ("word", mix.words, upright_words, hard_words),
        ):
            replayed = min(HARD, HARD_TIMES * len(hard) / len(rows)) * share
            sources.append(Source(rows, share - replayed, partial(augment, kind=kind)))
            if replayed:
                sources.append(Source(hard, replayed, partial(augment, kind=kind)))
        return LineChunks(
            sources,
            processor,
            lines_per_chunk=BATCHES_PER_CHUNK * lines_per_batch,
            batches_per_chunk=BATCHES_PER_CHUNK,
            max_width=1024,
            short_chunks=short_chunks,
            seed=seed,
            few_shapes=torch.cuda.is_available(),
            rank=state.process_index,
            world=state.num_processes,
        )

    first = mixed(EARLY, short_chunks=32) if fresh else mixed(WORDS)
    return ChunkSequence(first, mixed(LATE), round(switch / first.batches_per_chunk))


def validation_sets(data: Path) -> dict[str, Dataset]:
    held_back = real_lines(data, held_back=True)
    receipts = concatenate_datasets([held_back["sroie_cased"], held_back["sroie_upper"]])
    return {
        "sroie": receipts.shuffle(seed=0).select(range(500)),
        "iiit5k": held_back["iiit5k"],
        "icdar2015": held_back["icdar2015_words"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of sroie_lines, iiit5k, icdar2015_words, svt_words"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--model_type", choices=SMALL_MODELS, default="crnn")
    parser.add_argument("--image_height", type=int, help="px; by default that of --init_from, or 40")
    parser.add_argument("--max_steps", type=int, default=10500)
    parser.add_argument("--late_from", type=float, default=4 / 7, help="share of the steps before the last mix")
    parser.add_argument("--lines_per_batch", type=int, default=64, help="in the mean")
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--init_from", type=Path, help="checkpoint folder to go on from, instead of fresh weights")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[], help="kernels of a crnn of --init_from in two; 0: a layer's whole"
    )
    parser.add_argument("--lstm_input_size", type=int, help="with --ranks: features that its recurrent layers see")
    parser.add_argument("--channels", type=int, help="fewer behind the trunk of a crnn of --init_from")
    parser.add_argument("--hidden_size", type=int, help="fewer units in the recurrent layers of a crnn of --init_from")
    parser.add_argument("--teacher", type=Path, help="checkpoint folder of one of these families, to learn from")
    parser.add_argument(
        "--distillation_weight", type=float, default=1.0, help="of the teacher's logits; 0: it only tells the case"
    )
    parser.add_argument("--judge", type=Path, help="checkpoint folder of any family; by default the teacher")
    parser.add_argument("--eval_steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=1)
    arguments = parser.parse_args()
    # The other processes wait while one chooses lines.
    PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=6))
    torch.set_num_threads(arguments.num_threads)
    torch.manual_seed(arguments.seed)
    output = arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    readers = {
        name: fingerprint_checkpoint(folder)
        for name in ("init_from", "teacher", "judge")
        if (folder := getattr(arguments, name)) is not None
    }
    if (known := once(output / "readers.json", lambda: readers)) != readers:  # they chose what is kept there
        parser.error(f"{output} was begun with {known}, now {readers}. Give the same checkpoints, or another folder.")
    reader = None
    if arguments.init_from is not None:
        # Weights are shipped in fp16; training needs them in float32.
        reader = AutoModelForTextRecognition.from_pretrained(arguments.init_from, dtype=torch.float32)
        if arguments.image_height is not None:
            reader.config.image_height = arguments.image_height
        if not isinstance(reader, CrnnForTextRecognition | SMALL_MODELS[arguments.model_type]):
            parser.error(f"--init_from is a {reader.config.model_type}: give a {arguments.model_type}, or a crnn.")
        if isinstance(reader, CrnnForTextRecognition):
            reader.set_language_model(None)  # what the network misreads by itself is to be learnt
    model = new_model(arguments.model_type, arguments.image_height or 40, reader)
    tokenizer = CharacterTokenizer.from_alphabet(LATIN_ALPHABET)
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=model.config.image_height), tokenizer)
    if arguments.lstm_input_size and not arguments.ranks:
        parser.error("--lstm_input_size goes with --ranks: give both.")
    if arguments.ranks or arguments.channels or arguments.hidden_size:
        if model is not reader or arguments.model_type != "crnn":
            parser.error("--ranks, --channels and --hidden_size need a crnn to go on from: give --init_from.")
        fewer = (
            arguments.channels or model.config.conv_channels[-1],
            arguments.hidden_size or model.config.lstm_hidden_size,
        )
        start = output / "start"  # kept: on another CPU the last bits would be others, and the run would be another
        with PartialState().main_process_first():
            if not (start / "model.safetensors").exists():
                lighter(
                    reader, processor, arguments.data, arguments.ranks, arguments.lstm_input_size, *fewer
                ).save_pretrained(start)
        model = CrnnForTextRecognition.from_pretrained(start)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(processor.tokenizer)} symbols")
    dtype = torch.bfloat16 if cpu_computes_bfloat16() else torch.float32  # of readers, which stay on the CPU
    teacher, case_reader = None, (reader.reading_copy(dtype), processor) if reader is not None else None
    if arguments.teacher is not None:
        case_reader = load_reader(arguments.teacher, dtype, arguments.image_height)
        if arguments.distillation_weight:
            teacher = Teacher(*case_reader, processor)
    switch = round(arguments.late_from * arguments.max_steps)
    # Behind the convolutions of a CRNN all of vision_text is new, and CTC finds its way from short lines.
    anew = reader is None or (arguments.model_type == "vision_text" and not isinstance(reader, type(model)))
    learner, judge = None, arguments.judge or arguments.teacher
    if judge is not None and isinstance(reader, SMALL_MODELS[arguments.model_type]):
        learner = model.reading_copy(dtype), processor
    elif arguments.judge is not None:
        parser.error("--judge finds what a model to go on from misreads: give --init_from of this --model_type.")
    chunks = training_chunks(
        arguments.data,
        output,
        processor,
        anew,
        case_reader,
        learner,
        judge,
        switch,
        arguments.lines_per_batch,
        arguments.seed,
    )
    validation = validation_sets(arguments.data)

    def validate(average: Any) -> dict[str, Report]:
        copy = average.reading_copy(dtype)
        return {name: evaluate_in_all_processes(copy, processor, rows) for name, rows in validation.items()}

    settings = TrainingConfig(
        output_dir=str(arguments.output_dir),
        max_steps=arguments.max_steps,
        learning_rate=arguments.learning_rate,
        distillation_weight=arguments.distillation_weight,
        mixed_precision="bf16" if torch.cuda.is_available() or cpu_computes_bfloat16() else "no",
        eval_steps=arguments.eval_steps,
        save_steps=arguments.eval_steps,
        metric_for_best_model="cer_ignoring_case",  # the capitals of a label may be another's than the print's
        dataloader_num_workers=arguments.num_workers,
        seed=arguments.seed,
    )
    mixture = {
        "model_type": arguments.model_type,
        "init_from": arguments.init_from.name if arguments.init_from else None,
        **{
            name: getattr(model.config, name, None)
            for name in ("conv_ranks", "conv_channels", "lstm_input_size", "lstm_hidden_size")
        },
        "teacher": arguments.teacher.name if arguments.teacher else None,
        "judge": judge.name if learner else None,
        "first_mix": (EARLY if anew else WORDS)._asdict(),
        "late_mix": LATE._asdict(),
        "hard_cases": (HARD, HARD_TIMES) if learner else None,
        "late_from": round(arguments.late_from, 4),
        "lines_per_batch": arguments.lines_per_batch,
        "image_height_px": model.config.image_height,
        "max_width_px": chunks.first.max_width,
        "hardware": hardware(),
    }
    written = {**asdict(settings), **mixture}
    del written["output_dir"]
    train(model, processor, chunks, settings, validate, teacher)  # refuses to go on with other settings
    (arguments.output_dir / "settings.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
