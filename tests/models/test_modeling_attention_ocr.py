"""Attention OCR: what its papers state, the decoder's parts, padding, labels, reading, long lines."""

import itertools
import random

import pytest
import torch
from contracts.tiny_configs import tiny_batch, tiny_model
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.models import beam_search
from hf_ocr.models.attention_decoder import AttentionDecoder, _characters_begun
from hf_ocr.models.configuration_attention_ocr import AttentionOcrConfig
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.ctc_prefix_scores import CtcPrefixScores
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

LABELS = torch.tensor([[1, 2, 2, 5], [3, 4, -100, -100]])


def tiny(**kwargs) -> AttentionOcrForTextRecognition:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 7,
        "image_height": 32,
        "conv_channels": [4] * 8,
        "lstm_hidden_size": 6,
        "decoder_hidden_size": 10,
        "attention_size": 8,
    } | kwargs
    model = AttentionOcrForTextRecognition(AttentionOcrConfig.small(**settings)).eval()
    for module in model.modules():  # fresh statistics would hide a wrong order of norm and mask
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_trba_has_the_parameters_of_its_authors():
    """49.56 M at 38 classes; the parts as in the authors' code."""
    model = AttentionOcrForTextRecognition(AttentionOcrConfig.trba())
    encoder = model.attention_ocr
    assert count(encoder.rectifier) == 1_692_392
    assert count(encoder.crnn.convolutions) == 44_263_904
    assert count(encoder.crnn.lstms) + count(encoder.crnn.projections) + count(encoder.projection) == 2_892_288
    assert count(model.decoder) == 706_598
    assert count(model) == 49_555_182
    assert encoder.frame_count(100) == 26 and encoder.frame_count(320) == 81


@pytest.mark.parametrize("lighter", [{}, {"conv_ranks": [None, *[2] * 7], "lstm_projection": True}])
def test_small_begins_with_the_encoder_of_a_crnn(lighter):
    settings = {"vocab_size": 7, "conv_channels": [4] * 8, "lstm_hidden_size": 6, **lighter}
    crnn = CrnnForTextRecognition(CrnnConfig.small(**settings)).eval()
    model = AttentionOcrForTextRecognition.from_crnn(crnn, attention_size=8).eval()
    small = AttentionOcrForTextRecognition(AttentionOcrConfig.small(attention_size=8, **settings))
    assert {name: t.shape for name, t in model.state_dict().items()} == {
        name: t.shape for name, t in small.state_dict().items()
    }
    images = torch.randn(2, 1, 40, 90)
    assert torch.equal(model(images).logits, crnn(images).logits)
    assert not any(a is b for a in model.parameters() for b in crnn.parameters())


PARTS = {
    "small": {},
    "heads": {"num_attention_heads": 2},
    "plain": {"ctc_weight": 0.0, "location_kernel": 0},
    "rectifier": {"rectifier_points": 6},
    "residual": {"residual_blocks": [0, 1, 0, 2, 0, 0, 0, 0], "conv_bias": False, "feature_projection": True},
}


@pytest.mark.parametrize("settings", PARTS.values(), ids=PARTS)
def test_padding_changes_no_logit_of_the_decoder(settings):
    model = tiny(**settings)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, 32, 70, generator=generator)
    rubbish = torch.randn(1, 1, 32, 37, generator=generator)
    batch = torch.cat([torch.cat([image, rubbish], dim=-1), torch.randn(1, 1, 32, 107, generator=generator)])
    with torch.no_grad():
        alone = model(image, labels=LABELS[:1], output_attentions=True)
        together = model(batch, torch.tensor([70, 107]), labels=LABELS, output_attentions=True)
    torch.testing.assert_close(together.decoder_logits[:1], alone.decoder_logits, atol=1e-5, rtol=0)
    attention = together.cross_attentions[0][:1]
    frames = alone.cross_attentions[0].shape[-1]
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    assert not attention[..., frames:].any()


