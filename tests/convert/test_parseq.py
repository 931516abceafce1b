"""PARSeq: the network of its authors, built from its published layers, reads the same here."""

import string

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import AutoModelForTextRecognition, AutoProcessor

from hf_ocr.cli import main
from hf_ocr.convert.conversion import ConversionError
from hf_ocr.convert.parseq import convert_parseq, read_parseq

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


class Block(nn.Module):
    """Of timm's vision transformer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.heads = size // 64
        self.norm1, self.norm2 = nn.LayerNorm(size, eps=1e-6), nn.LayerNorm(size, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(size, 3 * size), "proj": nn.Linear(size, size)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(size, 4 * size), "fc2": nn.Linear(4 * size, size)})

    def forward(self, x):
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, 64)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT / 8).softmax(-1) @ v
        x = x + self.attn["proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class DecoderLayer(nn.Module):
    """The stream of the queries; with one layer that of the characters has no effect."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(size, size // 32, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(size, size // 32, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.norm_q, self.norm_c = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, query, content, memory, mask, padding):
        keys = self.norm_c(content)
        query = query + self.self_attn(self.norm_q(query), keys, keys, attn_mask=mask, key_padding_mask=padding)[0]
        query = query + self.cross_attn(self.norm1(query), memory, memory)[0]
        return query + self.linear2(F.gelu(self.linear1(self.norm2(query))))


class Parseq(nn.Module):
    """baudm/parseq: the end is id 0, then the characters, then start and padding; images of 128 x 32 px."""

    def __init__(self, size: int = 384, depth: int = 12, classes: int = 95, length: int = 25) -> None:
        super().__init__()
        self.size, self.classes, self.length = size, classes, length
        self.encoder = nn.Module()
        self.encoder.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size, (4, 8), (4, 8))})
        self.encoder.pos_embed = nn.Parameter(torch.randn(1, 128, size) * 0.5)
        self.encoder.blocks = nn.ModuleList(Block(size) for _ in range(depth))
        self.encoder.norm = nn.LayerNorm(size, eps=1e-6)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList([DecoderLayer(size)])
        self.decoder.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, classes)
        self.text_embed = nn.ModuleDict({"embedding": nn.Embedding(classes + 2, size)})
        self.pos_queries = nn.Parameter(torch.randn(1, length + 1, size))

    def encode(self, images):
        patches = self.encoder.patch_embed["proj"](images).flatten(2).mT
        return self.encoder.norm(nn.Sequential(*self.encoder.blocks)(patches + self.encoder.pos_embed))

    def decode(self, given, memory, queries, mask=None, padding=None):
        """`given` begins with the start; what is True in a mask is not seen."""
        content = self.text_embed["embedding"](given) * self.size**0.5
        content[:, 1:] += self.pos_queries[:, : given.shape[1] - 1]
        queries = queries.expand(len(given), -1, -1)
        return self.head(self.decoder.norm(self.decoder.layers[0](queries, content, memory, mask, padding)))

    def forward(self, images, refinements=1):
        memory = self.encode(images)
        start = torch.full((len(images), 1), self.classes)
        given = start
        steps = []
        for step in range(self.length + 1):
            steps.append(self.decode(given, memory, self.pos_queries[:, step : step + 1]))
            given = torch.cat([given, steps[-1].argmax(-1)], 1)
        logits = torch.cat(steps, 1)
        for _ in range(refinements):
            given = torch.cat([start, logits[:, :-1].argmax(-1)], 1)
            behind = (given == 0).cumsum(-1) > 0
            itself = torch.ones(self.length + 1, self.length + 1).diagonal_scatter(torch.zeros(self.length), 1) == 0
            logits = self.decode(given, memory, self.pos_queries, itself, behind)
        return logits


