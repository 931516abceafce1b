"""Text recognition for transformers: models, processors and a pipeline that read images of text lines.

Importing the package registers its classes with transformers, and does nothing else.
"""

from hf_ocr.models import MODEL_CLASSES
from hf_ocr.models.configuration_attention_ocr import AttentionOcrConfig
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.configuration_parseq import ParseqConfig
from hf_ocr.models.configuration_pp_ocr import PpOcrConfig
from hf_ocr.models.configuration_vision_text import VisionTextConfig
from hf_ocr.models.image_loading import ImageError, load_image
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition, AttentionOcrModel
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition, CrnnModel
from hf_ocr.models.modeling_outputs import Recognition, TextRecognitionOutput
from hf_ocr.models.modeling_parseq import ParseqForTextRecognition, ParseqModel
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition, PpOcrModel
from hf_ocr.models.modeling_vision_text import VisionTextForTextRecognition, VisionTextModel
from hf_ocr.models.pipeline_text_recognition import TextRecognitionPipeline
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.registration import checkpoint, register
from hf_ocr.text import LATIN_ALPHABET

__version__ = "0.1.0"

__all__ = [
    "LATIN_ALPHABET",
    "MODEL_CLASSES",
    "AttentionOcrConfig",
    "AttentionOcrForTextRecognition",
    "AttentionOcrModel",
    "CharacterTokenizer",
    "CrnnConfig",
    "CrnnForTextRecognition",
    "CrnnModel",
    "ImageError",
    "ParseqConfig",
    "ParseqForTextRecognition",
    "ParseqModel",
    "PpOcrConfig",
    "PpOcrForTextRecognition",
    "PpOcrModel",
    "Recognition",
    "TextLineImageProcessor",
    "TextRecognitionOutput",
    "TextRecognitionPipeline",
    "TextRecognitionProcessor",
    "VisionTextConfig",
    "VisionTextForTextRecognition",
    "VisionTextModel",
    "checkpoint",
    "load_image",
    "register",
]

register()
