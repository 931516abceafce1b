"""Reads images of text lines with an exported network: onnxruntime, NumPy and Pillow, nothing else.

    python onnx_reader.py line.png other.jpg       name, tab, text

    from onnx_reader import OnnxReader
    reader = OnnxReader("folder")
    reader.read("line.png").text
    for reading in reader.read_many(paths): ...

`hf-ocr export` copies this file beside `model.onnx`, with the three it imports.
"""

import argparse
import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hf_ocr.export.onnx_language_model import LanguageModel, is_character
from hf_ocr.models.image_loading import ImageSource, as_it_is_now, load_image
from hf_ocr.models.line_preparation import (
    DOUBTFUL,
    DOUBTFUL_IF_TILTED,
    DOUBTFUL_TO_BOTH,
    STRETCHES,
    bucket_width,
    level_line,
    line_pixels,
    pixel_scale,
    scale_pixels,
    stretch_line,
    turned,
)

MODEL = "model.onnx"
LANGUAGE_MODEL = "language_model.npz"  # beside it, of a network that has one
# Entries of the model's metadata: "bucket" for a network that wants images padded to `bucket_width`, and what divides
# the logits where scores are taken (Guo et al. 2017).
PADDING, TEMPERATURE = "padding", "temperature"
SPECIAL_TOKENS = ("pad_token", "unk_token", "bos_token", "eos_token", "sep_token", "cls_token", "mask_token")
AHEAD = 4  # images a thread that are under way before the first is asked for
RESCALED = 64  # frames after which the sums of a lattice are scaled, so that none leaves the range of float64


@dataclass(frozen=True)
class _Lattice:
    """CTC of one text: probabilities of its symbols with blanks between them, as multiples of the frame's best."""

    ratios: np.ndarray  # float64 (T, 2 * characters + 1), at most 1
    symbols: np.ndarray  # int64 (characters,)
    path: float  # log probability of the best path

    @classmethod
    def of(cls, logits: np.ndarray, symbols: np.ndarray) -> "_Lattice":
        """Of float32 (T, V), the largest of each frame 0."""
        states = np.zeros(2 * len(symbols) + 1, dtype=np.int64)
        states[1::2] = symbols
        path = -float(np.log(np.exp(logits).sum(-1)).sum(dtype=np.float64))
        return cls(np.exp(logits[:, states].astype(np.float64)), symbols, path)

    def probability(self) -> float:
        """P(text | image): the sum over all paths of the text (Graves et al. 2006)."""
        states = self.ratios.shape[1]
        skips = np.zeros(states)  # from character to character, where they differ
        skips[3::2] = self.symbols[1:] != self.symbols[:-1]
        sums = np.zeros(states + 2)
        sums[2:4] = self.ratios[0, :2]
        log_scale = self.path
        for frame, ratios in enumerate(self.ratios[1:], start=1):
            arriving = sums[:-2] * skips
            arriving += sums[1:-1]
            arriving += sums[2:]
            np.multiply(arriving, ratios, out=sums[2:])
            if frame % RESCALED == 0:
                largest = sums.max()
                sums /= largest
                log_scale += math.log(largest)
        total = sums[-1] + sums[-2]  # in front of the one state of "" lies a zero
        # In float32, as the pipeline has it: what is too small for that is 0 in both, and then the first reading stays.
        return min(float(np.exp(np.float32(log_scale + math.log(total)))), 1.0) if total else 0.0


@dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
        text: the text, "" for a blank image.
        error: why the image could not be read (only with `on_error="skip"`); the text is then "" and the score 0.
    """

    text: str
    error: str | None = None
    _raw: _Lattice | None = field(default=None, repr=False)  # at temperature 1, by which readings are chosen
    _scored: _Lattice | None = field(default=None, repr=False)  # at the temperature of the model
    _fluency: float = field(default=0.0, repr=False)  # nats that a language model adds
    _power: float = field(default=1.0, repr=False)  # makes of P(text | image) the one that both give it

    @cached_property
    def score(self) -> float:
        """P(text | image) in [0, 1], with a language model as both see it, of "" too; computed when it is asked for."""
        return 0.0 if self._scored is None else self._scored.probability() ** self._power

    @cached_property
    def _quality(self) -> float:
        """The probability a character at temperature 1."""
        return 0.0 if self._raw is None else float(self._raw.probability() ** (1 / max(len(self.text), 1)))

    @property
    def _rank(self) -> float:
        """The logarithm of that, with what a language model adds to it."""
        added = self._fluency / max(len(self.text), 1)
        return math.log(self._quality) + added if self._quality else -math.inf

    def _is_doubtful(self, doubtful: float) -> bool:
        assert self._raw is not None
        if not self._fluency and math.exp(self._raw.path / max(len(self.text), 1)) >= doubtful:
            return False  # the best path, known at once, is of this text, unless a language model chose another
        return self._quality < doubtful


class OnnxReader:
    """Reads as the pipeline of hf_ocr does: same preparation, same language model, same second looks, same text.

    Each image is computed alone, in a thread, without padding: its text cannot depend on others, and on a CPU nothing
    is gained by a batch.

    Args:
        folder: as `hf-ocr export` writes it: model.onnx, preprocessor_config.json, vocab.json, tokenizer_config.json,
            and language_model.npz if the network reads with one.
        threads: images read at the same time, and threads for one image read alone; all cores when None.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: `threads` below 1, or an alphabet that does not fit the network.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        import onnxruntime

        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1.")
        self.threads = threads or _cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that wait for work by spinning take the cores from the images beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(folder, MODEL)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: is not there. Expected a folder that `hf-ocr export` wrote.")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        entries = self._session.get_modelmeta().custom_metadata_map
        self._padded, self._temperature = entries.get(PADDING) == "bucket", float(entries.get(TEMPERATURE, 1))
        settings = _json(folder, "preprocessor_config.json")
        self._height, self._num_channels = settings["height"], settings["num_channels"]
        self._widths = settings["min_width"], settings["max_width"]
        self._narrow, self._resample = settings["narrow"], settings["resample"]
        self._scale = pixel_scale(settings["mean"], settings["std"])
        vocabulary, tokens = _json(folder, "vocab.json"), _json(folder, "tokenizer_config.json")
        for index, token in tokens.get("added_tokens_decoder", {}).items():  # some of the vocabulary, some behind it
            vocabulary[token["content"]] = int(index)
        special = {*(tokens.get(name) for name in SPECIAL_TOKENS), *(tokens.get("extra_special_tokens") or ())}
        self._characters = ["" if symbol in special else symbol for symbol in sorted(vocabulary, key=vocabulary.get)]
        outputs = self._session.get_outputs()[0].shape[-1]
        if isinstance(outputs, int) and outputs != len(self._characters):
            raise ValueError(
                f"{folder}: {len(self._characters)} symbols in vocab.json, {outputs} outputs of the network. Expected "
                "files that belong together: export the checkpoint again."
            )
        self._language_model = None
        self._stretches: tuple[float, ...] = STRETCHES
        self._doubtful = DOUBTFUL
        if Path(folder, LANGUAGE_MODEL).is_file():
            self._language_model = LanguageModel.load(Path(folder, LANGUAGE_MODEL))
            self._stretches, self._doubtful = STRETCHES[-1:], DOUBTFUL_TO_BOTH

    def read(self, image: ImageSource) -> Reading:
        """Read one image: anything `load_image` takes, as a path, URL, bytes, PIL image or array.

        Raises:
            ImageError: (a ValueError) an image that cannot be read or is no text line.
        """
        lines = [self._prepare(turn) for turn in turned(load_image(image)).values()]
        line, best = _best((line, self._recognize(line)) for line in lines)
        if not best.text:  # each further look at stains would be a chance to take them for letters
            return best
        if best._is_doubtful(DOUBTFUL_IF_TILTED) and (level := level_line(line)) is not None:
            line, best = _best([(line, best), (level, self._recognize(level))])
        for stretch in self._stretches:
            if not best._is_doubtful(self._doubtful):
                break
            best = _best([(line, best), (line, self._recognize(stretch_line(line, stretch)))])[1]
        return best

    def read_many(
        self, images: Iterable[ImageSource], on_error: Literal["raise", "skip"] = "raise"
    ) -> Iterator[Reading]:
        """Read images lazily and in order, several at a time.

        Args:
            images: each as for `read`.
            on_error: "raise", or "skip": an image that cannot be read gives a `Reading` with its error.

        Raises:
            ImageError: (a ValueError) with "raise", as `read`.
        """

        def read(image: ImageSource) -> Reading:
            try:
                return self.read(image)
            except (ValueError, MemoryError) as error:
                if on_error == "raise":
                    raise
                return Reading("", str(error) or type(error).__name__)

        waiting: deque[Future[Reading]] = deque()
        with ThreadPoolExecutor(self.threads) as executor:
            for image in images:
                waiting.append(executor.submit(read, as_it_is_now(image)))
                if len(waiting) > AHEAD * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _prepare(self, image: Image.Image) -> np.ndarray:
        """float32 (C, height, W)."""
        pixels = line_pixels(image, self._height, *self._widths, self._num_channels, self._narrow, self._resample)
        return scale_pixels(np.ascontiguousarray(pixels.transpose(2, 0, 1)), self._scale)

    def _recognize(self, line: np.ndarray) -> Reading:
        width = line.shape[-1]
        if self._padded:
            line = np.pad(line, ((0, 0), (0, 0), (0, bucket_width(width) - width)))
        inputs = {"pixel_values": line[None], "widths": np.array([width])}
        logits, lengths = self._session.run(("logits", "logit_lengths"), inputs)
        return self._decode(logits[0, : lengths[0]])

    def _decode(self, logits: np.ndarray) -> Reading:
        """float32 (T, V) -> the text of the best path, repeats collapsed, blanks (0) dropped; where that is doubtful,
        the one that a language model chooses."""
        best = logits.argmax(-1)
        logits = logits - np.take_along_axis(logits, best[:, None], -1)
        symbols, fluency, power = best[is_character(best)], 0.0, 1.0
        raw = _Lattice.of(logits, symbols)
        chooses = self._language_model
        if chooses and len(symbols) and math.exp(raw.path) < chooses.certain and raw.probability() < chooses.certain:
            symbols, fluency, power = chooses.choose(logits, raw.path)
            raw = _Lattice.of(logits, symbols)
        scored = raw
        if self._temperature != 1:
            scored = _Lattice.of(logits / np.float32(self._temperature), symbols)
        text = "".join(self._characters[symbol] for symbol in symbols).strip()
        return Reading(text, None, raw, scored, fluency, power)


def _best(candidates: Iterable[tuple[np.ndarray, Reading]]) -> tuple[np.ndarray, Reading]:
    """The first of the best by rank; one alone needs none."""
    candidates = list(candidates)
    return candidates[0] if len(candidates) == 1 else max(candidates, key=lambda found: found[1]._rank)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _json(folder: str | os.PathLike[str], name: str) -> Any:
    return json.loads(Path(folder, name).read_text(encoding="utf-8"))


def main() -> int:
    """Read the images named on the command line with the network beside this file."""
    parser = argparse.ArgumentParser(description="Reads images of text lines: name, tab, text.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="path or URL")
    parser.add_argument("--threads", type=int, help="default: all cores")
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        # Readings hold letters that not every encoding has, file names bytes that are no text.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        reader = OnnxReader(Path(__file__).parent, options.threads)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    status = 0
    try:
        for name, reading in zip(options.images, reader.read_many(options.images, on_error="skip"), strict=True):
            if reading.error is None:
                sys.stdout.write(f"{name}\t{reading.text}\n")
            else:
                sys.stderr.write(f"{reading.error}\n")
                status = 1
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
