"""Stock encoder-decoders under our loop: what is refused, what is learnt, what is saved."""

import copy

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from tiny_stock_models import tiny_donut, tiny_trocr
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForImageTextToText,
    GPT2Config,
    MBartConfig,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
    pipeline,
)

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.encoder_decoder import EncoderDecoderProcessor, EncoderDecoderRecognizer, load_recognizer
from hf_ocr.evaluation import evaluate
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.training import TrainingConfig, train

WORDS = ["cat", "noon", "12", "tree"]


def drawn(word):
    image = Image.new("L", (64, 64), 255)
    ImageDraw.Draw(image).text((4, 16), word, fill=0, font=ImageFont.load_default(24))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_trocr(tmp_path_factory.mktemp("trocr"), [drawn("cat")], ["dog"])


@pytest.fixture(scope="module")
def donut(tmp_path_factory):
    return tiny_donut(tmp_path_factory.mktemp("donut"), [drawn("cat")], ["dog"])


def gpt2(vocab_size):
    return GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=16, add_cross_attention=True,
                      tie_word_embeddings=True)  # fmt: skip


def trocr(vocab_size):
    return TrOCRConfig(vocab_size=vocab_size, d_model=32, decoder_layers=1, decoder_attention_heads=2,
                       decoder_ffn_dim=32, max_position_embeddings=16, cross_attention_hidden_size=32)  # fmt: skip


def mbart(vocab_size):
    return MBartConfig(vocab_size=vocab_size, d_model=32, decoder_layers=1, decoder_attention_heads=2,
                       decoder_ffn_dim=32, max_position_embeddings=16, is_encoder_decoder=False)  # fmt: skip


def untied_trocr(vocab_size):
    config = trocr(vocab_size)
    config.tie_word_embeddings = False
    return config


def encoder_decoder(decoder, tokenizer):
    """A ViT with this decoder, under an alphabet of ours."""
    encoder = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        image_size=32, patch_size=8)  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder(len(tokenizer)))
    model = VisionEncoderDecoderModel(config)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = tokenizer.bos_token_id
        settings.pad_token_id, settings.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model.tie_weights()
    return model


def characters(alphabet="act"):
    return CharacterTokenizer.from_alphabet(alphabet, bos_token="<s>", eos_token="</s>")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora_rank"), [("folder", 0), ("folder", 8), ("donut", 0)])
def test_a_stock_checkpoint_learns_and_is_one_afterwards(request, kind, tmp_path, lora_rank):
    if lora_rank:
        pytest.importorskip("peft")
    model, processor = load_recognizer(request.getfixturevalue(kind), lora_rank)
    rows = [{"image": drawn(word), "text": word} for word in WORDS]
    batch = processor(images=[row["image"] for row in rows], text=WORDS, return_tensors="pt")
    before = float(model.eval()(**batch).loss)
    chunks = LineChunks([Source(rows)], processor, lines_per_chunk=16, batches_per_chunk=2)
    settings = TrainingConfig(
        str(tmp_path), max_steps=60, save_steps=60, learning_rate=1e-2, weight_decay=0.0, average_decay=0.8
    )
    train(model, processor, chunks, settings)
    again, processor = load_recognizer(tmp_path / "final")
    assert float(again.eval()(**batch).loss) < before / 2
    report = evaluate(again, processor, rows)
    read = pipeline("image-to-text", model=str(tmp_path / "final"))
    texts = [found[0]["generated_text"] for found in read([row["image"] for row in rows])]
    assert texts == [prediction.prediction for prediction in report.predictions]


