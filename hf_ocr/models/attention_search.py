"""Reading with the decoder of attention OCR and, where there is one, its CTC head: searches, and known texts."""

import torch
import torch.nn.functional as F

from .attention_decoder import AttentionDecoder, AttentionMemory
from .ctc_prefix_scores import CtcPrefixes, CtcPrefixScores, joint_log_probs


class AttentionSteps:
    """The decoder as `beam_search` wants it.

    With a CTC head the probability of a symbol is that of the decoder and that of CTC, multiplied, each to the power of
    its share, and normalised: the decoder alone leaves out or repeats a character now and then, which CTC does not.
    """

    def __init__(self, decoder: AttentionDecoder, memory: AttentionMemory, num_beams: int = 1) -> None:
        """Args: the decoder, what it reads of the images, and how many texts of each it follows."""
        self.decoder, self.memory, self.num_beams = decoder, memory, num_beams
        self.state = decoder.start(memory)
        self.scores = _ctc_scores(memory)
        self.prefixes: CtcPrefixes | None = None

    def __call__(self, parents: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
        """See `beam_search`."""
        if len(parents) != len(self.memory["features"]):  # else the beams of an image changed places, at most
            self.memory = self.memory.select(parents)
        state = self.state.select(parents)
        self.state, _ = self.decoder.step(self.memory, state, self.decoder.symbol_gates(symbols))
        log_probs = self.decoder.logits(self.state.hidden).log_softmax(-1)
        if self.scores is None:
            return log_probs
        if self.prefixes is None:
            self.prefixes = self.scores.start(self.num_beams)
        else:
            images = parents.view(-1, self.num_beams)[:, 0] // self.num_beams
            if len(images) != len(self.scores.lengths):
                self.scores = self.scores.rows(images)
            before = CtcPrefixes(
                *(part.flatten(0, 1)[parents].unflatten(0, (len(images), -1)) for part in self.prefixes)
            )
            self.prefixes = self.scores.extend(before, symbols.view(len(images), -1))
        return joint_log_probs(
            log_probs, self.scores.next_log_probs(self.prefixes).flatten(0, 1), self.decoder.config.ctc_weight
        )


def log_probs_along(
    decoder: AttentionDecoder, memory: AttentionMemory, texts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `AttentionSteps` says at each step along known texts.

    Args:
        decoder: of the model.
        memory: of B images.
        texts: int64 (B, K, L), K of each image.

    Returns:
        log-probabilities float32 (B, K, L + 1, V), and the attention weights, float32 (B * K, heads, L + 1, T).
    """
    images, count, _ = texts.shape
    rows = torch.arange(images, device=texts.device).repeat_interleave(count)
    logits, attentions = decoder(memory if count == 1 else memory.select(rows), F.pad(texts.flatten(0, 1), (1, 0)))
    log_probs = logits.log_softmax(-1).unflatten(0, (images, count))
    scores = _ctc_scores(memory)
    if scores is not None:
        log_probs = joint_log_probs(log_probs, scores.next_log_probs_along(texts), decoder.config.ctc_weight)
    return log_probs, attentions


def _ctc_scores(memory: AttentionMemory) -> CtcPrefixScores | None:
    return None if memory.ctc_logits is None else CtcPrefixScores(memory.ctc_logits, memory["lengths"])
