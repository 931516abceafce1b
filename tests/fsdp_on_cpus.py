"""Runs a script under accelerate's FSDP on CPUs, as `accelerate launch --config_file ... fsdp_on_cpus.py SCRIPT ...`.

accelerate keeps FSDP to GPUs, though torch has it by gloo too: its state is told that it has started on them.
"""

import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
