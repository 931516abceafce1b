"""Writes the accelerate configurations with which two machines train one model.

    python scripts/two_nodes.py --main_process_ip 10.0.0.1 --processes_per_node 8 --output_dir nodes

and then, each on its own machine, at the same time and in folders with the same data:

    accelerate launch --config_file nodes/node-0.yaml scripts/finetune.py --train_file lines/ --output_dir runs/mine
    accelerate launch --config_file nodes/node-1.yaml scripts/finetune.py --train_file lines/ --output_dir runs/mine

The first machine is the one at --main_process_ip; the other must reach its port. OUTPUT_DIR of the training must be a
folder that both see: checkpoints are written by the first and read by both. Mixed precision is an option of
finetune.py. On machines without GPUs put `ACCELERATE_USE_CPU=true` before the commands. accelerate asks for the same
settings by `accelerate config`.
"""

import argparse
from pathlib import Path

try:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.utils import ComputeEnvironment, DistributedType
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

NUM_MACHINES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--main_process_ip", required=True, help="of the first machine, as the others see it")
    parser.add_argument("--main_process_port", type=int, default=29500)
    parser.add_argument("--processes_per_node", type=int, default=1, help="GPUs of each machine")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for rank in range(NUM_MACHINES):
        configuration = ClusterConfig(
            compute_environment=ComputeEnvironment.LOCAL_MACHINE,
            # What accelerate calls several processes, one a device, on GPUs and, when told so, on CPUs.
            distributed_type=DistributedType.MULTI_GPU,
            mixed_precision="no",
            use_cpu=False,
            debug=False,
            num_processes=NUM_MACHINES * arguments.processes_per_node,
            machine_rank=rank,
            num_machines=NUM_MACHINES,
            main_process_ip=arguments.main_process_ip,
            main_process_port=arguments.main_process_port,
        )
        path = arguments.output_dir / f"node-{rank}.yaml"
        configuration.to_yaml_file(path)
        print(f"on machine {rank}: accelerate launch --config_file {path} scripts/finetune.py ...")


if __name__ == "__main__":
    main()
