"""Loaded by Dask in each worker of this machine when it starts.

Ctrl-C reaches all processes of a terminal; it is for the one that gives out the tasks, which then ends its workers.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
