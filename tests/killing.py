"""Killing a run as a power cut does: every process of it at once."""

import subprocess

import psutil


def kill_all(process: subprocess.Popen) -> None:
    """This process and all below it. No process group holds them: torch gives each worker a session of its own."""
    launched = psutil.Process(process.pid)
    running = [launched, *launched.children(recursive=True)]
    for each in running:
        each.kill()
    process.wait()
    psutil.wait_procs(running)
