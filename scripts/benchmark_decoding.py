"""Speed of the text decoder beside `VisionEncoderDecoderModel.generate` of transformers with the same layers.

    python scripts/benchmark_decoding.py --threads 2 --batch_size 32

Both have the encoder of `VisionTextConfig.small()`, and decoders of equal layers, heads and widths: ours with its CTC
head, searched as `recognize` does, and transformers' TrOCR decoder, read by `generate` with its cache. Weights are
random, and neither may end a text before it has the wanted length, so that both take the same steps. Ours by
steps, and where the draft of CTC is what the decoder says, so that one look along it is all. The best of the rounds, in
which they take turns, in seconds of the processor; "decoder alone" is what is left without the time of the encoder.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import TrOCRConfig, TrOCRForCausalLM, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
from transformers.utils import logging

from hf_ocr import LATIN_ALPHABET, VisionTextConfig, VisionTextForTextRecognition
from hf_ocr.models.beam_search import beam_search
from hf_ocr.models.vision_text_search import DecoderSteps
from hf_ocr.record import hardware, versions

SHAPES = {"words": (128, 8), "lines": (480, 40)}  # px at the model's height, characters


def stock_model(ours: VisionTextForTextRecognition) -> VisionEncoderDecoderModel:
    """The same encoder, and a decoder of transformers of the same size."""
    config = ours.config
    decoder = TrOCRConfig(
        vocab_size=config.vocab_size,
        d_model=config.hidden_size,
        decoder_layers=config.decoder_layers,
        decoder_attention_heads=config.num_attention_heads,
        decoder_ffn_dim=config.intermediate_size,
        cross_attention_hidden_size=config.hidden_size,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    both = VisionEncoderDecoderConfig.from_encoder_decoder_configs(config, decoder)
    model = VisionEncoderDecoderModel(config=both, encoder=ours.vision_text, decoder=TrOCRForCausalLM(decoder))
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, 2
    return model


def read(model: VisionTextForTextRecognition, images: torch.Tensor, lengths: torch.Tensor, num_beams: int) -> object:
    """As `recognize`, to a given length."""
    output = model(images)
    start = model.start(output.encoder_last_hidden_state, output.logits, output.logit_lengths)
    return beam_search(DecoderSteps(start(texts=num_beams), num_beams), lengths, num_beams)


def check(model: VisionTextForTextRecognition, images: torch.Tensor, length: int) -> object:
    """As `recognize` where the draft of CTC is what the decoder would say."""
    output = model(images)
    state = model.start(output.encoder_last_hidden_state, output.logits, output.logit_lengths)()
    return state.along(torch.ones(len(images), length, dtype=torch.int64)).max(-1)


def best_seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    found = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 1):  # the first warms up
        for name, call in calls.items():
            start = time.process_time()
            call()
            if number:
                found[name] = min(found[name], time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=hardware()["cores"], help="default: all cores")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--num_beams", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    config = VisionTextConfig.small(vocab_size=len(LATIN_ALPHABET) + 1)
    ours = VisionTextForTextRecognition(config).reading_copy(dtype)
    stock = stock_model(ours).eval().to(dtype)
    torch.nn.init.constant_(ours.decoder.classifier.bias[:1], -1e4)  # no text ends by itself
    print(f"{hardware()['cpu']}, {arguments.threads} threads, {arguments.dtype}, {versions()}")
    print(f"{'':24} {'generate':>9} {'by steps':>18} {'draft right':>18}")
    for name, (width, length) in SHAPES.items():
        images = torch.rand(arguments.batch_size, config.num_channels, config.image_height, width, dtype=dtype) * 2 - 1
        lengths = torch.full((len(images),), length)
        calls = {
            "draft": partial(check, ours, images, length),
            "steps": partial(read, ours, images, lengths, arguments.num_beams),
            "generate": partial(
                stock.generate, pixel_values=images, max_new_tokens=length, min_new_tokens=length,
                num_beams=arguments.num_beams,
            ),
            "encoder": partial(ours.vision_text, images),
        }  # fmt: skip
        with torch.inference_mode():
            seconds = best_seconds(calls, arguments.rounds)
        for what, less in (("whole, images/s", 0.0), ("decoder alone", seconds["encoder"])):
            rates = {reader: len(images) / (seconds[reader] - less) for reader in ("generate", "steps", "draft")}
            shown = [f"{rates[way]:9.1f} ({rates[way] / rates['generate']:5.2f}x)" for way in ("steps", "draft")]
            print(f"{name:6} {what:17} {rates['generate']:9.1f} {shown[0]:>18} {shown[1]:>18}", flush=True)


if __name__ == "__main__":
    main()
