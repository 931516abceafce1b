"""The alphabet of a recognizer: characters to ids and back."""

import json
import os
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any, cast

from transformers import PreTrainedTokenizer
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from .setting_checks import MAX_SYMBOLS, check_number, damage_named

PAD_TOKEN = "<pad>"
MAX_BYTES = 16 * 2**20  # of a file of the vocabulary: 80 bytes for each of 200,000 symbols


class CharacterTokenizer(PreTrainedTokenizer):
    """One id a code point, after Unicode normal form C. Space is a character like any other.

    Id 0 is `pad_token`, which is also the blank of CTC. Texts never contain special tokens: "<pad>" in a text is five
    characters. With `eos_token` an encoded text ends with it; `bos_token` is only a start for decoders and is never
    put into a text.

    Args:
        vocab_file: path of a JSON file {character or special token: id}.
        vocab: the same as a dict, instead of a file.
        pad_token: must have id 0.
        unk_token: stands for characters outside the alphabet; None (default): they are an error.
        bos_token, eos_token: for decoders; None (default): there is none.

    Raises:
        ValueError: a vocabulary whose ids are not 0 to n - 1, without `pad_token` at 0, without a special token that
            is named or with one of a single character, with another entry that is not one code point in normal form C,
            or with more than 200,000 entries.
    """

    vocab_files_names = {"vocab_file": "vocab.json"}
    model_input_names = ["input_ids"]

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        vocab: dict[str, int] | None = None,
        pad_token: str = PAD_TOKEN,
        unk_token: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        **kwargs: Any,
    ) -> None:
        if vocab is None:
            vocab = _read_vocabulary(vocab_file, kwargs.get("name_or_path"))
        special = [str(token) for token in (pad_token, unk_token, bos_token, eos_token) if token is not None]
        _check_vocabulary(vocab, special)
        # The base class asks for the vocabulary while it is being built.
        self._encoder = dict(sorted(vocab.items(), key=lambda item: item[1]))
        self._decoder = list(self._encoder)
        kwargs["split_special_tokens"] = True
        kwargs["clean_up_tokenization_spaces"] = False  # " ." is read as it stands
        kwargs["special_tokens_pattern"] = None if eos_token is None else "eos"
        super().__init__(pad_token=pad_token, unk_token=unk_token, bos_token=bos_token, eos_token=eos_token, **kwargs)
        check_number("model_max_length", self.model_max_length, 1, VERY_LARGE_INTEGER)
        self._check_added_tokens()
        self._check_special_tokens(special)
        for name in ("is_local", "local_files_only"):  # how it was loaded, which is nothing to save
            self.init_kwargs.pop(name, None)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as every tokenizer of transformers does (same arguments).

        Raises:
            OSError: there are no such files.
            ValueError: the files hold something else than a tokenizer of this class; as for the class.
        """
        with damage_named(f"{cls.__name__}: the tokenizer of {pretrained_model_name_or_path}"):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_alphabet(cls, alphabet: str | Iterable[str], **kwargs: Any) -> "CharacterTokenizer":
        """Build a tokenizer without a file.

        Args:
            alphabet: characters in the order of their ids, each once. Ids start behind the special tokens, which come
                in the order pad, unk, bos, eos.
            kwargs: as for the class.

        Raises:
            ValueError: as for the class, and for a character that is given twice.
        """
        names = ("pad_token", "unk_token", "bos_token", "eos_token")
        tokens = [{"pad_token": PAD_TOKEN, **kwargs}.get(name) for name in names]
        special = [str(token) for token in tokens if token is not None]
        # Character by character: "e" and a combining acute beside each other in an alphabet are two symbols.
        symbols = special + [unicodedata.normalize("NFC", character) for character in alphabet]
        vocab = {symbol: index for index, symbol in enumerate(symbols)}
        if len(vocab) != len(symbols):
            twice = [symbol for index, symbol in enumerate(symbols) if vocab[symbol] != index]
            raise ValueError(
                f"alphabet: {', '.join(map(_described, twice[:5]))} given more than once (after normal form C). "
                "Expected each character once; list(dict.fromkeys(alphabet)) keeps the first of each."
            )
        return cls(vocab=vocab, **kwargs)

    @property
    def alphabet(self) -> list[str]:
        """The characters in the order of their ids, without special tokens."""
        vocab, special = self.get_vocab(), set(self.all_special_tokens)
        return [symbol for symbol in sorted(vocab, key=vocab.__getitem__) if symbol not in special]

    @property
    def vocab_size(self) -> int:
        """Ids of the vocabulary, special tokens included."""
        return len(self._encoder)

    def get_vocab(self) -> dict[str, int]:
        """{character or special token: id}, tokens added later included."""
        return {**self._encoder, **self.added_tokens_encoder}

    def label_ids(self, text: str) -> list[int]:
        """The ids of a text as a training label: the fast way to `tokenizer(text)["input_ids"]`.

        Raises:
            ValueError: a character outside the alphabet, and there is no `unk_token`.
        """
        text = unicodedata.normalize("NFC", text)
        try:
            ids = [self._encoder[character] for character in text]
        except KeyError:
            ids = [self._convert_token_to_id_with_added_voc(character) for character in self._tokenize(text)]
        return self.build_inputs_with_special_tokens(ids)

    def _check_added_tokens(self) -> None:
        """A file may mark symbols as added, and add more behind them: it may not put others in their place."""
        known = len(self._decoder)
        added = self._added_tokens_decoder
        behind = sorted(index for index in added if index >= known)
        if behind != list(range(known, known + len(behind))) or any(
            index < known and (index < 0 or token.content != self._decoder[index]) for index, token in added.items()
        ):
            raise ValueError(
                f"added_tokens_decoder: is {reprlib.repr(added)} for a vocabulary of {known} symbols, expected symbols "
                "with their own ids, and new ones behind them. Save the tokenizer again."
            )

    def _check_special_tokens(self, known: list[str]) -> None:
        """Beyond those of the vocabulary: decoding leaves them out, so none may be what a text holds."""
        for token in set(self.all_special_tokens).difference(known):
            if len(token) < 2:
                raise ValueError(
                    f"special tokens: {reprlib.repr(token)} is one, and is empty or a single character. "
                    "Expected one that no text holds; take it out of the tokenizer's settings."
                )

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        text = unicodedata.normalize("NFC", text)
        if self.unk_token is None:
            for character in text:
                if character not in self._encoder and character not in self._added_tokens_encoder:
                    raise ValueError(
                        f"character {_described(character)} of the text {reprlib.repr(text)} is not in the alphabet of "
                        f"{len(self.alphabet)} characters, and there is no unk_token. Expected characters of "
                        "tokenizer.alphabet; leave the text out, replace the character, or extend the alphabet."
                    )
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        index = self._encoder.get(token)
        if index is None and self.unk_token is not None:
            index = self._encoder[self.unk_token]
        if index is None:
            raise ValueError(f"{_described(token)} is not in the alphabet, and there is no unk_token.")
        return index

    def _convert_id_to_token(self, index: int) -> str:
        if index == -100:  # padding of labels
            return ""
        if not 0 <= index < len(self._decoder):
            raise ValueError(
                f"id {index} is outside the alphabet. Expected 0 to {len(self._decoder) - 1}, or -100 as padding; "
                "tokenizer and model do not belong together, or the alphabet was changed without the model's head."
            )
        return self._decoder[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join characters; spaces are characters and are kept as they are."""
        return "".join(tokens)

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str | list[str]:
        """Text of one sequence of ids, or list of texts of a batch; list, array or tensor, padded with 0 or -100.

        Repeats are kept: the collapsing of CTC is a matter of the search, which has done it.

        Raises:
            ValueError: an id that is neither in the alphabet nor -100.
        """
        return super().decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Texts of a batch of sequences of ids; as `decode`."""
        # One by one: versions of transformers differ in what they make of an empty batch and of empty sequences.
        kwargs = {"clean_up_tokenization_spaces": clean_up_tokenization_spaces, **kwargs}
        rows = sequences.tolist() if hasattr(sequences, "tolist") else sequences
        return [cast(str, self.decode(row, skip_special_tokens, **kwargs)) if len(row) else "" for row in rows]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write {character or special token: id} as `vocab.json`; returns its path."""
        name = self.vocab_files_names["vocab_file"]
        path = os.path.join(save_directory, f"{filename_prefix}-{name}" if filename_prefix else name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self._encoder, file, ensure_ascii=False, indent=0)
            file.write("\n")
        return (path,)


