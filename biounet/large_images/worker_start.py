"""Loaded by Dask in each worker of this machine when it starts.

Ctrl-C reaches all processes of a terminal; it is for the one that gives out the tasks, which then ends its workers.
"""

import atexit
import os
import signal
import threading


def _load_libraries() -> None:
    import biounet.large_images.stages  # noqa: F401


signal.signal(signal.SIGINT, signal.SIG_IGN)
# This takes seconds, in which the scheduler starts and the scale of the image is found.
threading.Thread(target=_load_libraries, daemon=True).start()
# What a worker has done lies on the disk when it ends; to take down all libraries would take seconds.
atexit.register(os._exit, 0)
