"""What the family states: its sizes, the orders it learns in, what each place is told, one width for every image."""

import pytest
import torch
from contracts.tiny_configs import tiny_batch, tiny_config, tiny_model, tiny_processor
from PIL import Image

from hf_ocr import ParseqConfig, ParseqForTextRecognition, TextLineImageProcessor
from hf_ocr.encoder_decoder import decoder_positions
from hf_ocr.models.line_preparation import DOUBTFUL
from hf_ocr.models.parseq_layers import stretched
from hf_ocr.models.reading import read_images

LABELS = torch.tensor([[1, 2, 3, -100], [4, 4, -100, -100], [9, 8, 9, 7]])


def model_and_inputs(count=3):
    return tiny_model(ParseqForTextRecognition), tiny_batch(ParseqForTextRecognition, count)


@pytest.mark.parametrize(("config", "millions"), [(ParseqConfig.tiny(), 6.0), (ParseqConfig.small(), 23.8)])
def test_the_published_sizes(config, millions):
    with torch.device("meta"):
        model = ParseqForTextRecognition(config)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


def told(model, length):
    """What each place is told in each order, {order: {place: characters}}."""
    ranks = model._orders(length, torch.device("cpu"))
    return [
        {place: set((order < order[place]).nonzero()[:, 0].tolist()) for place in range(length + 1)} for order in ranks
    ]


def test_orders_are_learnt_with_their_reverse():
    model, _ = model_and_inputs()
    assert told(model, 4) == [{place: set(range(place)) for place in range(5)}]  # in eval mode
    with torch.random.fork_rng():
        torch.manual_seed(0)
        orders = told(model.train(), 4)
        assert len(orders) == 6 and orders[0][3] == {0, 1, 2}
        assert orders[1] == {place: set(range(place + 1, 5)) for place in range(5)}  # the end knows nothing
        for one, other in zip(orders[2:4], orders[4:], strict=True):
            for place in range(4):
                assert one[place] | other[place] == set(range(4)) - {place} and not one[place] & other[place]
        assert told(model, 4)[2:] != orders[2:], "the orders are not drawn anew"
        torch.manual_seed(0)
        assert told(model, 4) == orders, "the seed does not decide about the orders"


def test_the_loss_in_training_is_the_mean_over_its_orders():
    """Against each order asked for by itself, in which a label has no longer neighbour and no padding."""
    model, inputs = model_and_inputs()
    model.config.num_permutations = 4
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        found = model.train()(**inputs, labels=LABELS).loss
        torch.manual_seed(0)
        orders = told(model, 4)
        image = model.decoder.look_at(model.parseq(**inputs).last_hidden_state)
        lines = []
        for row, label in enumerate(LABELS):
            text = label[label > 0][None]
            length = text.shape[1]
            places = torch.arange(length + 1)
            total = 0.0
            for number, order in enumerate(orders):
                seen = torch.tensor(
                    [[[other in order[place] for other in range(length)] for place in range(length + 1)]]
                )
                if number == 1:
                    seen = (places[:-1] > places[:, None])[None]
                own = tuple(part[row : row + 1] for part in image)
                steps = -model.decoder(text, places, seen, own)[0][0].log_softmax(-1)
                total += steps[range(length), text[0]].sum() + (steps[length, 0] if number < 2 else 0.0)
            lines.append(total / 4 / (length + 1) ** 0.5)
    torch.testing.assert_close(found, torch.stack(lines).mean())


@pytest.mark.parametrize("place", [0, 2, 5])
def test_refining_a_character_does_not_look_at_it(place):
    model, inputs = model_and_inputs()
    image = model.decoder.look_at(model.parseq(**inputs).last_hidden_state)
    texts = torch.tensor([[1, 2, 3, 4, 5, 6]] * 3)
    changed = texts.clone()
    changed[:, place] = 9
    before, after = (model._refined(image, these, None)[0] for these in (texts, changed))
    torch.testing.assert_close(before[:, place], after[:, place])
    for other in {0, 2, 5} - {place}:
        assert (before[:, other] - after[:, other]).abs().min() > 0


def test_refining_mends_what_was_read():
    """By itself, with symbols that are allowed alone, and never with beams."""
    model, inputs = model_and_inputs(6)
    once = model.recognize(**inputs).sequences
    allowed = [1, 2, 3]
    assert set(model.recognize(**inputs, allowed_ids=allowed).sequences.unique().tolist()) <= {0, *allowed}
    beams = model.recognize(**inputs, num_beams=3).sequences
    model.config.num_refinements = 0
    assert not torch.equal(model.recognize(**inputs).sequences, once)
    assert torch.equal(model.recognize(**inputs, num_beams=3).sequences, beams)