@pytest.mark.parametrize("settings", PARTS.values(), ids=PARTS)
def test_every_part_learns_and_reads(settings):
    model = tiny(**settings)
    if model.decoder.precision is not None:  # fresh weights count so many characters that the end is out of sight
        nn.init.constant_(model.decoder.precision, -9.0)
    images = torch.randn(2, 1, 32, 90)
    model(images, labels=LABELS).loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle
    greedy, beams = model.recognize(images), model.recognize(images, num_beams=3)
    assert (beams.scores >= greedy.scores * 0.999).all()
    output = model(images)
    if settings.get("ctc_weight") == 0.0:  # the decoder's logits are the model's
        assert output.logit_lengths.tolist() == [int((row != 0).sum()) + 1 for row in greedy.sequences]
    else:
        assert output.logits.shape == (2, 23, 7) and output.decoder_logits is None


def test_a_plain_step_is_the_papers():
    """Additive attention, and an LSTM cell of the context beside the one-hot of the last symbol."""
    torch.manual_seed(0)
    config = AttentionOcrConfig.small(
        vocab_size=5, lstm_hidden_size=3, decoder_hidden_size=4, attention_size=8, location_kernel=0, ctc_weight=0.0
    )
    decoder = AttentionDecoder(config).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter)
    cell = nn.LSTMCell(6 + 5, 4)
    cell.load_state_dict(
        {
            "weight_ih": torch.cat([decoder.context_gates.weight, decoder.symbol_gates.weight.T], dim=1),
            "weight_hh": decoder.hidden_gates.weight,
            "bias_ih": decoder.context_gates.bias,
            "bias_hh": decoder.hidden_gates.bias,
        }
    )
    features = torch.randn(2, 9, 6)
    symbols = torch.tensor([[0, 3, 1], [0, 2, 2]])
    with torch.no_grad():
        logits, attentions = decoder(decoder.remember(features, torch.tensor([9, 9]), None), symbols)
        state = (torch.zeros(2, 4), torch.zeros(2, 4))
        for step in range(3):
            hidden = decoder.key.weight @ features.transpose(1, 2) + decoder.query(state[0])[:, :, None]
            weights = (decoder.energy @ hidden.tanh()).softmax(-1)
            torch.testing.assert_close(attentions[:, :, step], weights)
            context = (weights @ features)[:, 0]
            one_hot = nn.functional.one_hot(symbols[:, step], 5).float()
            state = cell(torch.cat([context, one_hot], dim=1), state)
            torch.testing.assert_close(logits[:, step], decoder.classifier(state[0]))


def test_the_ctc_head_counts_characters():
    """Equal symbols beside each other are one character, with a blank between them two; padding counts none."""
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 0, 0], [2, 2, 0, 0, 0, 1, 1, 1]])
    logits = 50.0 * nn.functional.one_hot(path, 4).float()
    counts = _characters_begun(logits, torch.tensor([8, 5]))
    expected = [[0, 1, 1, 1, 2, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1, 1, 1, 1]]
    torch.testing.assert_close(counts, torch.tensor(expected).float())


def test_attention_goes_on_by_a_character_and_then_to_the_end():
    """With no other preference, and a sharp count, each step looks at the next character, the last behind the image."""
    model = tiny()
    decoder = model.decoder
    with torch.no_grad():
        decoder.energy.zero_()
        decoder.precision.fill_(100.0)
        path = torch.tensor([[0, 1, 0, 0, 0, 0, 2, 3]])
        memory = decoder.remember(
            torch.randn(1, 8, 12), torch.tensor([8]), 50.0 * nn.functional.one_hot(path, 7).float()
        )
        _, attentions = decoder(memory, torch.tensor([[0, 1, 2, 3]]))
    looked_at = (attentions[0, 0] > 0.01).tolist()
    assert [[frame for frame, seen in enumerate(step) if seen] for step in looked_at] == [
        [1, 2, 3, 4, 5],
        [6],
        [7],
        [8],
    ]


