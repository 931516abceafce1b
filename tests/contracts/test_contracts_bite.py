"""Each contract finds the fault it is there for, planted into a real tiny model."""

import pytest
from contracts import faults_of_networks, faults_of_texts_and_files
from contracts.planting import FAULTS
from contracts.test_model_contract import QUICK, SLOW, name
from contracts.tiny_configs import FEW, tiny_model

from hf_ocr import MODEL_CLASSES

assert faults_of_networks and faults_of_texts_and_files  # imported, they are in FAULTS


def bites(planted, model_class):
    plant, contract, message = FAULTS[planted]
    tiny_model(model_class)  # built, and kept, before the fault is there
    tiny_model(model_class, vocab_size=FEW)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception, match=message):
        plant(patch, model_class)
        contract(model_class)


@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("planted", [key for key, (_, contract, _) in FAULTS.items() if contract in QUICK])
def test_a_contract_bites(planted, model_class):
    bites(planted, model_class)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("planted", [key for key, (_, contract, _) in FAULTS.items() if contract in SLOW])
def test_a_slow_contract_bites(planted, model_class):
    bites(planted, model_class)


def test_every_contract_has_a_fault():
    contracts = {contract for _, contract, _ in FAULTS.values()}
    assert contracts == {*QUICK, *SLOW}
