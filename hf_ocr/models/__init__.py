"""The recognizers: everything a checkpoint needs, in one flat folder that is copied beside the weights."""

from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.modeling_parseq import ParseqForTextRecognition
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition
from hf_ocr.models.modeling_vision_text import VisionTextForTextRecognition

MODEL_CLASSES = (
    CrnnForTextRecognition,
    PpOcrForTextRecognition,
    AttentionOcrForTextRecognition,
    VisionTextForTextRecognition,
    ParseqForTextRecognition,
)
