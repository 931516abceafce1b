"""MGP-STR under our loop: what is learnt, what is saved, what is refused."""

import pytest
import torch
from tiny_recognizer import lines
from tiny_stock_models import tiny_mgp_str
from transformers import AutoModel, MgpstrForSceneTextRecognition, pipeline

from hf_ocr.cli import main
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.encoder_decoder import decoder_positions, load_recognizer
from hf_ocr.evaluation import evaluate
from hf_ocr.training import TrainingConfig, train

WORDS = ["a", "total12", "invoice", "xyz"]
OTHERS = ["cat", "noon", "total", "in"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_mgp_str(tmp_path_factory.mktemp("mgp-str"), lines(4), WORDS)


@pytest.fixture
def parts(folder, monkeypatch):
    """Model and processor, where the tokenizers of the other heads are found."""
    monkeypatch.chdir(folder.parent)
    model, processor = load_recognizer(folder)
    return model.eval(), processor


def batch_of(processor, texts=WORDS):
    return processor(images=lines(len(texts)), text=texts, return_tensors="pt")


@torch.no_grad()
def losses(model, batch):
    """Of each head, the mean over its symbols."""
    for head, labels in zip(model(batch["pixel_values"]).logits, batch["labels"].unbind(1), strict=True):
        steps = head[:, 1 : labels.shape[1] + 1].transpose(1, 2)
        yield torch.nn.functional.cross_entropy(steps, labels)


def test_labels_are_those_of_three_heads_and_end_once(parts):
    _, processor = parts
    characters, pairs, pieces = processor(text=["total", "a"])["labels"].unbind(1)
    vocabulary = processor.tokenizer.get_vocab()
    assert characters.tolist()[0] == [*(vocabulary[c] for c in "total"), 1]
    assert characters.tolist()[1] == [vocabulary["a"], 1, *[-100] * 4]
    assert processor.bpe_tokenizer.convert_ids_to_tokens(pairs[0, :4]) == ["to", "t", "a", "l"]
    assert pairs[0].tolist()[4:] == [2, -100]
    assert processor.wp_tokenizer.convert_ids_to_tokens(pieces[0, :4]) == ["t", "##o", "##tal", "[SEP]"]
    assert pieces[0].tolist()[4:] == [-100, -100]
    assert "".join(processor.tokenizer.alphabet) == "0123456789abcdefghijklmnopqrstuvwxyz"
    assert decoder_positions(parts[0]) == 13


def test_the_loss_is_that_of_each_line_in_each_head(parts):
    model, processor = parts
    batch = batch_of(processor)
    with torch.no_grad():
        output, stock = model(**batch), model(batch["pixel_values"])
        alone = [model(**{name: tensor[row : row + 1] for name, tensor in batch.items()}).loss for row in range(4)]
    torch.testing.assert_close(output.loss, sum(alone) / 4, rtol=1e-3, atol=1e-4)
    expected = 0.0
    for head, labels in zip(stock.logits, batch["labels"].unbind(1), strict=True):
        for logits, row in zip(head, labels, strict=True):
            ids = row[row != -100]
            expected -= logits.log_softmax(-1)[range(1, len(ids) + 1), ids].sum() / len(ids) ** 0.5 / 4
    torch.testing.assert_close(output.loss, expected)
    assert torch.equal(output.logits, stock.logits[0][:, 1:])
    assert output.logit_lengths.tolist() == [2, 8, 8, 4]


def test_lines_longer_than_the_positions_or_without_a_label_are_skipped(parts):
    model, processor = parts
    batch = batch_of(processor, ["a", "b" * 13, "b" * 12])
    output = model(**batch)
    assert int(output.skipped) == 1
    kept = model(batch["pixel_values"][[0, 2]], batch["labels"][[0, 2], :, :13]).loss
    torch.testing.assert_close(output.loss, kept, rtol=1e-3, atol=1e-4)
    batch["labels"][1] = -100
    output = model(**batch)
    assert int(output.skipped) == 1
    torch.testing.assert_close(output.loss, kept, rtol=1e-3, atol=1e-4)


def test_a_stock_checkpoint_learns_with_all_heads_and_is_one_afterwards(parts, folder, tmp_path):
    model, processor = parts
    rows = [{"image": image, "text": text} for image, text in zip(lines(4), OTHERS, strict=True)]
    batch = batch_of(processor, OTHERS)
    for layer in model.vocabulary_layers():  # fitted to four images: every step of the rest would upset them
        torch.nn.init.normal_(layer.weight, std=0.02)
    before = [float(loss) for loss in losses(model, batch)]
    settings = TrainingConfig(
        str(tmp_path), max_steps=60, save_steps=60, learning_rate=3e-3, weight_decay=0.0, average_decay=0.5
    )
    train(model, processor, LineChunks([Source(rows)], processor, lines_per_chunk=8, batches_per_chunk=2), settings)
    stock = AutoModel.from_pretrained(tmp_path / "final")
    assert type(stock) is MgpstrForSceneTextRecognition
    again, processor = load_recognizer(tmp_path / "final")
    after = [float(loss) for loss in losses(again.eval(), batch)]
    assert all(late < early / 2 for early, late in zip(before, after, strict=True)), (before, after)
    read = pipeline("image-to-text", model=str(tmp_path / "final"))
    texts = [found[0]["generated_text"] for found in read(lines(4))]
    assert texts == [line.prediction for line in evaluate(again, processor, rows).predictions]


def test_without_the_tokenizers_of_others_nothing_is_trained(folder):
    with pytest.raises(
        ValueError, match=r"learns with three heads, and the tokenizers openai-community/gpt2 .*Download"
    ):
        load_recognizer(folder)


def test_lora_is_for_encoder_decoders(folder):
    with pytest.raises(ValueError, match=r"lora_rank is 2, but .* is no encoder-decoder"):
        load_recognizer(folder, lora_rank=2)


def test_inspect_knows_its_characters_and_positions(parts, folder, tmp_path, capsys):
    (tmp_path / "lines").mkdir()
    for name, text in (("a", "total12"), ("b", "Total 12"), ("c", "a" * 14)):
        lines(1)[0].save(tmp_path / "lines" / f"{name}.png")
        (tmp_path / "lines" / f"{name}.gt.txt").write_text(text)
    assert main(["inspect", str(tmp_path / "lines"), "--model", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "1 texts with characters outside the alphabet: 'T' (U+0054, 1 times), ' ' (U+0020, 1 times)" in out
    assert f"{'a' * 14!r} is 15 tokens, the decoder has 13" in out
