"""Models of transformers itself, built small: TrOCR, Donut, MGP-STR, and a model that chats about images."""

import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Fuse
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import BPE, WordLevel, WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Split
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    DonutImageProcessor,
    DonutProcessor,
    DonutSwinConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MBartConfig,
    MgpstrConfig,
    MgpstrForSceneTextRecognition,
    MgpstrTokenizer,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    TrOCRProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)
from transformers.modeling_outputs import BaseModelOutput


def _tokenizer(*more: str) -> PreTrainedTokenizerFast:
    symbols = ["<pad>", "<s>", "</s>", *more, *"abcdefghijklmnopqrstuvwxyz 0123456789"]
    tokenizer = Tokenizer(WordLevel({symbol: index for index, symbol in enumerate(symbols)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", additional_special_tokens=more
    )


def _teach(model: VisionEncoderDecoderModel, pixel_values: torch.Tensor, sequences: torch.Tensor) -> None:
    """The decoder learns whole sequences of ids, the start among them, padded with 0; the encoder stays random."""
    with torch.no_grad():
        seen = model.eval().encoder(pixel_values).last_hidden_state
    seen = BaseModelOutput(seen.repeat(len(sequences) // len(seen), 1, 1))
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=5e-3)
    labels = sequences[:, 1:].masked_fill(sequences[:, 1:] == 0, -100)
    for _ in range(150):
        optimizer.zero_grad()
        logits = model(encoder_outputs=seen, decoder_input_ids=sequences[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels).backward()
        optimizer.step()


def tiny_trocr(folder: Path, images: list[Image.Image], texts: list[str], positions: int = 24) -> Path:
    """A `VisionEncoderDecoderModel`, taught in a second to read these images."""
    tokenizer = _tokenizer()
    encoder = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    decoder = TrOCRConfig(
        vocab_size=len(tokenizer), d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
        max_position_embeddings=positions, use_learned_position_embeddings=True, cross_attention_hidden_size=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, dropout=0.0,
    )  # fmt: skip
    image_processor = ViTImageProcessor(size={"height": 32, "width": 32})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
        for settings in (model.config, model.generation_config):
            settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, 2
        pixel_values = image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        sequences = tokenizer([f"<s>{text}</s>" for text in texts], padding=True, return_tensors="pt")["input_ids"]
        _teach(model, pixel_values, sequences)
    model.save_pretrained(folder)
    TrOCRProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    image_processor.save_pretrained(folder)
    return folder


def tiny_donut(folder: Path, images: list[Image.Image], texts: list[str]) -> Path:
    """A Donut, taught to read these images: after "<s_ocr>", its start, whole, after "<s_parts>" in tagged halves.

    That is `<s_head>...</s_head><s_tail>...</s_tail>`; these tags are added tokens, and no special ones.
    """
    tokenizer = _tokenizer("<s_ocr>", "<s_parts>")
    tokenizer.add_tokens(["<s_head>", "</s_head>", "<s_tail>", "</s_tail>"])
    encoder = DonutSwinConfig(
        image_size=[32, 64], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4,
        drop_path_rate=0.0,
    )  # fmt: skip
    decoder = MBartConfig(
        vocab_size=len(tokenizer), d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
        max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, dropout=0.0, scale_embedding=True,
        is_decoder=True, is_encoder_decoder=False, add_cross_attention=True,
    )  # fmt: skip
    image_processor = DonutImageProcessor(size={"height": 32, "width": 64})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
        for settings in (model.config, model.generation_config):
            settings.decoder_start_token_id = tokenizer.convert_tokens_to_ids("<s_ocr>")
            settings.pad_token_id, settings.eos_token_id = 0, 2
        pixel_values = image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
        tagged = [f"<s_parts><s_head>{head}</s_head><s_tail>{tail}</s_tail></s>" for head, tail in halves]
        sequences = [*(f"<s_ocr>{text}</s>" for text in texts), *tagged]
        sequences = tokenizer(sequences, padding=True, return_tensors="pt")["input_ids"]
        _teach(model, pixel_values, sequences)
    model.save_pretrained(folder)
    DonutProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def tiny_chat_model(folder: Path) -> Path:
    """A LLaVA: a vision-language model with a chat template."""
    tokenizer = _tokenizer("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=16,
            patch_size=8, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}",
    ).save_pretrained(folder)
    return folder


def tiny_mgp_str(folder: Path, images: list[Image.Image], texts: list[str]) -> Path:
    """An MGP-STR with heads that read these images, at most four words of a-z and 0-9, in FOLDER/model.

    Beside it lie tiny tokenizers under the names of those of GPT-2 and BERT: from this working directory they are
    found. The head of the byte pairs reads "1" where the others read "l", and is less sure than they.
    """
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(["[GO]", "[s]", *alphabet])}))
    characters = MgpstrTokenizer(str(folder / "vocab.json"))
    pairs = Tokenizer(BPE({c: i for i, c in enumerate([*'!"#', *alphabet, "to", "in"])}, [("t", "o"), ("i", "n")]))
    pairs.pre_tokenizer, pairs.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    bpe = PreTrainedTokenizerFast(tokenizer_object=pairs)
    unused = [f"[unused{index}]" for index in range(99)]
    symbols = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", *alphabet, *(f"##{c}" for c in alphabet), "##tal"]
    pieces = Tokenizer(WordPiece({symbol: i for i, symbol in enumerate(symbols)}, unk_token="[UNK]"))
    pieces.pre_tokenizer, pieces.decoder = BertPreTokenizer(), WordPieceDecoder()
    bert = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    bpe.save_pretrained(folder / "openai-community" / "gpt2")
    bert.save_pretrained(folder / "google-bert" / "bert-base-uncased")
    config = MgpstrConfig(
        image_size=[32, 64], patch_size=8, hidden_size=128, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1.0,
        max_token_length=14, num_character_labels=len(characters), num_bpe_labels=len(bpe),
        num_wordpiece_labels=len(bert), initializer_range=0.2,
    )  # fmt: skip
    image_processor = ViTImageProcessor(size={"height": 32, "width": 64}, do_normalize=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MgpstrForSceneTextRecognition(config)
        pixel_values = image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        seen = {}
        heads = [
            (model.char_head, characters, 1, texts),
            (model.bpe_head, bpe, 2, [text.replace("l", "1") for text in texts]),
            (model.wp_head, bert, 102, texts),
        ]
        for layer, *_ in heads:
            layer.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0]}))
        with torch.no_grad():
            model.eval()(pixel_values)
            for layer, tokenizer, end, spelt in heads:
                wanted = torch.zeros(len(texts), config.max_token_length, layer.out_features)
                for row, text in zip(wanted, spelt, strict=True):
                    ids = [end, *tokenizer(text, add_special_tokens=False)["input_ids"]]
                    ids += [end] * (len(row) - len(ids))
                    row[range(len(row)), ids] = 6.0 if tokenizer is bpe else 8.0
                features = seen[layer].flatten(0, 1).double()
                layer.weight.copy_(torch.linalg.lstsq(features, wanted.flatten(0, 1).double()).solution.T)
                layer.bias.zero_()
    model.save_pretrained(folder / "model")
    characters.save_pretrained(folder / "model")
    image_processor.save_pretrained(folder / "model")
    return folder / "model"
