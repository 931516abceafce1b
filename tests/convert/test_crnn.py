"""CRNNs of other projects: the network of each, built from its published layers, gives the same logits here."""

import string

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForTextRecognition, AutoProcessor

from hf_ocr.cli import main
from hf_ocr.convert.conversion import ConversionError
from hf_ocr.convert.crnn import DOCTR, FORMS, convert_crnn, read_crnn
from hf_ocr.convert.torch_weights import read_tensors
from hf_ocr.models.reading import _characters, _Line, _without_outer_spaces

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


class LstmAndLinear(nn.Module):
    """A bidirectional LSTM and a linear layer, which each project names in its own way; (T, B, C)."""

    def __init__(self, size: int, hidden: int, out: int, linear: str) -> None:
        super().__init__()
        self.rnn = nn.LSTM(size, hidden, bidirectional=True)
        setattr(self, linear, nn.Linear(2 * hidden, out))
        self.linear_name = linear

    def forward(self, frames):
        return getattr(self, self.linear_name)(self.rnn(frames)[0])


class CrnnPytorch(nn.Module):
    """meijieru/crnn.pytorch: norms behind convolutions 2, 4, 6; the last pools 2 x 2, stride (2, 1), padding (0, 1)."""

    def __init__(self, classes: int = 37, channels: int = 1, hidden: int = 256, width: int = 64) -> None:
        super().__init__()
        self.cnn = nn.Sequential()
        last, pools = channels, {0: ((2, 2), (2, 2), 0), 1: ((2, 2), (2, 2), 0)}
        pools |= {3: ((2, 2), (2, 1), (0, 1)), 5: ((2, 2), (2, 1), (0, 1))}
        for i, times in enumerate((1, 2, 4, 4, 8, 8, 8)):
            kernel, padding = (2, 0) if i == 6 else (3, 1)
            self.cnn.add_module(f"conv{i}", nn.Conv2d(last, times * width, kernel, 1, padding))
            if i in (2, 4, 6):
                self.cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(times * width))
            self.cnn.add_module(f"relu{i}", nn.ReLU())
            if i in pools:
                self.cnn.add_module(f"pooling{i}", nn.MaxPool2d(*pools[i]))
            last = times * width
        self.rnn = nn.Sequential(
            LstmAndLinear(last, hidden, hidden, "embedding"), LstmAndLinear(hidden, hidden, classes, "embedding")
        )

    def forward(self, images):
        return self.rnn(self.cnn(images).squeeze(2).permute(2, 0, 1)).transpose(0, 1)


class DeepTextRecognition(nn.Module):
    """clovaai/deep-text-recognition-benchmark, None-VGG-BiLSTM-CTC: pools of (2, 1), 5 and 6 without bias."""

    def __init__(self, classes: int = 37, channels: int = 1, hidden: int = 256, width: int = 64) -> None:
        super().__init__()
        convolution, layers = nn.Conv2d, []
        w = width
        layers += [convolution(channels, w, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)]
        layers += [convolution(w, 2 * w, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)]
        layers += [convolution(2 * w, 4 * w, 3, 1, 1), nn.ReLU()]
        layers += [convolution(4 * w, 4 * w, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1))]
        layers += [convolution(4 * w, 8 * w, 3, 1, 1, bias=False), nn.BatchNorm2d(8 * w), nn.ReLU()]
        layers += [convolution(8 * w, 8 * w, 3, 1, 1, bias=False), nn.BatchNorm2d(8 * w), nn.ReLU()]
        layers += [nn.MaxPool2d((2, 1), (2, 1)), convolution(8 * w, 8 * w, 2, 1, 0), nn.ReLU()]
        self.FeatureExtraction = nn.Module()
        self.FeatureExtraction.ConvNet = nn.Sequential(*layers)
        self.SequenceModeling = nn.Sequential(
            LstmAndLinear(8 * w, hidden, hidden, "linear"), LstmAndLinear(hidden, hidden, hidden, "linear")
        )
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, images):
        frames = self.FeatureExtraction.ConvNet(images).mean(2).permute(2, 0, 1)  # the mean of one row
        return self.Prediction(self.SequenceModeling(frames)).transpose(0, 1)


