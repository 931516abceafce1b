"""Weights of which each process keeps a part: what the training loop has to know of accelerate's FSDP, version 2."""

import warnings
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["part_like", "set_up_sharding", "whole", "whole_view"]


def set_up_sharding(plugin: Any) -> None:
    """Make accelerate's plugin shard any recognizer, in place.

    Args:
        plugin: `accelerator.state.fsdp_plugin`.

    Raises:
        ValueError: settings that the training loop cannot keep.
    """
    expected = {
        "fsdp_version": (plugin.fsdp_version, 2),
        # Process 0 alone would load the weights, and accelerate then shares out no buffers, which batch norms have.
        "fsdp_cpu_ram_efficient_loading": (bool(plugin.cpu_ram_efficient_loading), False),
        "fsdp_offload_params": (isinstance(plugin.cpu_offload, CPUOffloadPolicy), False),
        "fsdp_activation_checkpointing": (bool(plugin.activation_checkpointing), False),
    }
    wrong = {name: (seen, right) for name, (seen, right) in expected.items() if seen != right}
    if wrong:
        found = ", ".join(f"{name} {seen} (expected {right})" for name, (seen, right) in wrong.items())
        raise ValueError(
            f"accelerate is configured for FSDP with {found}. Change it in the file of `accelerate config`, or choose "
            "plain data parallelism (distributed_type: MULTI_GPU): these models fit on any device. What "
            "fsdp_activation_checkpointing is for, gradient_checkpointing does here."
        )
    # One unit: decoders are asked for more than `forward`, and layers sharded by themselves are whole only there. The
    # moving average is whole in every process anyway.
    plugin.auto_wrap_policy = None
    # Autocast instead, as without sharding: batch norms with weights in bf16 and statistics in float32 do not compute.
    plugin.mixed_precision_policy = None
    # Logits are views; what torch warns of, that they are written into, is done nowhere here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor; every process must call it. Another tensor comes back as it is."""
    return cast(Any, tensor.detach()).full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """What this process keeps of a tensor that is whole in all, sharded as `like`; the tensor, where that is not."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole_view(module: torch.nn.Module) -> Any:
    """What `AveragedModel.update_parameters` takes of a module: its parameters, each whole, and its buffers."""
    return SimpleNamespace(parameters=lambda: map(whole, module.parameters()), buffers=module.buffers)
