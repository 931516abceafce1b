"""What the three heads of MGP-STR say (Wang et al., arXiv:2209.03592): read at once, and the surest is believed.

They write characters, byte pairs of GPT-2 and word pieces of BERT, one at each of fixed positions; the first position
stands for the start, and is not read. Done here and not by `MgpstrProcessor`, which asks for sentencepiece though it
uses nothing of it, cuts the last character of a text without an end, and gives no probability of a position.
"""

import warnings
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer

from .confidence import ScoreAs, aggregate
from .reading import Reading

MGP_STR = "mgp-str"
BPE, WORD_PIECES = "openai-community/gpt2", "google-bert/bert-base-uncased"  # as `MgpstrProcessor` has them
BPE_END = 2  # GPT-2 has no end of its own that fits: the paper's code took a symbol that no word holds, "#"


class Head(NamedTuple):
    """What turns the ids of a head into text, the id of its end, and whether its texts are joined without spaces."""

    tokenizer: Any
    end: int
    joined: bool


class MgpStrTokenizers(NamedTuple):
    """Those of the three heads; without the last two the characters are read alone."""

    characters: Any
    bpe: Any = None
    word_pieces: Any = None

    @classmethod
    def load(cls, characters: Any) -> "MgpStrTokenizers":
        """With GPT-2's and BERT's, which are no part of a checkpoint, by name; OSError or ValueError without them."""
        return cls(characters, *(AutoTokenizer.from_pretrained(name) for name in (BPE, WORD_PIECES)))

    @classmethod
    def of(cls, processor: Any) -> "MgpStrTokenizers":
        """Those of a processor, or its one `tokenizer` and what `load` finds, with a warning if nothing."""
        if hasattr(processor, "bpe_tokenizer"):
            return cls(processor.tokenizer, processor.bpe_tokenizer, processor.wp_tokenizer)
        try:
            return cls.load(processor.tokenizer)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"MGP-STR reads with its characters alone, less well than with all three heads: {missing(error)}",
                stacklevel=2,
            )
            return cls(processor.tokenizer)

    @property
    def heads(self) -> list[Head]:
        """Of those that are there, in the order of the model's logits."""
        found = [Head(self.characters, self.characters.eos_token_id, True)]
        if self.bpe is not None:
            found += [Head(self.bpe, BPE_END, False), Head(self.word_pieces, self.word_pieces.sep_token_id, True)]
        return found


def missing(error: Exception) -> str:
    """What `load` did not find, and the cure."""
    return (
        f"the tokenizers {BPE} and {WORD_PIECES}, which belong to the others, cannot be loaded "
        f"({' '.join(str(error).split())[:200]}). Download both once, AutoTokenizer.from_pretrained(name), or put "
        "folders of these names into the working directory."
    )


def check_heads(model: Any, tokenizers: MgpStrTokenizers) -> None:
    """Refuse tokenizers that are not those of the heads.

    Raises:
        ValueError: a head with fewer outputs than its tokenizer has symbols, for the characters also with more.
    """
    config = model.config
    outputs = (config.num_character_labels, config.num_bpe_labels, config.num_wordpiece_labels)
    for place, (head, size) in enumerate(zip(tokenizers.heads, outputs, strict=False)):
        symbols = len(head.tokenizer)
        if symbols > size or (place == 0 and symbols != size):
            raise ValueError(
                f"the tokenizer does not fit the model: {symbols} symbols in {head.tokenizer.name_or_path or 'it'}, "
                f"{size} outputs in head {place} of MGP-STR. Take both from the same checkpoint."
            )


@torch.inference_mode()
def read_heads(
    model: Any, tokenizers: MgpStrTokenizers, inputs: dict[str, torch.Tensor], score_as: ScoreAs
) -> list[Reading]:
    """One reading an image, of the head with the most probable text; of heads that have come to an end, if any has.

    The score is that of the symbols and the end, each given the image: the positions do not see each other.
    """
    candidates: list[list[tuple[tuple[bool, float], Reading]]] = [[] for _ in inputs["pixel_values"]]
    for head, logits in zip(tokenizers.heads, model(**inputs).logits, strict=False):
        probabilities, ids = logits[:, 1:].double().softmax(-1).max(-1)
        for found, row, steps in zip(candidates, ids.tolist(), probabilities.tolist(), strict=True):
            ended = head.end in row
            length = row.index(head.end) if ended else len(row)
            text = head.tokenizer.decode(row[:length], skip_special_tokens=True)
            steps = steps[: length + 1]
            reading = Reading(text.replace(" ", "") if head.joined else text, aggregate(steps, score_as))
            found.append(((ended, aggregate(steps, "product")), reading))
    return [max(found, key=lambda candidate: candidate[0])[1] for found in candidates]