def test_loss_is_the_stated_mean():
    model = tiny()
    images = torch.randn(2, 1, 32, 80)
    with torch.no_grad():
        output = model(images, labels=LABELS)
        weight, model.config.ctc_weight = model.config.ctc_weight, 0.0
        alone = model(images, labels=LABELS)
    losses = []
    for row, label in enumerate(([1, 2, 2, 5, 0], [3, 4, 0])):
        log_probs = output.decoder_logits[row].log_softmax(-1)
        losses.append(-sum(log_probs[step, symbol] for step, symbol in enumerate(label)) / len(label) ** 0.5)
    torch.testing.assert_close(alone.loss, sum(losses) / 2)
    ctc = [
        nn.functional.ctc_loss(
            output.logits[row : row + 1].log_softmax(-1).transpose(0, 1),
            label,
            (20,),
            (label.shape[1],),
            reduction="sum",
        )
        / label.shape[1] ** 0.5
        for row, label in enumerate((LABELS[:1], LABELS[1:, :2]))
    ]
    torch.testing.assert_close(output.loss, (1 - weight) * alone.loss + weight * sum(ctc) / 2)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
@pytest.mark.parametrize(
    ("label", "message"), [([1] * 9, "frames"), ([1, 7], "outside the alphabet"), ([], "no characters")]
)
def test_bad_labels_are_an_error_or_counted_and_skipped(label, message, ctc_weight):
    labels = torch.tensor([[1, 2, 3] + [-100] * 6, label + [-100] * (9 - len(label))])
    images = torch.randn(2, 1, 32, 64)  # 16 frames; nine equal characters need 17
    with pytest.raises(ValueError, match=message):
        tiny(ctc_weight=ctc_weight)(images, labels=labels)
    model = tiny(ctc_weight=ctc_weight, invalid_labels="skip", empty_labels="skip")
    output = model(images, labels=labels)
    assert output.skipped == 1
    assert output.decoder_logits.shape[1] == 4  # of the others alone
    torch.testing.assert_close(output.loss, model(images[:1], labels=labels[:1]).loss)
    alone = model(images[1:], labels=labels[1:])
    assert alone.loss == 0 and alone.skipped == 1
    alone.loss.backward()


def test_generate_reads_what_recognize_reads_and_gives_attentions():
    model = tiny_model(AttentionOcrForTextRecognition)
    inputs = tiny_batch(AttentionOcrForTextRecognition, 2)
    found = model.recognize(**inputs).sequences
    output = model.generate(
        **inputs, max_new_tokens=60, output_attentions=True, output_scores=True, return_dict_in_generate=True
    )
    assert torch.equal(output.sequences[0, 1 : found.shape[1] + 1], found[0])
    weights = model(**inputs, output_attentions=True).cross_attentions[0]
    torch.testing.assert_close(output.cross_attentions[3][0][:, :, 3], weights[:, :, 3])
    assert model.generate(**inputs, max_new_tokens=5, num_beams=3, num_return_sequences=2).shape == (4, 6)


@torch.no_grad()
def test_reading_joins_the_decoder_with_ctc():
    """Each step is that of the decoder and that of CTC's prefixes to the power of their shares, normalised."""
    model = tiny(ctc_weight=0.4)
    images = torch.randn(2, 1, 32, 60)
    greedy = model.recognize(images)
    found = [greedy, model.recognize(images, num_beams=3), model.recognize(images, lexicon=torch.tensor([[3, 1, 4]]))]
    for read, row in itertools.product(found, range(2)):
        memory = model.remember(images[row : row + 1])
        scores = CtcPrefixScores(memory.ctc_logits, memory.lengths)
        text = read.sequences[row][read.sequences[row] != 0]
        logits, _ = model.decoder(memory, nn.functional.pad(text, (1, 0))[None])
        prefixes, total = scores.start(), 0.0
        for step, symbol in enumerate([*text.tolist(), 0]):
            ctc = scores.next_log_probs(prefixes)[0, 0]
            joint = (0.6 * logits[0, step].log_softmax(-1) + 0.4 * ctc).log_softmax(-1)
            if read is greedy and step < int(memory.lengths):
                assert joint.argmax() == symbol
            total = total + joint[symbol]
            prefixes = scores.extend(prefixes, torch.tensor([[symbol]]))
        torch.testing.assert_close(read.scores[row].log(), total, atol=1e-4, rtol=1e-4)


def test_a_lexicon_is_read_in_parts(monkeypatch):
    model = tiny()
    images = torch.randn(3, 1, 32, 90)
    lexicon = torch.tensor([[1, 2, 0], [3, 0, 0], [6, 5, 4], [0, 0, 0], [2, 2, 2]])
    whole = model.recognize(images, lexicon=lexicon)
    monkeypatch.setattr(beam_search, "LEXICON_ROWS", 6)
    parts = model.recognize(images, lexicon=lexicon)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name])
    with pytest.raises(ValueError, match="no words"):
        model.recognize(images, lexicon=lexicon[:0])