@pytest.mark.slow
def test_a_vit_joined_with_gpt2_learns_to_end(tmp_path):
    """As README joins them: one token starts, ends and fills."""
    alphabet = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    own = Tokenizer(BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    own.pre_tokenizer, own.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    for part in (
        encoder_decoder(gpt2, tokenizer), tokenizer, ViTImageProcessor(size={"height": 32, "width": 32})
    ):  # fmt: skip
        part.save_pretrained(tmp_path / "joined")
    model, processor = load_recognizer(tmp_path / "joined")
    rows = [{"image": drawn(word), "text": word} for word in WORDS]
    chunks = LineChunks([Source(rows)], processor, lines_per_chunk=16, batches_per_chunk=2, few_shapes=True)
    settings = TrainingConfig(str(tmp_path), max_steps=200, save_steps=200, learning_rate=5e-3, average_decay=0.8)
    train(model, processor, chunks, settings)
    report = evaluate(*load_recognizer(tmp_path / "final"), rows)
    assert [prediction.prediction for prediction in report.predictions] == WORDS


def test_what_no_decoder_asks_is_not_trained(folder):
    """Several processes would wait for its gradients."""
    model, processor = load_recognizer(folder)
    model(**processor(images=[drawn(WORDS[0])], text=WORDS[:1], return_tensors="pt")).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_the_loss_is_that_of_each_line_and_tokens_are_shifted_once(folder):
    model, processor = load_recognizer(folder)
    batch = processor(images=[drawn(word) for word in WORDS], text=WORDS, return_tensors="pt")
    assert batch["labels"].tolist()[2][-3:] == [2, -100, -100]  # one end, then padding
    model.eval()
    with torch.no_grad():
        output = model(**batch)
        stock = model.model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss
        lines = [
            model(**{name: tensor[row : row + 1] for name, tensor in batch.items()}).loss for row in range(len(WORDS))
        ]
    torch.testing.assert_close(output.loss, sum(lines) / len(lines))
    valid = batch["labels"] != -100
    tokens = torch.nn.functional.cross_entropy(output.logits[valid], batch["labels"][valid])
    torch.testing.assert_close(tokens, stock)  # transformers' own shift and mean over tokens


def test_lines_longer_than_the_decoder_are_skipped(folder):
    model, processor = load_recognizer(folder)
    batch = processor(images=[drawn("a")] * 2, text=["a" * 40, "a"], return_tensors="pt")
    output = model.eval()(**batch)
    assert int(output.skipped) == 1
    alone = model(batch["pixel_values"][1:], batch["labels"][1:, :2])
    torch.testing.assert_close(output.loss, alone.loss)


@pytest.mark.parametrize("kind", ["folder", "donut"])
@pytest.mark.parametrize(
    ("name", "where", "value", "cure"),
    [
        ("decoder_start_token_id", "generation_config", None, "Expected one id in both: .*Set both"),
        ("decoder_start_token_id", "config", 2, "Expected one id in both: .*Set both"),
        ("decoder_start_token_id", "both", None, "Expected the id with which the decoder .*Set it there"),
        ("decoder_start_token_id", "both", 9, "Expected a special token: .*set the id"),
        ("eos_token_id", "generation_config", 1, "Expected one id in both: set "),
        (
            "pad_token_id",
            "generation_config",
            None,
            "Expected one id in both: .*tokenizer.pad_token = ",
        ),
    ],
)
def test_parts_that_disagree_are_refused_with_the_cure(request, kind, name, where, value, cure):
    model, processor = load_recognizer(request.getfixturevalue(kind))
    stock = copy.deepcopy(model.model)
    for settings in ("config", "generation_config"):
        if where in ("both", settings):
            setattr(getattr(stock, settings), name, value)
    with pytest.raises(ValueError, match=rf"{name} is .*{value}.* {cure}"):
        EncoderDecoderRecognizer(stock, processor.tokenizer)


def test_a_tokenizer_of_another_checkpoint_is_refused():
    with pytest.raises(ValueError, match=r"the tokenizer has 8 symbols, but the decoder has 6"):
        EncoderDecoderRecognizer(encoder_decoder(gpt2, characters()), characters("abcde"))


@pytest.mark.parametrize("decoder", [gpt2, trocr, mbart, untied_trocr])
def test_an_alphabet_of_ours_is_resized_in_embedding_and_head(decoder, tmp_path):
    tokenizer = characters()
    model = EncoderDecoderRecognizer(encoder_decoder(decoder, tokenizer), tokenizer)
    old = [layer.weight.detach().clone() for layer in model.vocabulary_layers()]
    resized = resize_alphabet(model, tokenizer, "catz")
    embedding, head = model.vocabulary_layers()
    assert (head.weight is embedding.weight) == (decoder is not untied_trocr)
    for layer, before in zip((embedding, head), old, strict=True):
        assert torch.equal(layer.weight[:6], before) and len(layer.weight) == 7
    assert model.config.decoder.vocab_size == 7 == len(resized)
    image_processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor = EncoderDecoderProcessor(image_processor, resized)
    batch = processor(images=[drawn("z")], text=["cz"], return_tensors="pt")
    output = model.eval()(**batch)
    output.loss.backward()
    assert output.logits.shape[-1] == 7
    assert embedding.weight.grad[resized.label_ids("z")[0]].any() and head.weight.grad.any()
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(EncoderDecoderRecognizer(again, resized).eval()(**batch).logits, output.logits)


def test_a_stock_tokenizer_has_no_alphabet_to_resize(folder):
    model, processor = load_recognizer(folder)
    assert set("abc 019") < set(processor.tokenizer.alphabet) and "ß" not in processor.tokenizer.alphabet
    with pytest.raises(ValueError, match="expected a CharacterTokenizer"):
        resize_alphabet(model, processor.tokenizer, "ß")


def test_lora_is_for_encoder_decoders_and_only_its_matrices_learn(folder):
    pytest.importorskip("peft")
    model, _ = load_recognizer(folder, lora_rank=2)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    from hf_ocr.registration import default_checkpoint

    with pytest.raises(ValueError, match="lora_rank is 2"):
        load_recognizer(default_checkpoint(), lora_rank=2)


def test_what_is_saved_is_stock(folder, tmp_path):
    model, processor = load_recognizer(folder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is VisionEncoderDecoderModel
