"""The loss of every family with a CTC head, and what it does with labels that cannot be learnt."""

import torch
import torch.nn.functional as F

from .ctc import minimum_frames

IGNORED = -100  # label value that no loss counts


def ctc_loss(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    invalid_labels: str = "error",
    empty_labels: str = "error",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over lines of -log P(label | image), each divided by the square root of the label's length.

    Long lines weigh more than short ones, but not in proportion.

    Args:
        logits: float32 (B, T, V), before the softmax; symbol 0 is the blank.
        lengths: int64 (B,), valid frames.
        labels: int64 (B, L), alphabet ids padded with -100.
        invalid_labels: "error", or "skip": a label that cannot be aligned (fewer frames than characters plus equal
            neighbours) or holds ids outside the alphabet is left out of the loss and counted.
        empty_labels: "error", "skip", or "blank": train the line to read as nothing.

    Returns:
        The loss, a float32 scalar (0 where every line is skipped), and the skipped lines, an int64 scalar.

    Raises:
        ValueError: as `usable_labels`.
    """
    targets, label_lengths, usable = usable_labels(labels, lengths, logits.shape[-1], invalid_labels, empty_labels)
    skipped = (~usable).sum()
    if not usable.any():
        return logits.sum() * 0.0, skipped
    nll = F.ctc_loss(
        logits[usable].log_softmax(-1).transpose(0, 1),
        targets[usable],
        lengths[usable],
        label_lengths[usable],
        reduction="none",
    )
    return (nll / label_lengths[usable].clamp(min=1).sqrt()).mean(), skipped


def usable_labels(
    labels: torch.Tensor,
    lengths: torch.Tensor,
    vocab_size: int,
    invalid_labels: str = "error",
    empty_labels: str = "error",
    aligned: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a loss may count of the labels of some lines; arguments as for `ctc_loss`.

    Args:
        aligned: characters are aligned with frames. If not, `lengths` are the most characters that can be learnt,
            whether neighbours are equal or not.

    Returns:
        The labels padded with 0, int64 (B, L); their lengths, int64 (B,); and which lines are not to be skipped, bool
        (B,).

    Raises:
        ValueError: labels of another shape, with -100 before their end, or of a kind whose policy is "error".
    """
    if labels.ndim != 2 or len(labels) != len(lengths) or labels.is_floating_point():
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected integers of shape ({len(lengths)}, "
            "length), a row for each image. Pass the labels that the checkpoint's processor gives."
        )
    valid = labels != IGNORED
    gaps = (valid[:, 1:] & ~valid[:, :-1]).any(-1)
    if gaps.any():
        row = int(gaps.nonzero()[0, 0])
        raise ValueError(
            f"labels: row {row} is {labels[row].tolist()}, expected -100 only at the end. Move the padding behind "
            "the ids."
        )
    label_lengths = valid.sum(-1)
    targets = labels.masked_fill(~valid, 0)
    usable = torch.ones_like(label_lengths, dtype=torch.bool)
    if aligned:
        needed, unit, cure = minimum_frames(targets), "frames", "widen the images"
        too_long = "more characters (and one more for each pair of equal neighbours) than its image has frames"
    else:
        needed, unit, cure = label_lengths, "characters", "cut the lines into words"
        too_long = "more characters than config.max_label_length"
    for rows, policy, problem in (
        (
            ((targets >= vocab_size) | ((targets <= 0) & valid)).any(-1),
            invalid_labels,
            f"ids outside the alphabet (1 to {vocab_size - 1}; 0 is the blank)",
        ),
        (needed > lengths, invalid_labels, too_long),
        (label_lengths == 0, empty_labels, "no characters"),
    ):
        if policy == "blank" or not rows.any():
            continue
        if policy == "error":
            row = int(rows.nonzero()[0, 0])
            raise ValueError(
                f"labels: row {row} has {problem}: {labels[row][valid[row]].tolist()} for {int(lengths[row])} "
                f"{unit}. {int(rows.sum())} of {len(rows)} rows are like this. Drop them, {cure}, or set "
                'config.invalid_labels (config.empty_labels) to "skip".'
            )
        usable &= ~rows
    return targets, label_lengths, usable
