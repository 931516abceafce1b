"""CRNN checkpoints of other projects: crnn.pytorch, the deep text recognition benchmark (DTRB), docTR.

All three are the layers of `CrnnForTextRecognition`, with other trunks and names:

- meijieru/crnn.pytorch: the paper's trunk, batch norm behind the third, fifth and seventh convolution. Networks trained
  with its option `leakyRelu` cannot be told by their weights, and would read wrongly: do not convert them.
- clovaai/deep-text-recognition-benchmark, None-VGG-BiLSTM-CTC: pools of (2, 1), convolutions without bias before the
  batch norms (the bias is 0 here), and a linear layer between the last LSTM and the head, which is multiplied into it.
- mindee/doctr, crnn_vgg16_bn: the 13 convolutions of VGG-16 with batch norm, the last three pools (2, 1), two stacked
  LSTMs. Its blank is the last row of the head; here it is the first.

How images are prepared, and what differs from there (of loose crops, as everywhere here, the text is cut out first):

- crnn.pytorch, DTRB: stretched to 100 x 32 px by linear and by cubic interpolation, as there. What was trained with
  DTRB's options `--PAD` or `--imgW` cannot be told by the weights, and is stretched all the same.
  To read long words in proportion, as the paper does, set `max_width` to 4096 in both processor files.
- docTR: scaled to 32 px and padded with black to 128 px, as there. Words wider than that keep their height and go on;
  there they shrink, and are padded below as well, and the widest are cut into parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hf_ocr.convert.conversion import (
    PRINTABLE,
    Conversion,
    ConversionError,
    alphabet_of,
    readable_alphabet,
    write_checkpoint,
)
from hf_ocr.convert.torch_weights import SourceWeights, read_tensors
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.text import CHARSET_36

_CURRENCY = "£€¥¢฿"
_STRETCHED = {"height": 32, "min_width": 100, "max_width": 100}


@dataclass(frozen=True)
class Form:
    """The published layers of a network.

    Attributes:
        name: of the project and the network.
        first: the name of its first tensor, by which it is known.
        settings: of `CrnnConfig`, where they are not its defaults.
        convolutions: names of each convolution and of the batch norm behind it.
        biased: whether the convolution in front of a batch norm has a bias.
        lstms: the name before each bidirectional layer, and its number there.
        projection: the linear layer between the LSTMs.
        head: the linear layers behind them, which follow one another directly.
        blank: row of the head, 0 or -1.
        alphabets: published ones, in the order of their ids.
        images: settings of `TextLineImageProcessor`.
        channels: of the images it can be trained on, 1 (grey) or 3 (RGB).
    """

    name: str
    settings: Mapping[str, Any]
    convolutions: tuple[tuple[str, str | None], ...]
    biased: bool
    lstms: tuple[tuple[str, int], ...]
    projection: str | None
    head: tuple[str, ...]
    blank: int
    alphabets: tuple[str, ...]
    images: Mapping[str, Any]
    channels: tuple[int, ...] = (1, 3)

    @property
    def first(self) -> str:
        """The tensor by which the form is known."""
        return f"{self.convolutions[0][0]}.weight"


CRNN_PYTORCH = Form(
    name="meijieru/crnn.pytorch",
    settings={"conv_batch_norm": [False, False, True, False, True, False, True]},
    convolutions=tuple((f"cnn.conv{i}", f"cnn.batchnorm{i}" if i in (2, 4, 6) else None) for i in range(7)),
    biased=True,
    lstms=(("rnn.0.rnn.", 0), ("rnn.1.rnn.", 0)),
    projection="rnn.0.embedding",
    head=("rnn.1.embedding",),
    blank=0,
    alphabets=(CHARSET_36,),
    images=_STRETCHED,
)

DTRB = Form(
    name="clovaai/deep-text-recognition-benchmark, None-VGG-BiLSTM-CTC",
    settings={
        "pool_kernels": [[2, 2], [2, 2], None, [2, 1], None, [2, 1], None],
        "pool_strides": [[2, 2], [2, 2], None, [2, 1], None, [2, 1], None],
        "pool_paddings": [[0, 0], [0, 0], None, [0, 0], None, [0, 0], None],
    },
    convolutions=tuple(
        (f"FeatureExtraction.ConvNet.{place}", None if norm is None else f"FeatureExtraction.ConvNet.{norm}")
        for place, norm in ((0, None), (3, None), (6, None), (8, None), (11, 12), (14, 15), (18, None))
    ),
    biased=False,
    lstms=(("SequenceModeling.0.rnn.", 0), ("SequenceModeling.1.rnn.", 0)),
    projection="SequenceModeling.0.linear",
    head=("SequenceModeling.1.linear", "Prediction"),
    blank=0,
    alphabets=(CHARSET_36, PRINTABLE),
    images={**_STRETCHED, "resample": Image.Resampling.BICUBIC.value},
)

# Behind which of VGG-16's 13 convolutions a pool follows, of which kernel and stride.
_POOLS = {1: [2, 2], 3: [2, 2], 6: [2, 1], 9: [2, 1], 12: [2, 1]}

DOCTR = Form(
    name="mindee/doctr, crnn_vgg16_bn",
    settings={
        "conv_kernels": [[3, 3]] * 13,
        "conv_strides": [[1, 1]] * 13,
        "conv_paddings": [[1, 1]] * 13,
        "conv_batch_norm": [True] * 13,
        "pool_kernels": [_POOLS.get(i) for i in range(13)],
        "pool_strides": [_POOLS.get(i) for i in range(13)],
        "pool_paddings": [[0, 0] if i in _POOLS else None for i in range(13)],
        "lstm_projection": False,
    },
    convolutions=tuple(
        (f"feat_extractor.{place}", f"feat_extractor.{place + 1}")
        for place in (3 * i + sum(pool < i for pool in _POOLS) for i in range(13))
    ),
    biased=True,
    lstms=(("decoder.", 0), ("decoder.", 1)),
    projection=None,
    head=("linear",),
    blank=-1,
    alphabets=(
        PRINTABLE + "°" + "àâéèêëîïôùûçÀÂÉÈËÎÏÔÙÛÇ" + _CURRENCY,  # of the published weights, "legacy_french"
        PRINTABLE + "°" + _CURRENCY + "àâéèêëîïôùûüçÀÂÉÈÊËÎÏÔÙÛÜÇ",  # "french"
    ),
    images={
        "height": 32,
        "min_width": 128,
        "narrow": "pad",
        "mean": [0.694, 0.695, 0.693],
        "std": [0.299, 0.296, 0.301],
    },
    channels=(3,),
)

FORMS = (CRNN_PYTORCH, DTRB, DOCTR)

# Parts of names that other networks of these projects have.
REFUSED = {
    "Transformation.": "the TPS transformation of DTRB",
    "ConvNet.conv0_1.": "the ResNet trunk of DTRB",
    ".wgf_u.": "the RCNN trunk of DTRB",
    "Prediction.attention_cell.": "the attention decoder of DTRB",
    "feat_extractor.0.0.": "the MobileNetV3 trunk of docTR",
}


def convert_crnn(
    source: str | Path,
    folder: str | Path,
    alphabet: str | None = None,
    weights_dtype: torch.dtype | None = None,
) -> Conversion:
    """Write a CRNN of another project as a checkpoint: model, processor, card.

    Args:
        source: the file of its weights: a state dict as `torch.save` writes it, or safetensors.
        folder: made if it does not exist; files of the same names are overwritten.
        alphabet: its characters in the order of their ids there, without the blank; when None, the published alphabet
            of that project with as many characters.
        weights_dtype: stored type of the weights, as torch.float16 for half the size; float32 when None. The folder
            loads in float32 either way.

    Raises:
        ConversionError: a file that is none of the networks of this module, or an alphabet of another size.
    """
    source, folder = Path(source), Path(folder)
    model, processor, form, left_out = read_crnn(source, alphabet)
    network = f"CRNN of {form.name}"
    return write_checkpoint(model, processor, source, folder, "crnn", network, left_out, weights_dtype)


def read_crnn(
    source: str | Path, alphabet: str | None = None
) -> tuple[CrnnForTextRecognition, TextRecognitionProcessor, Form, tuple[str, ...]]:
    """Model in eval mode, processor, form, and the symbols left out; arguments and errors as for `convert_crnn`."""
    source = Path(source)
    tensors = read_tensors(source)
    form = _form(source, tensors)
    weights = SourceWeights(source, tensors)
    state = _trunk(weights, form)
    channels = [len(state[f"crnn.convolutions.{i}.convolution.weight"]) for i in range(len(form.convolutions))]
    hidden_size = _recurrent_layers(weights, form, channels[-1], state)
    head, bias = _head(weights, form, 2 * hidden_size)
    weights.check_empty()

    characters = alphabet_of(source, form.name, form.alphabets, len(head), alphabet)
    kept, left_out, tokenizer = readable_alphabet(source, characters)
    rows = [form.blank % len(head), *(index + (form.blank == 0) for index in kept)]
    state["classifier.weight"], state["classifier.bias"] = head[rows], bias[rows]
    config = CrnnConfig(
        vocab_size=len(rows),
        num_channels=state["crnn.convolutions.0.convolution.weight"].shape[1],
        conv_channels=channels,
        lstm_hidden_size=hidden_size,
        **form.settings,
    )
    model = CrnnForTextRecognition(config).eval()
    model.load_state_dict(state)
    image_processor = TextLineImageProcessor(num_channels=config.num_channels, **form.images)
    return model, TextRecognitionProcessor(image_processor, tokenizer), form, left_out


def _form(source: Path, tensors: Mapping[str, torch.Tensor]) -> Form:
    for part, what in REFUSED.items():
        found = next((name for name in tensors if part in name), None)
        if found is not None:
            raise ConversionError(
                f"{source}: has {what} ({found}), which is not converted. Expected a CRNN of "
                f"{'; of '.join(form.name for form in FORMS)}. Convert one of these."
            )
    for form in FORMS:
        if form.first in tensors:
            return form
    raise ConversionError(
        f"{source}: {len(tensors)} tensors, the first of which is {min(tensors, default=None)!r}. Expected one of "
        f"{', '.join(f'{form.first} ({form.name})' for form in FORMS)}. Convert a file of one of these networks."
    )


def _trunk(weights: SourceWeights, form: Form) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    kernels = form.settings.get("conv_kernels", CrnnConfig.conv_kernels)
    channels: int | None = None
    for index, ((name, norm), kernel) in enumerate(zip(form.convolutions, kernels, strict=True)):
        ours = f"crnn.convolutions.{index}"
        weight = weights.take(f"{name}.weight", (None, channels, *kernel))
        if index == 0 and weight.shape[1] not in form.channels:
            raise ConversionError(
                f"{weights.source}: {name}.weight takes {weight.shape[1]} channels, expected "
                f"{' or '.join(map(str, form.channels))}. Convert another file."
            )
        channels = len(weight)
        state[f"{ours}.convolution.weight"] = weight
        if norm is None or form.biased:
            state[f"{ours}.convolution.bias"] = weights.take(f"{name}.bias", (channels,))
        else:
            state[f"{ours}.convolution.bias"] = torch.zeros(channels)
        if norm is not None:
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"{ours}.norm.{part}"] = weights.take(f"{norm}.{part}", (channels,))
            counter = f"{norm}.num_batches_tracked"  # older than PyTorch 0.4.1 is without
            seen = weights.take(counter, ()) if weights.has(counter) else torch.zeros(())
            state[f"{ours}.norm.num_batches_tracked"] = seen.long()
    return state


def _recurrent_layers(weights: SourceWeights, form: Form, size: int, state: dict[str, torch.Tensor]) -> int:
    """Adds the LSTMs and what stands between them to `state`; `size` comes out of the trunk. Returns their units."""
    prefix, number = form.lstms[0]
    hidden = weights.size(f"{prefix}weight_hh_l{number}", 1)
    for index, (prefix, number) in enumerate(form.lstms):
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (4 * hidden, size), "weight_hh": (4 * hidden, hidden)}
        shapes |= {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            for part, shape in shapes.items():
                theirs = f"{prefix}{part}_l{number}{suffix}"
                state[f"crnn.lstms.{index}.{direction}_lstm.{part}_l0"] = weights.take(theirs, shape)
        size = 2 * hidden
        if index == 0 and form.projection is not None:
            state["crnn.projections.0.weight"] = weights.take(f"{form.projection}.weight", (hidden, size))
            state["crnn.projections.0.bias"] = weights.take(f"{form.projection}.bias", (hidden,))
            size = hidden
    return hidden


def _head(weights: SourceWeights, form: Form, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (symbols, size) and bias (symbols,) of linear layers in a row, multiplied into one."""
    weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for name in form.head:
        matrix = weights.take(f"{name}.weight", (None, len(weight))).double()
        weight = matrix @ weight
        bias = matrix @ bias + weights.take(f"{name}.bias", (len(matrix),)).double()
    return weight.float(), bias.float()