def _read_vocabulary(path: str | os.PathLike[str] | None, checkpoint: str | None) -> dict[str, int]:
    if path is None and checkpoint:
        raise ValueError(
            f"CharacterTokenizer: no vocabulary in {checkpoint}, vocab.json is not there. Save or fetch it again."
        )
    if path is None:
        raise ValueError(
            "CharacterTokenizer: no vocabulary. Expected vocab_file or vocab; "
            "CharacterTokenizer.from_alphabet(characters) builds one."
        )
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise ValueError(f"{path}: has {size:,} bytes. Expected at most {MAX_BYTES:,}; save or fetch it again.")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: is not JSON ({error}). Expected {{character: id}}; save or fetch it again."
        ) from error


def _check_vocabulary(vocab: dict[str, int], special: list[str]) -> None:
    ids = list(vocab.values()) if isinstance(vocab, dict) else []
    if any(type(index) is not int for index in ids) or not ids or sorted(ids) != list(range(len(ids))):
        raise ValueError(
            f"vocabulary: is {reprlib.repr(vocab)}, expected {{character: id}} with the ids 0 to n - 1, each once; "
            "build it anew."
        )
    if len(ids) > MAX_SYMBOLS:
        raise ValueError(
            f"vocabulary: has {len(ids):,} entries, expected at most {MAX_SYMBOLS:,}, more than Unicode has "
            "characters. Take the characters that the texts hold."
        )
    if not special:
        raise ValueError("vocabulary: pad_token is None. Expected the symbol with id 0, the blank of CTC.")
    missing = [token for token in special if token not in vocab]
    if missing:
        raise ValueError(
            f"vocabulary: the special tokens {reprlib.repr(missing)} are not in it. Expected an id for each; "
            "build it with CharacterTokenizer.from_alphabet, which puts them in front."
        )
    if vocab[special[0]] != 0:
        raise ValueError(
            f"vocabulary: pad_token {reprlib.repr(special[0])} has id {vocab[special[0]]}. Expected 0, the blank "
            "of CTC."
        )
    for token in special:
        if len(token) < 2:  # a text that holds it would be given its id
            raise ValueError(
                f"vocabulary: the special token {reprlib.repr(token)} is empty or a single character, which a text "
                'may hold. Expected more than one, such as "<pad>" or "</s>"; give it such a name.'
            )
    for symbol in vocab:
        composed = len(symbol) == 1 and unicodedata.normalize("NFC", symbol) == symbol
        if symbol not in special and (not composed or unicodedata.category(symbol) == "Cs"):
            raise ValueError(
                f"vocabulary: {_described(symbol)} is not one code point in normal form C, so no text can hold it. "
                "Expected single characters; give its parts, or its normal form."
            )


def _described(text: str) -> str:
    points = [f"U+{ord(character):04X}" for character in text[:8]] + ["..."] * (len(text) > 8)
    return f"{reprlib.repr(text)} ({' '.join(points)})"