def test_a_grown_alphabet_reads_as_before():
    tokenizer = CharacterTokenizer.from_alphabet("abcdef")
    model = tiny()
    images = torch.randn(3, 1, 32, 90)
    with torch.no_grad():
        before = model(images, labels=LABELS.new_tensor([[1, 2], [3, 4], [5, 6]])).decoder_logits
        resized = resize_alphabet(model, tokenizer, "aé")
        after = model(images, labels=LABELS.new_tensor([[1, 2], [3, 4], [5, 6]])).decoder_logits
    assert model.config.vocab_size == len(resized) == 8
    assert [len(layer.weight) for layer in model.vocabulary_layers()] == [8, 8, 8]
    # The count of characters is that of a softmax with one symbol more.
    torch.testing.assert_close(after[..., :7], before, atol=0.05, rtol=0)


def test_folded_copy_reads_the_same_and_leaves_the_model_alone():
    model = tiny(rectifier_points=6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(2, 1, 32, 80)
    reader = model.reading_copy(torch.float32)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in reader.attention_ocr.crnn.modules())
    with torch.no_grad():
        expected = model(images, labels=LABELS).decoder_logits
        torch.testing.assert_close(reader(images, labels=LABELS).decoder_logits, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rectifier_points": 5}, "even"),
        ({"rectifier_points": 2}, "at least 4"),
        ({"location_kernel": 4}, "odd"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number from 1 to 64"),
        ({"attention_size": "128"}, "attention_size is '128'"),
        ({"ctc_weight": float("nan")}, "ctc_weight is nan"),
        ({"eos_token_id": 5}, "eos_token_id is 5"),
        ({"decoder_hidden_size": 4096, "vocab_size": 100_000}, "parameters, expected at most"),
        ({"ctc_weight": 1.0}, "below 1"),
        ({"num_attention_heads": 3}, "divisor"),
        ({"image_height": 64}, "AttentionOcrConfig: the trunk reduces"),
        ({"residual_blocks": [1]}, "one entry"),
    ],
)
def test_configuration_names_what_does_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        AttentionOcrConfig(**settings)


def written(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    image = Image.new("L", (round(font.getlength(text)) + 16, 26), 255)
    ImageDraw.Draw(image).text((8, -3), text, fill=0, font=font)
    return image


@pytest.mark.slow
def test_it_reads_lines_more_than_twice_as_long_as_any_it_learnt_from():
    """Repetitions and gaps among them, on which attention is known to lose its place."""
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=32), CharacterTokenizer.from_alphabet("ab10 "))
    font = ImageFont.load_default(24)
    draw = random.Random(0)
    torch.manual_seed(0)
    model = AttentionOcrForTextRecognition(
        AttentionOcrConfig.small(
            vocab_size=6,
            image_height=32,
            conv_channels=[8, 8, 16, 16, 24, 24, 24, 24],
            lstm_hidden_size=24,
            decoder_hidden_size=32,
            attention_size=16,
            dropout=0.0,
        )
    ).train()

    def text(length: int) -> str:
        return " ".join("".join(draw.choice("aabb1100 ") for _ in range(length)).split()) or "a"

    steps, rate = 600, 8e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1)
    for _ in range(steps):
        texts = [text(draw.randint(1, 8)) for _ in range(16)]
        inputs = processor(images=[written(one, font) for one in texts], text=texts, return_tensors="pt")
        model(**inputs).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    for lengths in ((1, 8), (17, 24)):
        texts = [text(draw.randint(*lengths)) for _ in range(40)] + ["a" * lengths[1], "10" * (lengths[1] // 2)]
        inputs = processor(images=[written(one, font) for one in texts], return_tensors="pt")
        read = processor.batch_decode(model.eval().recognize(**inputs).sequences)
        wrong = [pair for pair in zip(texts, read, strict=True) if pair[0] != pair[1]]
        assert len(wrong) <= (0 if lengths[0] == 1 else 2), wrong
