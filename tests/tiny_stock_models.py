"""Models of transformers itself, built small: an encoder-decoder as TrOCR is, and a model that chats about images."""

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    TrOCRProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)


def _tokenizer(*more: str) -> PreTrainedTokenizerFast:
    symbols = ["<pad>", "<s>", "</s>", *more, *"abcdefghijklmnopqrstuvwxyz 0123456789"]
    tokenizer = Tokenizer(WordLevel({symbol: index for index, symbol in enumerate(symbols)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", additional_special_tokens=more
    )


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
        labels = tokenizer([f"{text}</s>" for text in texts], padding=True, return_tensors="pt")["input_ids"]
        labels = labels.masked_fill(labels == 0, -100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            model(pixel_values=pixel_values, labels=labels).loss.backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    TrOCRProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    image_processor.save_pretrained(folder)
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