class Doctr(nn.Module):
    """mindee/doctr, crnn_vgg16_bn: VGG-16 with batch norm whose last three pools are (2, 1), two stacked LSTMs."""

    def __init__(self, classes: int = 124, channels: int = 3, hidden: int = 128, width: int = 64) -> None:
        super().__init__()
        layers, last, pools = [], channels, 0
        for entry in (1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool", 8, 8, 8, "pool", 8, 8, 8, "pool"):
            if entry == "pool":
                layers.append(nn.MaxPool2d(2, 2) if pools < 2 else nn.MaxPool2d((2, 1)))
                pools += 1
            else:
                layers += [nn.Conv2d(last, entry * width, 3, 1, 1), nn.BatchNorm2d(entry * width), nn.ReLU()]
                last = entry * width
        self.feat_extractor = nn.Sequential(*layers)
        self.decoder = nn.LSTM(last, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, classes)

    def forward(self, images):
        features = self.feat_extractor(images)  # (B, C, 1, T)
        return self.linear(self.decoder(features.flatten(1, 2).transpose(1, 2))[0])


NETWORKS = {"crnn.pytorch": CrnnPytorch, "dtrb": DeepTextRecognition, "doctr": Doctr}
PARAMETERS = {"crnn.pytorch": 8_331_301, "dtrb": 8_451_621, "doctr": 15_800_000}
WIDTHS = {"crnn.pytorch": 100, "dtrb": 100, "doctr": 128}


def network(name: str, **sizes) -> nn.Module:
    """In eval mode; statistics, scales and a gain by which a wrong order, bias or row shows in the logits."""
    torch.manual_seed(0)
    net = NETWORKS[name](**sizes).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net


def small(name: str, classes: int | None = None, **sizes) -> nn.Module:
    return network(name, **({} if classes is None else {"classes": classes}), hidden=8, width=4, **sizes)


def save(state, path):
    torch.save(state, path)  # noqa: TID251  what these projects publish
    return path


def images(count: int, channels: int, width: int) -> torch.Tensor:
    return torch.rand(count, channels, 32, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def here(logits: torch.Tensor, name: str) -> torch.Tensor:
    """Logits with the blank where it is here: first."""
    return logits.roll(1, -1) if name == "doctr" else logits


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_published_network_gives_the_same_logits(name, tmp_path, capsys):
    theirs = network(name)
    counted = sum(parameter.numel() for parameter in theirs.parameters())
    assert abs(counted - PARAMETERS[name]) <= (0 if name != "doctr" else 50_000)  # docTR rounds to 15.8 M
    save(theirs.state_dict(), tmp_path / "weights.pth")
    assert main(["convert", "crnn", str(tmp_path / "weights.pth"), str(tmp_path / "folder")]) == 0
    assert capsys.readouterr().err == ""
    model = AutoModelForTextRecognition.from_pretrained(tmp_path / "folder")
    batch = images(2, model.config.num_channels, WIDTHS[name])
    with torch.no_grad():
        expected, found = here(theirs(batch), name), model(batch)
        masked = model(batch, torch.full((2,), WIDTHS[name])).logits
    assert expected.std() > 0.02  # the comparison sees something
    torch.testing.assert_close(found.logits, expected, **TOLERANCE)
    torch.testing.assert_close(masked, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "channels"), [("crnn.pytorch", 1), ("crnn.pytorch", 3), ("dtrb", 1), ("dtrb", 3), ("doctr", 3)]
)
def test_other_sizes_widths_and_wrapped_names(name, channels, tmp_path):
    theirs = small(name, channels=channels)
    state = {f"module.{key}": tensor for key, tensor in theirs.state_dict().items()}
    model, processor, _, left_out = read_crnn(save(state, tmp_path / "weights.pth"))
    assert processor.image_processor.num_channels == model.config.num_channels == channels and left_out == ()
    for width in (36, 100, 257):
        batch = images(1, channels, width)
        with torch.no_grad():
            torch.testing.assert_close(model(batch).logits, here(theirs(batch), name), **TOLERANCE)
    narrow = torch.cat([images(1, channels, 60), torch.rand(1, channels, 32, 40)], dim=-1)
    with torch.no_grad():
        masked = model(narrow, torch.tensor([60]))
        expected = here(theirs(narrow[..., :60]), name)
    frames = int(masked.logit_lengths)
    torch.testing.assert_close(masked.logits[:, :frames], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "classes", "alphabet"),
    [
        ("crnn.pytorch", 37, string.digits + string.ascii_lowercase),
        ("dtrb", 37, string.digits + string.ascii_lowercase),
        ("dtrb", 95, string.printable[:-6]),
        ("doctr", 124, string.printable[:-6] + "°àâéèêëîïôùûçÀÂÉÈËÎÏÔÙÛÇ£€¥¢฿"),
        ("doctr", 127, string.printable[:-6] + "°£€¥¢฿àâéèêëîïôùûüçÀÂÉÈÊËÎÏÔÙÛÜÇ"),
    ],
)
def test_published_alphabets_by_the_size_of_the_head(name, classes, alphabet, tmp_path):
    path = save(small(name, classes).state_dict(), tmp_path / "weights.pth")
    processor = read_crnn(path)[1]
    assert "".join(processor.tokenizer.alphabet) == alphabet


