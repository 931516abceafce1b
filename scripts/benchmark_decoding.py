"""Speed of the text decoder beside `VisionEncoderDecoderModel.generate` of transformers with the same layers.

    python scripts/benchmark_decoding.py --threads 2 --batch_size 32

    python scripts/benchmark_decoding.py --model FOLDER --data LINES.parquet

Both have the same encoder, and decoders of equal layers, heads and widths: ours with its CTC head, searched as
`recognize` does, and transformers' TrOCR decoder, read by `generate` with its cache. Ours by steps, looking ahead
along what CTC says, and, as `recognize` does with one beam, ahead where CTC is not certain. The best of the rounds, in
which they take turns; "decoder alone" is what is left without the time of the encoder, which both have.

Without a model weights are random, images are of two sizes, and no text may end before its length, so that all take the
same steps. What CTC says is then never right or certain: "ahead" is the one look along a draft that is right. With a
model of this family and lines, a parquet file with a column `image` (bytes, path), ours reads them, and stops where it
does; `generate`, untrained, takes as many steps as the longest text of a batch that ours has read and its end. Lines of
like width are then together in the batches of both, as ours puts them, which transformers does not: "in order" is what
`generate` does with batches in the order of the file. "side by side" is ours with several of the same
batches at once, which share the threads, as in the pipeline. Counted: the texts of which CTC is certain, and how many
of them the decoder would have changed.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    TrOCRConfig,
    TrOCRForCausalLM,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.utils import logging

try:
    import pyarrow.parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[bench]"') from error

from hf_ocr import LATIN_ALPHABET, VisionTextConfig, VisionTextForTextRecognition
from hf_ocr.models.beam_search import beam_search
from hf_ocr.models.ctc import greedy_search
from hf_ocr.models.ctc_reading import CERTAIN
from hf_ocr.models.reading_threads import ReadingThreads
from hf_ocr.models.vision_text_search import DecoderSteps, search_texts
from hf_ocr.record import hardware, versions

SHAPES = {"words": (128, 8), "lines": (480, 40)}  # px at the model's height, characters


def stock_model(ours: VisionTextForTextRecognition) -> VisionEncoderDecoderModel:
    """The same encoder, and a decoder of transformers of the same size."""
    config = ours.config
    decoder = TrOCRConfig(
        vocab_size=config.vocab_size,
        d_model=config.hidden_size,
        decoder_layers=config.decoder_layers,
        decoder_attention_heads=config.num_attention_heads,
        decoder_ffn_dim=config.intermediate_size,
        cross_attention_hidden_size=config.hidden_size,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    both = VisionEncoderDecoderConfig.from_encoder_decoder_configs(config, decoder)
    model = VisionEncoderDecoderModel(config=both, encoder=ours.vision_text, decoder=TrOCRForCausalLM(decoder))
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, 2
    return model


class Batch(NamedTuple):
    """Images to be read, and the longest text: `length` characters and an end."""

    inputs: dict[str, torch.Tensor]
    length: int


def random_batches(config: VisionTextConfig, size: int, dtype: torch.dtype) -> dict[str, list[Batch]]:
    found = {}
    for name, (width, length) in SHAPES.items():
        images = torch.rand(size, config.num_channels, config.image_height, width, dtype=dtype) * 2 - 1
        found[name] = [Batch({"pixel_values": images}, length)]
    return found


def line_batches(
    model: VisionTextForTextRecognition, folder: str, data: str, count: int, size: int, num_beams: int, in_order: bool
) -> dict[str, list[Batch]]:
    """The first lines of a file, in its order, or those of like widths together."""
    processor = AutoProcessor.from_pretrained(folder)
    encoded = pyarrow.parquet.read_table(data, columns=["image"]).slice(0, count).to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in encoded]
    if not in_order:
        images.sort(key=lambda image: image.width / image.height)
    found = []
    for start in range(0, len(images), size):
        inputs = dict(processor(images=images[start : start + size], return_tensors="pt"))
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        looks: list[int] = []
        hook = model.decoder.register_forward_hook(lambda module, given, output, looks=looks: looks.append(1))
        read = model.recognize(**inputs, num_beams=num_beams, with_characters=False)
        hook.remove()
        length = read.sequences.shape[1]
        if not in_order:
            print(f"batch of {len(read.sequences)}: longest text {length}, {len(looks)} looks of the decoder")
        found.append(Batch(inputs, length))
    return {Path(data).parent.name or Path(data).stem: found}


def read(model: VisionTextForTextRecognition, batch: Batch, num_beams: int, way: str) -> Any:
    """By steps, ahead, and ahead where CTC doubts, as `recognize`; or along a draft that is what the decoder says."""
    if way == "doubtful":
        return model.recognize(**batch.inputs, num_beams=num_beams, with_characters=False)
    output = model(**batch.inputs)
    start = model.start(output.encoder_last_hidden_state, output.logits, output.logit_lengths)
    lengths = output.logit_lengths.clamp(max=batch.length)
    if way == "right":
        return start().along(torch.ones(len(lengths), batch.length, dtype=torch.int64))[0].max(-1)
    if way == "ahead":
        return search_texts(start, output.logit_lengths, num_beams, None).sequences
    return beam_search(DecoderSteps(start(texts=num_beams), num_beams), lengths, num_beams)


def certain_texts(model: VisionTextForTextRecognition, batches: list[Batch]) -> dict[str, int]:
    """Texts, those that CTC is certain of, and those of them that a decoder, asked all the same, would change."""
    counts = {"texts": 0, "certain": 0, "changed": 0}
    for batch in batches:
        output = model(**batch.inputs)
        found = greedy_search(output.logits, output.logit_lengths, with_characters=False)
        asked = read(model, batch, 1, "ahead")
        for sure, ctc, decoder in zip(found.scores >= CERTAIN, found.sequences, asked, strict=True):
            counts["texts"] += 1
            counts["certain"] += int(sure)
            counts["changed"] += bool(sure) and ctc[ctc != 0].tolist() != decoder[decoder != 0].tolist()
    return counts


def generate(stock: VisionEncoderDecoderModel, batch: Batch, num_beams: int) -> object:
    steps = batch.length + 1
    return stock.generate(
        pixel_values=batch.inputs["pixel_values"], max_new_tokens=steps, min_new_tokens=steps, num_beams=num_beams
    )


def best_seconds(calls: dict[str, Callable[[Batch], object]], batches: list[Batch], rounds: int) -> dict[str, float]:
    """Of each call, the sum over the batches of the best of the rounds."""
    found = dict.fromkeys(calls, 0.0)
    for batch in batches:
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds + 1):  # the first warms up
            for name, call in calls.items():
                start = time.perf_counter()
                call(batch)
                seconds[name].append(time.perf_counter() - start)
        for name in calls:
            found[name] += min(seconds[name][1:])
    return found


def best_seconds_side_by_side(
    calls: dict[str, Callable[[Batch], object]], batches: list[Batch], rounds: int
) -> dict[str, float]:
    """Of each call, the best of the rounds over all batches, several at once."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with ReadingThreads(torch.device("cpu")) as readers:
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                read = torch.inference_mode()(call)
                if readers.start():
                    for future in [readers.submit(read, batch) for batch in reversed(batches)]:  # the longest first
                        future.result()
                else:
                    for batch in batches:
                        read(batch)
                seconds[name].append(time.perf_counter() - start)
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a trained model; with --data")
    parser.add_argument("--data", help="parquet file of lines; with --model")
    parser.add_argument("--images", type=int, default=256, help="of --data")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=hardware()["cores"], help="default: all cores")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--record", type=Path, help="JSON file to which the figures are added")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.data is None):
        parser.error("--model and --data go together")
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    torch.manual_seed(0)
    dtype, size, beams = getattr(torch, arguments.dtype), arguments.batch_size, arguments.num_beams
    if arguments.model:
        ours = VisionTextForTextRecognition.from_pretrained(arguments.model).reading_copy(dtype)
        given = ours, arguments.model, arguments.data, arguments.images, size, beams
        sets = line_batches(*given, in_order=False)
    else:
        config = VisionTextConfig.small(vocab_size=len(LATIN_ALPHABET) + 1)
        ours = VisionTextForTextRecognition(config).reading_copy(dtype)
        torch.nn.init.constant_(ours.decoder.classifier.bias[:1], -1e4)  # no text ends by itself
        sets = random_batches(config, size, dtype)
    stock = stock_model(ours).eval().to(dtype)
    calls = {
        "generate": partial(generate, stock, num_beams=beams),
        "steps": partial(read, ours, num_beams=beams, way="steps"),
        "ahead": partial(read, ours, num_beams=beams, way="ahead" if arguments.model else "right"),
        "encoder": lambda batch: ours.vision_text(**batch.inputs),
    }
    if arguments.model:
        calls["doubtful"] = partial(read, ours, num_beams=beams, way="doubtful")
    ways = [way for way in calls if way != "encoder"]
    rows: list[dict[str, Any]] = []
    print(f"{hardware()['cpu']}, {arguments.threads} threads, {arguments.dtype}, {versions()}")
    print(f"{'':24} {'generate':>9}" + "".join(f" {way:>18}" for way in ways[1:]))
    for name, batches in sets.items():
        with torch.inference_mode():
            seconds = best_seconds(calls, batches, arguments.rounds)
            if arguments.model:
                rows.append({"set": name, **certain_texts(ours, batches)})
                print(rows[-1])
        count = sum(len(batch.inputs["pixel_values"]) for batch in batches)
        for what, less in (("whole, images/s", 0.0), ("decoder alone", seconds["encoder"])):
            rates = {way: count / (seconds[way] - less) for way in ways}
            rows.append({"set": name, "what": what, **{way: round(rate, 1) for way, rate in rates.items()}})
            shown = [f"{rates[way]:9.1f} ({rates[way] / rates['generate']:5.2f}x)" for way in ways[1:]]
            print(f"{name:6} {what:17} {rates['generate']:9.1f} {' '.join(shown)}", flush=True)
    if arguments.model:
        together = best_seconds_side_by_side(
            {way: calls[way] for way in ("doubtful", "encoder")}, batches, arguments.rounds
        )
        for what, less in (("whole, images/s", 0.0), ("decoder alone", together["encoder"])):
            rows.append({"set": name, "what": what, "side by side": round(count / (together["doubtful"] - less), 1)})
            print(rows[-1])
        [(name, batches)] = line_batches(*given, in_order=True).items()
        with torch.inference_mode():
            seconds = best_seconds({"generate": calls["generate"]}, batches, arguments.rounds)
        rows.append(
            {"set": name, "what": "whole, images/s", "generate, in order": round(count / seconds["generate"], 1)}
        )
        print(rows[-1])
    if arguments.record:
        known = json.loads(arguments.record.read_text(encoding="utf-8")) if arguments.record.exists() else []
        settings = {
            name: getattr(arguments, name) for name in ("threads", "dtype", "batch_size", "num_beams", "rounds")
        }
        settings["model"] = Path(arguments.model).name if arguments.model else None
        known.append({"settings": settings, "figures": rows, "hardware": hardware(), "versions": versions()})
        arguments.record.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