def network(**settings):
    """With weights under which images differ and their texts end, some sooner than others."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = Parseq(**settings).eval()
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if "norm" in name or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            attention = theirs.decoder.layers[0].cross_attn
            for weight in (
                theirs.encoder.patch_embed["proj"].weight,
                attention.in_proj_weight,
                attention.out_proj.weight,
            ):
                weight.mul_(4.0)
            theirs.head.bias[0] += 0.6
    return theirs


def small(**settings):
    return network(**{"size": 64, "depth": 2, **settings})


def images(count):
    patches = torch.rand(count, 3, 8, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return patches.repeat_interleave(4, 2).repeat_interleave(8, 3)


def texts_of(logits):
    """Ids up to the first end."""
    best = logits[:, :-1].argmax(-1)
    return best.masked_fill((best == 0).cumsum(-1) > 0, 0)


def save(content, path):
    torch.save(content, path)  # noqa: TID251  such files are what is converted
    return path


def assert_reads_the_same(model, theirs, batch):
    with torch.no_grad():
        for refinements in (0, 1, 2):
            model.config.num_refinements = refinements
            found, expected = model(batch).logits, theirs(batch, refinements)
            texts = texts_of(expected)
            lengths = (texts != 0).sum(-1)
            if refinements == 0:  # what is asked for behind the end is another thing there
                counted = torch.arange(found.shape[1]) <= lengths[:, None]
                found, expected = found[counted], expected[counted]
            torch.testing.assert_close(found, expected, **TOLERANCE)
            read = model.recognize(batch).sequences
            assert torch.equal(F.pad(read, (0, texts.shape[1] - read.shape[1])), texts)
    return lengths


@pytest.mark.slow
@pytest.mark.parametrize(("size", "parameters"), [(192, 6_018_143), (384, 23_832_671)])
def test_the_published_network_reads_the_same(size, parameters, tmp_path, capsys):
    theirs = network(size=size)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == parameters
    save(theirs.state_dict(), tmp_path / "weights.pt")
    assert main(["convert", "parseq", str(tmp_path / "weights.pt"), str(tmp_path / "folder")]) == 0
    assert capsys.readouterr().err == ""
    model = AutoModelForTextRecognition.from_pretrained(tmp_path / "folder")
    assert_reads_the_same(model, theirs, images(2))
    processor = AutoProcessor.from_pretrained(tmp_path / "folder")
    assert "".join(processor.tokenizer.alphabet) == string.digits + string.ascii_letters + string.punctuation
    assert processor(images=[torch.zeros(50, 400)], return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 128)
    assert "baudm/parseq" in (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")


def test_greedy_reading_and_refinement_give_the_same_logits(tmp_path):
    theirs = small()
    model, _, left_out = read_parseq(save(theirs.state_dict(), tmp_path / "weights.pt"))
    lengths = assert_reads_the_same(model, theirs, images(8))
    assert len(set(lengths.tolist())) > 2 and lengths.min() > 0 and left_out == ()


def test_checkpoints_of_the_trainer_and_other_sizes(tmp_path):
    theirs = small(classes=37, length=7)
    state = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "hyper_parameters": {"charset_train": "any"}}
    model, processor, _ = read_parseq(save(content, tmp_path / "last.ckpt"))
    assert "".join(processor.tokenizer.alphabet) == string.digits + string.ascii_lowercase
    assert model.config.max_label_length == 7
    images_here = processor.image_processor
    assert (images_here.min_width, images_here.max_width, images_here.resample) == (128, 128, Image.Resampling.BICUBIC)
    assert_reads_the_same(model, theirs, images(3))


def test_what_no_text_can_hold_is_left_out(tmp_path):
    theirs = small(classes=5)  # K is the Kelvin sign, which normal form C makes the letter K
    path = save(theirs.state_dict(), tmp_path / "weights.pt")
    conversion = convert_parseq(path, tmp_path / "folder", "b\N{KELVIN SIGN}a ", torch.float16)
    assert conversion.left_out == ("\N{KELVIN SIGN}",)
    model = AutoModelForTextRecognition.from_pretrained(tmp_path / "folder")
    assert model.config.vocab_size == 4
    rows = theirs.head.weight[[0, 1, 3, 4]]
    torch.testing.assert_close(model.decoder.classifier.weight, rows, atol=1e-3, rtol=1e-3)
    rows = theirs.text_embed["embedding"].weight[[5, 1, 3, 4]]
    torch.testing.assert_close(model.decoder.embedding.weight, rows, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("encoder.blocks.1.mlp.fc1.bias"),
            r"has no encoder\.blocks\.1\.mlp\.fc1\.bias of shape \(256\)",
        ),
        (lambda s: s.update({"decoder.layers.1.norm1.bias": torch.ones(64)}), "1 tensors more"),
        (lambda s: s.update({"encoder.cls_token": torch.ones(1, 1, 64)}), "1 tensors more"),
        (lambda s: s.update({"encoder.pos_embed": torch.ones(1, 100, 64)}), "for 100 patches of 4 x 8"),
        (lambda s: s.update({"encoder.norm.weight": torch.ones(60)}), "vectors of 60 units"),
        (lambda s: s.update({"head.bias": torch.full((95,), torch.nan)}), "NaN or infinite"),
        (lambda s: s.update({"head.weight": torch.ones(96, 64)}), r"of 96 outputs.*have 36 or 62 or 94"),
        (lambda s: s.update({"text_embed.embedding.weight": torch.ones(95, 64)}), r"\(95, 64\), expected \(97, 64\)"),
        (lambda s: s.update({"pos_queries": torch.ones(1, 1, 64)}), "max_label_length is 0"),
        (lambda s: s.clear(), r"has no encoder\.norm\.weight"),
    ],
)
def test_another_network_is_named(change, message, tmp_path):
    state = dict(small().state_dict())
    change(state)
    with pytest.raises(ConversionError, match=message):
        read_parseq(save(state, tmp_path / "weights.pt"))