def test_an_alphabet_of_ones_own_and_what_no_text_can_hold(tmp_path, capsys):
    theirs = small("doctr", classes=5)  # K is the Kelvin sign, which normal form C makes the letter K
    path = save(theirs.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "alphabet.txt").write_text("b\n\N{KELVIN SIGN}a \n", encoding="utf-8-sig")  # as some editors write
    arguments = ["convert", "crnn", str(path), str(tmp_path / "folder"), "--alphabet", str(tmp_path / "alphabet.txt")]
    assert main(arguments) == 0
    assert "U+212A" in capsys.readouterr().out
    processor = AutoProcessor.from_pretrained(tmp_path / "folder")
    assert processor.tokenizer.alphabet == ["b", "a", " "]
    batch = images(1, 3, 128)
    model = AutoModelForTextRecognition.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        torch.testing.assert_close(model(batch).logits, theirs(batch)[..., [4, 0, 2, 3]], **TOLERANCE)
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    assert "SHA-256" in card and "mindee/doctr" in card and "U+212A" in card and "4 symbols" in card


def test_images_are_prepared_as_there(tmp_path):
    path = save(small("crnn.pytorch").state_dict(), tmp_path / "weights.pth")
    image_processor = read_crnn(path)[1].image_processor
    assert image_processor([torch.zeros(50, 400)], return_tensors="pt")["pixel_values"].shape == (1, 1, 32, 100)
    assert image_processor.resample == 2
    path = save(small("dtrb").state_dict(), tmp_path / "weights.pth")
    assert read_crnn(path)[1].image_processor.resample == 3
    path = save(small("doctr").state_dict(), tmp_path / "weights.pth")
    image_processor = read_crnn(path)[1].image_processor
    image = torch.rand(3, 64, 100, generator=torch.Generator().manual_seed(0))
    found = image_processor([image], return_tensors="pt")
    # docTR: scaled with the aspect kept, padded with zeros on the right, then the mean and deviation of its data.
    scaled = nn.functional.interpolate(image[None], (32, 50), mode="bilinear", antialias=True)
    expected = nn.functional.pad(scaled, (0, 78))
    expected = (expected - torch.tensor(DOCTR.images["mean"]).view(3, 1, 1)) / torch.tensor(DOCTR.images["std"]).view(
        3, 1, 1
    )
    assert found["widths"].tolist() == [128]
    torch.testing.assert_close(found["pixel_values"], expected, atol=0.02, rtol=0)  # Pillow rounds to 8 bits


def test_safetensors_and_half_the_size(tmp_path):
    from safetensors.torch import save_file

    save_file(small("dtrb").half().state_dict(), tmp_path / "weights.safetensors")
    conversion = convert_crnn(tmp_path / "weights.safetensors", tmp_path / "folder", weights_dtype=torch.float16)
    assert conversion.form.startswith("CRNN of clovaai")
    assert AutoModelForTextRecognition.from_pretrained(tmp_path / "folder").dtype == torch.float32


