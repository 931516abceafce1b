"""What CTC decoding is given, checked: logits and lengths, the symbols that may be read, texts.

Each check raises a ValueError that names the argument, what it is and what was expected.
"""

import torch
from torch import Tensor

from .ctc_lattice import BLANK, largest


def checked_log_probs(logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) and valid frames (B,), normalised: float32 (B, T', V) without the frames that no row uses, and
    int64 (B,)."""
    if logits.dim() != 3 or not logits.is_floating_point() or logits.shape[2] == 0:
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}, expected floats (rows, frames, symbols)."
        )
    if lengths.shape != logits.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths are {lengths.dtype} of shape {tuple(lengths.shape)}, expected integers of shape "
            f"({logits.shape[0]},): the valid frames of each row of the logits."
        )
    lengths = lengths.to(logits.device, torch.int64)
    longest = largest(lengths)
    if longest > logits.shape[1] or (lengths.numel() and int(lengths.min()) < 0):
        raise ValueError(f"lengths are {lengths.tolist()}, expected 0 to {logits.shape[1]}, the frames of the logits.")
    return logits[:, :longest].float().log_softmax(-1), lengths


def checked_allowed(allowed: Tensor | None, log_probs: Tensor) -> Tensor | None:
    """bool (V,) on the device of `log_probs`, with the blank, which always may be read."""
    if allowed is None:
        return None
    if allowed.dtype != torch.bool or allowed.shape != log_probs.shape[2:]:
        raise ValueError(
            f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}, expected torch.bool of shape "
            f"({log_probs.shape[2]},): True for each symbol id that may be read."
        )
    allowed = allowed.to(log_probs.device).clone()
    allowed[BLANK] = True
    return allowed


def checked_sequences(
    name: str, sequences: Tensor, symbols: int, device: torch.device, rows: int | None = None
) -> Tensor:
    """Texts as they are, on `device`.

    Args:
        name: what to call them in an error.
        sequences: int64 (N, L) padded with 0.
        symbols: V, with the blank.
        device: of the logits.
        rows: N; None for any.

    Raises:
        ValueError: no such tensor, an id outside [0, V), or a 0 inside a text.
    """
    is_tensor = isinstance(sequences, Tensor)
    if (
        not is_tensor
        or sequences.dim() != 2
        or sequences.dtype != torch.int64
        or (rows is not None and sequences.shape[0] != rows)
    ):
        seen = f"{sequences.dtype} of shape {tuple(sequences.shape)}" if is_tensor else f"a {type(sequences).__name__}"
        raise ValueError(
            f"{name} is {seen}, expected a tensor, torch.int64 of shape "
            f"({'texts' if rows is None else rows}, symbols). Give the ids of each text as a row, padded with 0."
        )
    sequences = sequences.to(device)
    for row, column in ((sequences < 0) | (sequences >= symbols)).nonzero()[:1].tolist():
        raise ValueError(
            f"{name} has the id {int(sequences[row, column])} in row {row}, expected 0 (padding) to {symbols - 1}, as "
            f"there are {symbols} symbols. Pad with 0, and encode with the tokenizer of this model."
        )
    gaps = (sequences[:, :-1] == BLANK) & (sequences[:, 1:] != BLANK)
    for row, column in gaps.nonzero()[:1].tolist():
        raise ValueError(
            f"{name} has a 0 inside the text of row {row}, at position {column}, expected 0 behind a text alone. "
            "Pad rows at their end."
        )
    return sequences
