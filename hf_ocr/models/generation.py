"""Reading with encoder-decoders of transformers that only `generate`: TrOCR, Donut and others of their kind."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Any, Literal

import torch
from PIL import Image

from .confidence import ScoreAs, aggregate, check_score_as
from .image_loading import load_image
from .reading import IMAGE_ERRORS, Reading

MAX_NEW_TOKENS = 256  # where neither the caller nor the checkpoint bounds the length


def generate_readings(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    images: Iterable[Any],
    batch_size: int = 1,
    with_scores: bool = False,
    load: Callable[[Any], Image.Image] = load_image,
    on_error: Literal["raise", "skip"] = "raise",
    executor: Executor | None = None,
    score_as: ScoreAs = "product",
    **generate_kwargs: Any,
) -> Iterator[list[Reading]]:
    """Read images, lazily and in order.

    Args:
        model: has `generate`, and takes what `image_processor` gives.
        tokenizer: turns ids into text.
        image_processor: a stock image processor; it gets RGB images.
        images: anything `load` takes; `batch_size` are taken at a time.
        batch_size: images read at once, if their tensors have one shape.
        with_scores: also give a score, else it is 0: P(text | image), the product over the tokens and the end, or as
            `score_as` says.
        load: makes an upright PIL image of each element of `images`.
        on_error: "raise", or "skip": an image that cannot be loaded or prepared gives a `Reading` with its error.
        executor: loads and prepares images; in the calling thread when None.
        score_as: the score from the probabilities of tokens and end, see `aggregate` in `confidence`.
        generate_kwargs: arguments of `generate`. `max_new_tokens` is 256 where nothing bounds the length, and never
            more than the decoder has positions for.

    Returns:
        For each image its readings, best first: one, or `num_return_sequences`.

    Raises:
        ValueError: with "raise", what loading or preparing an image raised; arguments that `generate` does not take.
    """
    check_score_as(score_as)
    settings = _generation_settings(model, tokenizer, generate_kwargs)
    if with_scores:
        settings.update(return_dict_in_generate=True, output_scores=True)

    def prepare(source: Any) -> dict[str, torch.Tensor] | Reading:
        try:
            return dict(image_processor(images=load(source).convert("RGB"), return_tensors="pt"))
        except IMAGE_ERRORS as error:
            if on_error == "raise":
                raise
            return Reading("", 0.0, error=str(error) or type(error).__name__)

    remaining = iter(images)
    while window := list(islice(remaining, batch_size)):
        prepared = list((map if executor is None else executor.map)(prepare, window))
        readings: list[list[Reading]] = [[item] if isinstance(item, Reading) else [] for item in prepared]
        # Only images of one size are read together, so that none is padded on account of another.
        groups: dict[Any, list[tuple[int, dict[str, torch.Tensor]]]] = defaultdict(list)
        for place, item in enumerate(prepared):
            if not isinstance(item, Reading):
                groups[tuple((name, tensor.shape) for name, tensor in item.items())].append((place, item))
        for shapes, group in groups.items():
            inputs = {name: torch.cat([item[name] for _, item in group]) for name, _ in shapes}
            answers = _generate(model, tokenizer, inputs, settings, score_as)
            each = len(answers) // len(group)
            for row, answer in enumerate(answers):
                readings[group[row // each][0]].append(answer)
        yield from readings


def _generate(
    model: Any, tokenizer: Any, inputs: dict[str, torch.Tensor], settings: dict[str, Any], score_as: ScoreAs
) -> list[Reading]:
    inputs = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
    output = model.generate(**inputs, **settings)
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    texts = tokenizer.batch_decode(sequences, skip_special_tokens=True)
    if output is sequences:
        return [Reading(text, 0.0) for text in texts]
    steps = _step_probabilities(model, output, settings)
    return [Reading(text, aggregate(row, score_as)) for text, row in zip(texts, steps, strict=True)]


def _step_probabilities(model: Any, output: Any, settings: dict[str, Any]) -> list[list[float]]:
    """P(token | image, the tokens before) of each row, its end included and what is padded behind it left out."""
    steps = model.compute_transition_scores(
        output.sequences, output.scores, getattr(output, "beam_indices", None), normalize_logits=True
    )
    tokens = output.sequences[:, -steps.shape[1] :]
    end = settings.get("eos_token_id", model.generation_config.eos_token_id)
    ends = torch.isin(tokens, torch.as_tensor([] if end is None else end).to(tokens))
    behind_the_end = (ends.cumsum(-1) - ends.long()) > 0
    probabilities = steps.double().exp()
    return [row[~behind].tolist() for row, behind in zip(probabilities, behind_the_end, strict=True)]


def _generation_settings(model: Any, tokenizer: Any, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The caller's arguments, with a bound on the length and the tokenizer's padding where nothing sets them."""
    settings = dict(generate_kwargs)
    generation_config = settings.get("generation_config", model.generation_config)
    known = {**generation_config.to_diff_dict(), **settings}
    if known.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
        settings["pad_token_id"] = tokenizer.pad_token_id
    if known.get("max_new_tokens") is None and known.get("max_length") is None:
        settings["max_new_tokens"] = MAX_NEW_TOKENS
    # Some decoders have no position behind their last: without the cap a line that does not end is an IndexError.
    positions = getattr(getattr(model.config, "decoder", None), "max_position_embeddings", None)
    if positions is not None and settings.get("max_new_tokens") is not None:
        settings["max_new_tokens"] = min(settings["max_new_tokens"], positions - 2)
    return settings
