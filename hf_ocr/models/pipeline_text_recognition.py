"""The pipeline: images of text lines or words in, `[{"generated_text": str}]` out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from inspect import signature
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.pipelines.base import Pipeline

from .confidence import ScoreAs, check_score_as
from .generation import takes_prompt
from .image_loading import ImageError, load_image
from .mgp_str_reading import MGP_STR, MgpStrTokenizers, check_heads
from .pipeline_inputs import Broken, images_of
from .processing_text_recognition import TextRecognitionProcessor
from .reading import Character, Reading, iterate_readings, words_of
from .reading_threads import ReadingThreads
from .stock_reading import stock_readings

# Images read at once when the caller names no number. A model that only generates reads one at a time, as the
# pipeline always did: a batch of a large decoder may not fit the memory.
BATCH_SIZE = 64


class TextRecognitionPipeline(Pipeline):
    """Reads images of text lines or words, with the interface that `image-to-text` had in transformers 4.

    Works with every recognizer that has `recognize(pixel_values, widths, ...)`, with encoder-decoders that only
    `generate` (TrOCR, Donut and other `VisionEncoderDecoderModel`s), and with MGP-STR.

    ```python
    read = pipeline("text-recognition", model="folder")
    read("line.png")                          # [{"generated_text": "TOTAL 12.50"}]
    read(["a.png", "b.png"], batch_size=64)   # [[{"generated_text": ...}], [{"generated_text": ...}]]
    read("line.png", return_scores=True, return_boxes="word")
    ```

    An image is a path, a URL, a data URI, base64 text, bytes, a PIL image, an array, or a row `{"image": ...}`. A list
    or tuple gives a list; a generator, a `KeyDataset` or another dataset gives a lazy iterator; either has one list of
    dictionaries an image. Images are batched by width inside (windows of 16 batches; `batch_size=1` takes one at a
    time), the order is kept, and the text of an image does not depend on the others.

    Keyword arguments, here or in a call:
        batch_size (int): images read at once; 64, or 1 for a model that only generates.
        num_workers (int): threads that load and prepare images; 0 does so in the calling thread.
        max_new_tokens (int): longest text, in tokens. For a recognizer and MGP-STR in characters: what is longer is
            cut, and its score stays that of the whole.
        generate_kwargs (dict): arguments of `generate`; for a recognizer of its `recognize`, as `num_beams`.
        prompt (str): for Donut alone: the tag of its task, as "<s_cord-v2>", and what else the decoder goes on from;
            without one it starts from the checkpoint's `decoder_start_token_id`. The text is what follows, tags left
            out.
        timeout (float): seconds to wait for a URL.
        return_scores (bool): adds "score", the probability of the text given the image, in [0, 1].
        score_as (str): the scores of texts and words from the probabilities of their characters (for a model that only
            generates, of tokens and end), each given the image and what stands before: "product" (the default, the
            probability of the text), "geometric_mean", "mean" or "min". "" always has its probability.
        min_score (float): rejects what has a lower score, in [0, 1]: `{"generated_text": None, "score": ...}`, no
            characters and no words. Adds "score" to all. None is no blank image: that reads as "".
        return_boxes ("char" or "word"): adds "characters" or "words": `{"text", "score", "box"}` each, the box
            (left, top, right, bottom) in px of the given image (turned upright where its EXIF data says so).
        on_error ("raise" or "skip"): with "skip" an image that cannot be read gives
            `[{"generated_text": None, "error": str}]` in its place, and the others are read.

    On a CPU a recognizer is read through a prepared copy: in bfloat16 where the CPU computes in it and no `dtype` was
    given, else in float32. `model` itself stays as it was passed. Of several images up to four batches are read at
    once, which share torch's threads (`torch.set_num_threads(1)`: one after the other, in less memory).

    Raises:
        ValueError: a model that cannot read, missing parts, unknown values of the arguments above; a `prompt` for
            a model that takes none; a start of the text that the parts of a checkpoint do not agree about; an image
            that cannot be read.
        TypeError: an unknown keyword argument.
    """

    tokenizer: Any
    image_processor: Any
    processor: Any

    # None: what is missing is reported here, with its cause. False also keeps transformers from asking on stdin
    # whether to trust the code of a folder whose classes are registered.
    _load_tokenizer = None
    _load_image_processor = None
    _load_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self._requested_dtype = _as_dtype(kwargs.get("dtype", kwargs.get("torch_dtype")))
        self._copy: Any = None
        self._copied_state: Any = None
        self._recognizes = hasattr(model, "recognize")
        self._generates = not self._recognizes and model.config.model_type != MGP_STR
        if not self._recognizes and model.config.model_type.startswith("pp_ocr"):
            raise ValueError(
                f"{type(model).__name__} cannot read text as it is: transformers' own PP-OCR recognizers have no "
                "alphabet, and their text depends on the batch. `hf-ocr convert rapidocr FOLDER` writes PP-OCRv6 small "
                "as a checkpoint that reads here and can be trained."
            )
        if self._generates and not model.can_generate():
            raise ValueError(
                f"{type(model).__name__} cannot read text: expected a model with `recognize` or with `generate`. "
                "Load the checkpoint with AutoModelForTextRecognition or AutoModelForImageTextToText."
            )
        super().__init__(model, *args, **kwargs)
        if self.tokenizer is None:
            self.tokenizer = self._required_part(AutoTokenizer, "tokenizer")
        if self.image_processor is None:
            self.image_processor = self._required_part(AutoImageProcessor, "image_processor")
        self._stock_tokenizer = self.tokenizer
        if model.config.model_type == MGP_STR:
            self._stock_tokenizer = MgpStrTokenizers.of(self if self.processor is None else self.processor)
            check_heads(model, self._stock_tokenizer)
        if self._recognizes:
            if self.processor is None:
                self.processor = TextRecognitionProcessor(self.image_processor, self.tokenizer)
            symbols, outputs = len(self.tokenizer), self.model.config.vocab_size
            if symbols != outputs:
                raise ValueError(
                    f"the alphabet does not fit the model: {symbols} symbols in {self.tokenizer.name_or_path or 'the'} "
                    f"tokenizer, {outputs} outputs in the head. Take both from the same checkpoint."
                )

    def _required_part(self, auto_class: Any, name: str) -> Any:
        part = getattr(self.processor, name, None)
        if part is not None:
            return part
        folder = self.model.name_or_path
        if not folder:
            raise ValueError(
                f"the pipeline has no {name}: the model was passed as an object. Pass `{name}=` or `processor=` too, "
                "or the checkpoint's folder as `model=`."
            )
        # transformers drops the error when an optional part fails to load: do it once more, to show it.
        return auto_class.from_pretrained(folder, trust_remote_code=__name__.startswith("transformers_modules."))

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, tokenizer, image processor and processor as one folder that `pipeline` reads."""
        super().save_pretrained(save_directory, **kwargs)
        if isinstance(self.processor, TextRecognitionProcessor):
            self.processor.register_for_auto_class()  # without the package nobody else has said that its code travels
        if self.processor is not None:
            self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        max_new_tokens: int | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        prompt: str | None = None,
        timeout: float | None = None,
        return_scores: bool | None = None,
        return_boxes: str | None = None,
        on_error: str | None = None,
        score_as: ScoreAs | None = None,
        min_score: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if prompt is not None and not takes_prompt(self.model):
            raise ValueError(
                f"Model type {self.model.config.model_type} does not support conditional text generation: leave "
                '`prompt` out. Models that take one are read by the "image-text-to-text" pipeline.'
            )
        if generate_kwargs is not None and not isinstance(generate_kwargs, Mapping):
            raise ValueError(f"generate_kwargs is {generate_kwargs!r}, expected a dict of arguments, or None.")
        generate_kwargs = dict(generate_kwargs or {})
        if max_new_tokens is not None:
            if "max_new_tokens" in generate_kwargs:
                raise ValueError(
                    "`max_new_tokens` is defined both as an argument and inside `generate_kwargs`, please use only 1 "
                    "version"
                )
            generate_kwargs["max_new_tokens"] = max_new_tokens
        longest = generate_kwargs.get("max_new_tokens")
        if longest is not None and not (isinstance(longest, Integral) and int(longest) >= 1):
            raise ValueError(f"max_new_tokens is {longest!r}, expected a whole number of at least 1, or None.")
        if timeout is not None and not (isinstance(timeout, Real) and timeout == timeout):
            raise ValueError(f"timeout is {timeout!r}, expected seconds.")
        if prompt is not None:
            generate_kwargs["prompt"] = prompt
        if not self._generates:
            known = {"max_new_tokens"}
            if self._recognizes:
                known |= signature(self.model.recognize).parameters.keys()
            known -= {"pixel_values", "widths", "with_characters", "kwargs"}
            if unknown := sorted(generate_kwargs.keys() - known):
                raise ValueError(
                    f"{type(self.model).__name__} has no generation argument {', '.join(unknown)}; expected some of "
                    f"{', '.join(sorted(known))}."
                )
        if return_boxes not in (None, "char", "word"):
            raise ValueError(f'return_boxes is {return_boxes!r}, expected "char", "word" or None.')
        if return_boxes is not None and not self._recognizes:
            raise ValueError(
                f"{type(self.model).__name__} cannot tell where its characters stand: leave `return_boxes` out, or "
                "read with a recognizer that gives positions, as CRNN does."
            )
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f'on_error is {on_error!r}, expected "raise" or "skip".')
        if score_as is not None:
            check_score_as(score_as)
        if min_score is not None and not (isinstance(min_score, Real) and 0 <= min_score <= 1):
            raise ValueError(f"min_score is {min_score!r}, expected 0 (nothing is rejected) to 1, or None.")
        given = {"timeout": timeout, "on_error": on_error}
        shown = {
            "return_scores": return_scores,
            "return_boxes": return_boxes,
            "score_as": score_as,
            "min_score": min_score,
        }
        return (
            {name: value for name, value in given.items() if value is not None},
            generate_kwargs,
            {name: value for name, value in shown.items() if value is not None},
        )

    def __call__(
        self,
        inputs: Any = None,
        images: Any = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Read one image, or many; `images` is another name for `inputs`. See the class for everything else."""
        if inputs is not None and images is not None:
            raise ValueError("`inputs` and `images` are two names for one argument: give one of them.")
        if inputs is None:
            inputs = images
        if inputs is None:
            raise ValueError(f"Cannot call the {self.task or 'text-recognition'} pipeline without an inputs argument!")
        preprocess_params, forward_params, postprocess_params = self._sanitize_parameters(**kwargs)
        preprocess_params = {**self._preprocess_params, **preprocess_params}
        forward_params = {**self._forward_params, **forward_params}
        postprocess_params = {**self._postprocess_params, **postprocess_params}
        batch_size = self._batch_size if batch_size is None else batch_size
        if batch_size is None:
            batch_size = 1 if self._generates else BATCH_SIZE
        num_workers = (self._num_workers or 0) if num_workers is None else num_workers
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers is {num_workers!r}, expected the number of threads, or 0.")

        def results(sources: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
            with (
                ThreadPoolExecutor(num_workers) if num_workers else nullcontext() as executor,
                ReadingThreads(self.device) as readers,
            ):
                for readings in self._forward(
                    sources,
                    batch_size=batch_size,
                    executor=executor,
                    readers=readers,
                    preprocess_params=preprocess_params,
                    postprocess_params=postprocess_params,
                    **forward_params,
                ):
                    yield self.postprocess(readings, **postprocess_params)

        sources = images_of(inputs)
        if sources is None:
            return next(results([inputs]))
        return list(results(sources)) if isinstance(inputs, Sequence) else results(sources)

    def preprocess(self, input_: Any, timeout: float | None = None, **_: Any) -> Any:
        """Load one image (PIL) from whatever names it."""
        if isinstance(input_, Broken):
            raise ImageError(
                f"{input_.name}: cannot be had ({type(input_.error).__name__}: {input_.error}). Expected an image; "
                "mend the row, or leave it out."
            ) from input_.error
        if isinstance(input_, dict):
            if "image" in input_:
                return self.preprocess(input_["image"], timeout)
            if not {"bytes", "path"} & input_.keys():
                raise ImageError(
                    f"row with {', '.join(map(repr, input_)) or 'nothing'}: has no image. Expected the key 'image'; "
                    "rename the column, or pass the image alone."
                )
            # an image of `datasets` that was not decoded
            input_ = input_["bytes"] if input_.get("bytes") is not None else input_.get("path")
        return load_image(input_, timeout=timeout)

    def _forward(
        self,
        sources: Iterable[Any],
        batch_size: int,
        executor: Any,
        readers: Any,
        preprocess_params: dict[str, Any],
        postprocess_params: dict[str, Any],
        **generate_kwargs: Any,
    ) -> Iterator[list[Reading]]:
        """Lazily, one list of readings an image."""

        def load(source: Any) -> Any:
            return self.preprocess(source, **preprocess_params)

        on_error = preprocess_params.get("on_error", "raise")
        score_as = postprocess_params.get("score_as", "product")
        longest = None if self._generates else generate_kwargs.pop("max_new_tokens", None)
        if not self._recognizes:
            for readings in stock_readings(
                self.model,
                self._stock_tokenizer,
                self.image_processor,
                sources,
                batch_size=batch_size,
                with_scores=postprocess_params.get("return_scores", False) or "min_score" in postprocess_params,
                load=load,
                on_error=on_error,
                executor=executor,
                score_as=score_as,
                **generate_kwargs,
            ):
                yield [Reading(item.text[:longest], item.score, error=item.error) for item in readings]
            return
        for reading in iterate_readings(
            self._reading_model(),
            self.processor,
            sources,
            batch_size=batch_size,
            with_characters="return_boxes" in postprocess_params,
            load=load,
            on_error=on_error,
            executor=executor,
            score_as=score_as,
            readers=readers,
            **generate_kwargs,
        ):
            text = reading.text[:longest].rstrip()
            characters = None if reading.characters is None else reading.characters[: len(text)]
            yield [Reading(text, reading.score, characters, reading.error)]

    def postprocess(
        self,
        readings: list[Reading],
        return_scores: bool = False,
        return_boxes: str | None = None,
        score_as: ScoreAs = "product",
        min_score: float | None = None,
    ) -> list[dict[str, Any]]:
        """The readings of one image as dictionaries of plain strings, numbers and lists."""
        results = []
        for reading in readings:
            if reading.error is not None:
                results.append({"generated_text": None, "error": reading.error})
                continue
            rejected = min_score is not None and reading.score < min_score
            characters = [] if rejected else reading.characters or []
            result: dict[str, Any] = {"generated_text": None if rejected else reading.text}
            if return_scores or min_score is not None:
                result["score"] = reading.score
            if return_boxes == "char":
                result["characters"] = [_as_dictionary(character) for character in characters]
            elif return_boxes == "word":
                result["words"] = [_as_dictionary(word) for word in words_of(characters, score_as)]
            results.append(result)
        return results

    def _reading_model(self) -> Any:
        """The model that reads: on a CPU a prepared copy, made again when the weights have changed.

        What is written through `.data`, which torch does not count, is not seen.
        """
        if self.device.type != "cpu" or not hasattr(self.model, "reading_copy"):
            return self.model
        tensors = chain(self.model.parameters(), self.model.buffers())
        state = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        if self._copy is None or state != self._copied_state:
            self._copy, self._copied_state = self.model.reading_copy(self._reading_dtype()), state
            self._copy.config = self.model.config  # a temperature set later counts too
        return self._copy

    def _reading_dtype(self) -> torch.dtype:
        if self._requested_dtype is not None:
            return self._requested_dtype
        if self.model.dtype != torch.float32:
            return self.model.dtype
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32


def _as_dtype(dtype: Any) -> torch.dtype | None:
    """What transformers takes as `dtype`: one of torch, its name, or "auto" and None where none is asked for."""
    if dtype is None or dtype == "auto":
        return None
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype):
        raise ValueError(f'dtype is {dtype!r}, expected a torch.dtype, its name as "float32", or "auto".')
    return named


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AVX512-BF16 or AMX); without, float32 is faster."""
    return any(
        getattr(torch.cpu, check, lambda: False)() for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def _as_dictionary(character: Character) -> dict[str, Any]:
    return {"text": character.text, "score": character.score, "box": list(character.box)}
