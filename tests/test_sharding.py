"""Which configurations of FSDP are refused. test_finetune.py trains with sharded weights."""

import pytest
from accelerate import FullyShardedDataParallelPlugin

from hf_ocr.sharding import set_up_sharding

KEPT = {"fsdp_version": 2, "cpu_ram_efficient_loading": False}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"fsdp_version": 1, "sync_module_states": False}, r"fsdp_version 1 \(expected 2\)"),
        ({"cpu_ram_efficient_loading": True}, r"fsdp_cpu_ram_efficient_loading True \(expected False\)"),
        ({"cpu_offload": True}, r"fsdp_offload_params True \(expected False\)"),
        ({"activation_checkpointing": True}, r"fsdp_activation_checkpointing True \(expected False\)"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused_with_the_cure(setting, said):
    with pytest.raises(ValueError, match=f"configured for FSDP with {said}. Change it"):
        set_up_sharding(FullyShardedDataParallelPlugin(**KEPT | setting))


def test_a_model_is_one_unit_in_the_precision_of_its_weights():
    plugin = FullyShardedDataParallelPlugin(
        **KEPT, auto_wrap_policy="transformer_based_wrap", mixed_precision_policy="bf16"
    )
    set_up_sharding(plugin)
    assert plugin.auto_wrap_policy is None and plugin.mixed_precision_policy is None
