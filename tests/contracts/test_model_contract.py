"""Every family keeps every contract; none may declare an exception."""

import pytest
from contracts import errors, invariance, learning, persistence, readings, tensors, travel
from contracts.tiny_configs import tiny_config

from hf_ocr import MODEL_CLASSES

QUICK = (
    *tensors.CONTRACTS,
    *invariance.CONTRACTS,
    *persistence.CONTRACTS,
    *readings.CONTRACTS,
    *errors.CONTRACTS,
)
SLOW = (*learning.CONTRACTS, *travel.CONTRACTS)


def name(item):
    return item.__name__


@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("contract", QUICK, ids=name)
def test_contract(contract, model_class):
    contract(model_class)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("contract", SLOW, ids=name)
def test_slow_contract(contract, model_class):
    contract(model_class)


def test_a_class_without_a_tiny_configuration_fails_by_name():
    class NovelForTextRecognition:
        pass

    with pytest.raises(KeyError, match="NovelForTextRecognition: no entry in TINY_CONFIGS"):
        tiny_config(NovelForTextRecognition)
