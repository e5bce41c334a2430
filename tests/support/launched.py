"""Functions run in several processes as ``torchrun`` runs them, with its environment and its store."""

import multiprocessing
import os
import traceback


def run_launched(function, size, *arguments, timeout=120):
    """Run ``function(*arguments)`` in each of `size` processes; return their exit codes.

    A process that has not ended after `timeout` seconds is killed, and its exit code is -9.
    """
    from torch.distributed import TCPStore

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["biounet.training.loop", "biounet.cli.commands", "support.trainings"])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    calls = [(function, rank, size, store.port, arguments) for rank in range(size)]
    processes = [context.Process(target=_run, args=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _run(function, rank, size, port, arguments):
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    import torch

    torch.set_num_threads(1)
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        raise