def test_every_image_is_stretched_to_one_width():
    """As the processor does it from the file, but for Pillow's 8 bits."""
    image = Image.effect_noise((90, 32), 60).convert("RGB")
    settings = {"height": 32, "num_channels": 3}
    own = TextLineImageProcessor(**settings)([image], return_tensors="pt")
    one = TextLineImageProcessor(**settings, min_width=128, max_width=128)([image], return_tensors="pt")
    assert own["widths"].tolist() == [90] and one["widths"].tolist() == [128]
    found = stretched(torch.nn.functional.pad(own["pixel_values"], (0, 30), value=9.0), own["widths"], 128)
    torch.testing.assert_close(found, one["pixel_values"], atol=0.01, rtol=0)
    assert stretched(one["pixel_values"], one["widths"], 128) is one["pixel_values"]


def test_labels_that_are_too_long():
    model, inputs = model_and_inputs(2)
    most = model.config.max_label_length
    assert decoder_positions(model) == most
    labels = torch.full((2, most + 1), -100)
    labels[0], labels[1, :3] = 1, torch.tensor([1, 1, 2])
    with pytest.raises(ValueError, match=f"row 0 has more characters.* for {most} characters"):
        model(**inputs, labels=labels)
    model.config.invalid_labels = "skip"
    with torch.no_grad():
        output = model(**inputs, labels=labels)
        alone = model(**{name: tensor[1:] for name, tensor in inputs.items()}, labels=labels[1:, :3])
    assert int(output.skipped) == 1
    torch.testing.assert_close(output.loss, alone.loss)
    labels[0, -1] = -100  # equal neighbours need nothing between them
    assert int(model(**inputs, labels=labels).skipped) == 0


def test_words_that_are_too_long_are_never_read():
    model, inputs = model_and_inputs(2)
    most = model.config.max_label_length
    words = torch.tensor([[1] * (most + 2), [2, 3] + [0] * most])
    assert model.recognize(**inputs, lexicon=words).sequences.tolist() == [[2, 3]] * 2
    with pytest.raises(ValueError, match=f"no words of at most {most} characters"):
        model.recognize(**inputs, lexicon=words[:1])
    with pytest.raises(ValueError, match="smaller max_length"):
        model(**inputs, decoder_input_ids=torch.zeros(2, most + 2, dtype=torch.int64))


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model, inputs = model_and_inputs()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model.train()(**inputs, labels=LABELS).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_fresh_weights_have_the_deviation_of_the_configuration():
    model = ParseqForTextRecognition(ParseqConfig.tiny(encoder_layers=1))
    for parameter in (model.parseq.positions, model.decoder.positions, model.decoder.classifier.weight):
        assert parameter.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_permutations": 3}, "num_permutations is 3, expected 1 or an even number"),
        ({"image_width": 130}, "image_width is 130, expected a multiple of 8"),
        ({"hidden_size": 200}, "hidden_size is 200, expected a multiple of 6"),
        ({"hidden_size": 4096, "num_attention_heads": 8, "decoder_attention_heads": 8}, "parameters"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        ParseqConfig(**settings)


def test_a_doubtful_word_is_read_once(monkeypatch):
    model, _ = model_and_inputs()
    batches = []
    recognize = model.recognize
    monkeypatch.setattr(model, "recognize", lambda *args, **kwargs: batches.append(args) or recognize(*args, **kwargs))
    (reading,) = read_images(model, tiny_processor(ParseqForTextRecognition), [Image.effect_noise((200, 32), 90)])
    assert reading.score ** (1 / max(len(reading.text), 1)) < DOUBTFUL
    assert len(batches) == 1


def test_spans_go_along_with_the_width_of_the_image():
    model, _ = model_and_inputs()
    processor = tiny_processor(ParseqForTextRecognition)
    image = Image.effect_noise((200, 32), 90)
    found = model.recognize(**processor(images=[image], return_tensors="pt"))
    assert found.character_spans.max() > tiny_config(ParseqForTextRecognition).image_width / 2
    assert found.character_spans.max() <= 200


def test_generate_ends_where_places_do():
    model = tiny_model(ParseqForTextRecognition)
    with torch.no_grad():
        model.vocabulary_layers()[0].bias[0] -= 100  # no text ends by itself
    assert model.generate(**tiny_batch(ParseqForTextRecognition)).shape[1] == model.config.max_label_length + 1
