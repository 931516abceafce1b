"""Changing the alphabet of a recognizer: known characters keep their weights, new ones start from what is alike."""

import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from hf_ocr.models.tokenization_characters import CharacterTokenizer

__all__ = ["resize_alphabet"]

# A new character begins one nat less likely than the one whose weights it starts from: until it has been learnt, known
# text reads as before.
HEAD_START_OF_THE_KNOWN = 1.0


def resize_alphabet(
    model: Any,
    tokenizer: CharacterTokenizer,
    characters: Iterable[str],
    mode: Literal["union", "new", "fail"] = "union",
) -> CharacterTokenizer:
    """Fit a recognizer to an alphabet. Rows of its vocabulary layers are matched by character, never by id.

    A character that is new starts with the weights of its base character (U+017F, the long s, from "s"; "ẵ" from "a")
    where the old alphabet has that, and with the mean of all characters otherwise.

    Args:
        model: a recognizer (`vocabulary_layers`); changed in place, `config.vocab_size` with it. A language model,
            which is of the old alphabet, is taken away.
        tokenizer: its present one; not changed.
        characters: the characters that are needed, in any order, repetitions allowed: the joined texts of a data set
            will do. Taken in Unicode normal form C.
        mode: "union": the old alphabet, with its ids, and what is new behind it. "new": these characters alone, in the
            order of their code points; smaller and faster where an alphabet is much larger than the texts. "fail": only
            check that none is new.

    Returns:
        The tokenizer of the new alphabet, with the special tokens of the old one; the given one where nothing changes.

    Raises:
        ValueError: an unknown mode, no characters with "new", new characters with "fail", or a model and a tokenizer
            that do not belong together; a tokenizer of another kind.
    """
    if mode not in ("union", "new", "fail"):
        raise ValueError(f"mode is {mode!r}, expected 'union', 'new' or 'fail'.")
    if not isinstance(tokenizer, CharacterTokenizer):
        raise ValueError(
            f"the tokenizer is a {type(tokenizer).__name__}, expected a CharacterTokenizer: a stock tokenizer keeps "
            "its symbols. Train with those it has, and leave out or change the texts with others."
        )
    layers = model.vocabulary_layers()
    for layer in layers:
        if len(layer.weight) != len(tokenizer):
            raise ValueError(
                f"the model has {len(layer.weight)} symbols and the tokenizer {len(tokenizer)}: they do not belong "
                "together. Load both from the same checkpoint."
            )
    old = tokenizer.alphabet
    # Text by text: a letter at the end of one and a mark at the start of the next are two symbols.
    texts = [characters] if isinstance(characters, str) else characters
    wanted = sorted(set().union(*(unicodedata.normalize("NFC", text) for text in texts)))
    added = sorted(set(wanted).difference(old))
    if mode == "fail" and added:
        raise ValueError(
            f"{len(added)} characters are not in the alphabet of {len(old)}: {_listed(added)}. Leave these texts "
            'out, or let the alphabet grow with mode="union".'
        )
    if mode == "new" and not wanted:
        raise ValueError('no characters; mode="new" needs at least one. Give the texts of the data set.')
    alphabet = wanted if mode == "new" else old + added
    if alphabet == old:
        return tokenizer
    special = {
        name: getattr(tokenizer, name)
        for name in ("pad_token", "unk_token", "bos_token", "eos_token")
        if getattr(tokenizer, name) is not None
    }
    vocab = tokenizer.get_vocab()
    if mode == "new":
        resized = CharacterTokenizer.from_alphabet(alphabet, **special)
    else:
        kept = sorted({*special.values(), *old}, key=vocab.__getitem__)
        symbols = {symbol: index for index, symbol in enumerate(kept + added)}
        resized = CharacterTokenizer(vocab=symbols, **special)
    _resize(model, layers, _origins(vocab, resized.get_vocab()), [vocab[character] for character in old])
    if getattr(model, "language_model", None) is not None:
        model.set_language_model(None)
    model.tie_weights()  # where a head shares the weights of an embedding
    config = getattr(model.config, "decoder", model.config)
    config.vocab_size = len(resized)
    moved = {vocab[token]: resized.get_vocab()[token] for token in special.values()}
    generation_config = getattr(model, "generation_config", None)
    for settings in {id(each): each for each in (model.config, config, generation_config)}.values():
        _move_special_tokens(settings, moved)
    return resized


def _origins(old: dict[str, int], new: dict[str, int]) -> list[tuple[int | None, bool]]:
    """For each new id: the old id its row is taken from, if there is one, and whether it is the same symbol."""
    origins: list[tuple[int | None, bool]] = []
    for symbol in sorted(new, key=new.__getitem__):
        if symbol in old:
            origins.append((old[symbol], True))
        else:
            parts = unicodedata.normalize("NFKD", symbol)
            alike = [part for part in (*parts, *parts.lower(), *parts.upper()) if part in old]
            origins.append((old[alike[0]] if alike else None, False))
    return origins


def _resize(
    model: nn.Module, layers: list[nn.Module], origins: list[tuple[int | None, bool]], characters: list[int]
) -> None:
    """Linear layers and embeddings with one row a symbol, in place: optimizers made before must be made anew."""
    resized: dict[nn.Parameter, nn.Parameter] = {}
    for layer in layers:
        if not isinstance(layer, nn.Linear | nn.Embedding):
            raise ValueError(f"{type(layer).__name__} is no vocabulary layer, expected Linear or Embedding.")
        for name, tensor in layer.named_parameters(recurse=False):
            mean = tensor[characters].mean(0)
            rows = torch.stack([mean if origin is None else tensor[origin] for origin, _ in origins]).detach().clone()
            if name == "bias":
                rows -= torch.tensor([0.0 if same else HEAD_START_OF_THE_KNOWN for _, same in origins]).to(rows)
            resized[tensor] = nn.Parameter(rows, requires_grad=tensor.requires_grad)
    # Wherever it stands: the bias of a head of BERT belongs to the layer around it too.
    for module in model.modules():
        for name, tensor in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if tensor in resized:
                setattr(module, name, resized[tensor])
    for layer in layers:
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "num_embeddings", len(origins))


def _move_special_tokens(settings: Any, moved: dict[int, int]) -> None:
    """In a config or a generation config; `moved` is {old id: new id}."""
    for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        index = getattr(settings, name, None)
        if isinstance(index, int) and index in moved:
            setattr(settings, name, moved[index])


def _listed(characters: list[str]) -> str:
    shown = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in characters[:10])
    return shown + (", ..." if len(characters) > 10 else "")
