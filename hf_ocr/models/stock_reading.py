"""Reading with models of transformers itself: encoder-decoders that `generate` (TrOCR, Donut), and MGP-STR."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from PIL import Image

from .confidence import ScoreAs, check_score_as
from .generation import generate_texts, generation_settings
from .image_loading import load_image
from .mgp_str_reading import MgpStrTokenizers, read_heads
from .reading import IMAGE_ERRORS, Reading


def stock_readings(
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
    prompt: str | None = None,
    **generate_kwargs: Any,
) -> Iterator[list[Reading]]:
    """Read images, lazily and in order.

    Args:
        model: takes what `image_processor` gives, and has `generate` or is an MGP-STR.
        tokenizer: turns ids into text; for MGP-STR the `MgpStrTokenizers`.
        image_processor: a stock image processor; it gets RGB images.
        images: anything `load` takes; `batch_size` are taken at a time.
        batch_size: images read at once, if their tensors have one shape.
        with_scores: also give a score, else it is 0: P(text | image), the product over the tokens and the end, or as
            `score_as` says.
        load: makes an upright PIL image of each element of `images`.
        on_error: "raise", or "skip": an image that cannot be loaded or prepared gives a `Reading` with its error.
        executor: loads and prepares images; in the calling thread when None.
        score_as: the score from the probabilities of tokens and end, see `aggregate` in `confidence`.
        prompt: of Donut, what the decoder goes on from, its first token the tag of a task, as "<s_cord-v2>"; None for
            the checkpoint's `decoder_start_token_id`.
        generate_kwargs: arguments of `generate`. `max_new_tokens` is 256 where nothing bounds the length, and never
            more than the decoder has positions for.

    Returns:
        For each image its readings, best first: one, or `num_return_sequences`.

    Raises:
        ValueError: `batch_size` below 1; with "raise", what loading or preparing an image raised; arguments that
            `generate` does not take; a first token that the checkpoint does not name, or that its parts do not agree
            about.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected at least 1.")
    check_score_as(score_as)
    read: Callable[[dict[str, torch.Tensor]], list[Reading]]
    if isinstance(tokenizer, MgpStrTokenizers):
        read = partial(read_heads, model, tokenizer, score_as=score_as)
    else:
        settings = generation_settings(model, tokenizer, prompt, with_scores, generate_kwargs)
        read = partial(generate_texts, model, tokenizer, settings=settings, score_as=score_as)

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
            answers = read(
                {
                    name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
                    for name, tensor in inputs.items()
                }
            )
            each = len(answers) // len(group)
            for row, answer in enumerate(answers):
                readings[group[row // each][0]].append(answer)
        yield from readings
