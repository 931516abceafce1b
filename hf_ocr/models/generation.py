"""Reading with encoder-decoders of transformers that only `generate`: TrOCR, Donut and others of their kind."""

import re
from typing import Any

import torch

from .confidence import ScoreAs, aggregate
from .reading import Reading

MAX_NEW_TOKENS = 256  # where neither the caller nor the checkpoint bounds the length
TAG = re.compile(r"</?s_[^>]*>|<sep/>")  # Donut's (Kim et al., arXiv:2111.15664): of a task, a field, between two items


def generate_texts(
    model: Any, tokenizer: Any, inputs: dict[str, torch.Tensor], settings: dict[str, Any], score_as: ScoreAs
) -> list[Reading]:
    """For each image its readings, best first: one, or `num_return_sequences`.

    The score is that of the tokens and the end, or 0 where `settings` do not ask for scores.
    """
    given = settings.get("decoder_input_ids")
    if given is not None and len(given) == 1:  # one prompt for all images
        settings = {**settings, "decoder_input_ids": given.to(model.device).expand(len(inputs["pixel_values"]), -1)}
    output = model.generate(**inputs, **settings)
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    texts = _texts(tokenizer, sequences[:, 0 if given is None else given.shape[1] :])
    if output is sequences:
        return [Reading(text, 0.0) for text in texts]
    steps = _step_probabilities(model, output, settings)
    return [Reading(text, aggregate(row, score_as)) for text, row in zip(texts, steps, strict=True)]


def _texts(tokenizer: Any, sequences: torch.Tensor) -> list[str]:
    """The texts without special tokens; between Donut's tags is one space, as between the leaves of `token2json`."""
    tags = set(_tags(tokenizer).values())
    if not tags:
        return list(tokenizer.batch_decode(sequences, skip_special_tokens=True))
    texts = []
    for row in sequences.tolist():
        pieces: list[list[int]] = [[]]
        for token in row:
            if token in tags:
                pieces.append([])
            else:
                pieces[-1].append(token)
        leaves = (text.strip() for text in tokenizer.batch_decode(pieces, skip_special_tokens=True))
        texts.append(" ".join(leaf for leaf in leaves if leaf))
    return texts


def _tags(tokenizer: Any) -> dict[str, int]:
    return {token: index for token, index in tokenizer.get_added_vocab().items() if TAG.fullmatch(token)}


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


def generation_settings(
    model: Any, tokenizer: Any, prompt: str | None, with_scores: bool, generate_kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The caller's arguments, with a start, a bound on the length and padding where nothing sets them.

    Raises:
        ValueError: a start that the checkpoint does not name, or that its parts do not agree about; a prompt that is
            unknown, or too long.
    """
    settings = dict(generate_kwargs)
    if with_scores:
        settings.update(return_dict_in_generate=True, output_scores=True)
    if prompt is not None:
        settings["decoder_input_ids"] = _prompt_ids(tokenizer, prompt)
    elif not settings.keys() & {"decoder_input_ids", "decoder_start_token_id", "generation_config"}:
        if start_token(model, tokenizer) is None and takes_prompt(model):
            raise ValueError(
                "the checkpoint does not say with which task its decoder starts, and Donut reads nothing without one. "
                f"{_cure(tokenizer)}, or set decoder_start_token_id in its config and generation_config."
            )
    generation_config = settings.get("generation_config", model.generation_config)
    known = {**generation_config.to_diff_dict(), **settings}
    if known.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
        settings["pad_token_id"] = tokenizer.pad_token_id
    if known.get("max_new_tokens") is None and known.get("max_length") is None:
        known["max_new_tokens"] = settings["max_new_tokens"] = MAX_NEW_TOKENS
    # Some decoders have no position behind their last: without the cap a line that does not end is an IndexError.
    positions = getattr(getattr(model.config, "decoder", None), "max_position_embeddings", None)
    if positions is not None:
        given = settings["decoder_input_ids"].shape[1] if "decoder_input_ids" in settings else 1
        if given > positions - 2:
            raise ValueError(
                f"the prompt has {given} tokens, expected at most {positions - 2}: the decoder has {positions} "
                "positions, for the prompt and what is read. Shorten it."
            )
        # `generate` looks at the second only where the first is not set.
        name = "max_length" if known.get("max_new_tokens") is None else "max_new_tokens"
        settings[name] = min(known[name], positions - 1 - (given if name == "max_new_tokens" else 0))
    return settings


def takes_prompt(model: Any) -> bool:
    """Whether this is a Donut, whose decoder goes on from the tag of a task; `generate` puts no start before it."""
    return "donut" in getattr(getattr(model.config, "encoder", None), "model_type", "")


def start_token(model: Any, tokenizer: Any) -> int | None:
    """The id from which the decoder of an encoder-decoder starts; None where the checkpoint names none.

    transformers takes any id without a word, and the text is then rubbish from its first token on.

    Raises:
        ValueError: config and generation_config differ, or the id is an ordinary symbol of the tokenizer, or none.
    """
    start = getattr(model.generation_config, "decoder_start_token_id", None)
    stated = getattr(model.config, "decoder_start_token_id", start)
    if stated is not None and stated != start:
        raise ValueError(
            f"decoder_start_token_id is {start} in generation_config and {stated} in config. Expected one id in both: "
            "the one with which the decoder was trained. Set both, and save the model again; to read with one of them "
            'as it is, pass generate_kwargs={"decoder_start_token_id": id}.'
        )
    if start is not None and start not in {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}:
        symbol = tokenizer.convert_ids_to_tokens(start) if start < len(tokenizer) else None
        raise ValueError(
            f"decoder_start_token_id is {start}, which in the tokenizer is {symbol!r}. Expected a special token: take "
            "model and tokenizer from the same checkpoint, or set the id in the model's config and generation_config."
        )
    return start


def _prompt_ids(tokenizer: Any, prompt: str) -> torch.Tensor:
    """int64 (1, L)."""
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is {prompt!r}, expected one string, for all images.")
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if not ids.shape[1] or ids[0, 0] not in _tags(tokenizer).values():
        raise ValueError(f"prompt is {prompt!r}, which starts with no task of the tokenizer. {_cure(tokenizer)}.")
    return ids


def _cure(tokenizer: Any) -> str:
    tasks = sorted(tag for tag in _tags(tokenizer) if tag.startswith("<s_"))
    return f"Pass prompt= with the tag of the task first; the tokenizer has {', '.join(tasks[:20]) or 'none'}"