def changed(name: str, change) -> dict[str, torch.Tensor]:
    state = dict(small(name).state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("crnn.pytorch", lambda s: s.pop("cnn.conv3.bias"), r"has no cnn\.conv3\.bias of shape \(16\)"),
        ("crnn.pytorch", lambda s: s.pop("rnn.0.rnn.weight_hh_l0"), r"has no rnn\.0\.rnn\.weight_hh_l0"),
        ("crnn.pytorch", lambda s: s.update(more=torch.ones(1)), "1 tensors more.*more"),
        ("crnn.pytorch", lambda s: s.update({"cnn.conv0.weight": torch.ones(4, 2, 3, 3)}), "takes 2 channels"),
        ("doctr", lambda s: s.update({"feat_extractor.0.weight": torch.ones(4, 1, 3, 3)}), "channels, expected 3"),
        ("dtrb", lambda s: s.update({"Prediction.bias": torch.ones(36)}), r"shape \(36,\), expected \(37\)"),
        ("dtrb", lambda s: s.update({"Prediction.bias": torch.full((37,), torch.nan)}), "NaN or infinite"),
        ("dtrb", lambda s: s.update({"FeatureExtraction.ConvNet.11.bias": torch.ones(32)}), "1 tensors more"),
        ("dtrb", lambda s: s.update({"Transformation.fc1.weight": torch.ones(1)}), "TPS"),
        ("dtrb", lambda s: s.update({"FeatureExtraction.ConvNet.conv0_1.weight": torch.ones(1)}), "ResNet"),
        ("dtrb", lambda s: s.update({"Prediction.attention_cell.i2h.weight": torch.ones(1)}), "attention decoder"),
        ("doctr", lambda s: s.update({"feat_extractor.0.0.weight": torch.ones(1)}), "MobileNetV3"),
        ("doctr", lambda s: s.update({"feat_extractor.0.weight": torch.ones(4, 3, 5, 5)}), r"expected \(any, any, 3"),
        ("doctr", lambda s: s.update({"linear.weight": torch.ones(1).expand(10**6, 16)}), "stored in full"),
        ("doctr", lambda s: s.clear(), "0 tensors"),
        ("doctr", lambda s: s.update(epoch=3), "epoch is no tensor"),
    ],
)
def test_another_network_is_named(name, change, message, tmp_path):
    path = save(changed(name, change), tmp_path / "weights.pth")
    with pytest.raises(ConversionError, match=message):
        read_crnn(path)


@pytest.mark.parametrize("alphabet", ["ab", "aab"])
def test_alphabets_that_do_not_fit(alphabet, tmp_path):
    path = save(small("dtrb", classes=4).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConversionError, match=r"2 characters for a head of 4|'a'.*more than once"):
        read_crnn(path, alphabet)
    with pytest.raises(ConversionError, match=r"published alphabets.*have 36 or 94"):
        read_crnn(path)


def test_no_code_of_a_file_is_run(tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = save({"cnn.conv0.weight": Harmful()}, tmp_path / "weights.pth")
    assert main(["convert", "crnn", str(path), str(tmp_path / "folder")]) == 1
    error = capsys.readouterr().err
    assert "weights.pth: is damaged, or holds more than tensors" in error and error.count("\n") == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "folder").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04" + bytes(40)])
def test_damaged_files(content, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=r"weights\.pth: "):
        read_tensors(tmp_path / "weights.pth")
    with pytest.raises(ConversionError, match="no such file"):
        read_tensors(tmp_path / "nowhere.pth")


def test_an_archive_that_grows_is_refused(tmp_path):
    import zipfile

    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(ConversionError, match="unpack to 10,000,000"):
        read_tensors(path)


def test_each_form_has_its_own_first_tensor():
    assert len({form.first for form in FORMS}) == len(FORMS)


def test_boxes_are_px_of_the_image_and_not_of_its_padding(tmp_path):
    path = save(small("doctr").state_dict(), tmp_path / "weights.pth")
    model, processor, _, _ = read_crnn(path)
    with torch.no_grad():
        model.classifier.weight.normal_(std=50.0)  # so that frames differ
    image = Image.effect_noise((80, 64), 100)  # 40 of the 128 px that are read
    recognition = model.recognize(**processor(images=[image], return_tensors="pt"))
    shown = _without_outer_spaces(processor, recognition, 0)
    places = slice(shown.first, shown.first + len(shown.symbols))
    spans = (2.0 * recognition.character_spans[0, places]).clamp(max=80)  # the image is twice as high as 32 px
    line = _Line(0, 0, image.size, (0, 0, *image.size), torch.zeros(3, 32, 128), 128)
    found = _characters(processor, recognition, 0, shown, line)
    assert len(found) > 2 and spans[0, 0] < 80
    assert [(character.box[0], character.box[2]) for character in found] == [tuple(span) for span in spans.tolist()]
