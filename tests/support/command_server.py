"""Run commands and programs in forks of one process that has imported what they import, which takes seconds.

``python -m support.command_server SOCKET`` serves; the programs that `write_programs` makes ask it. Each command is a
process of its own, with the folder, the environment and the standard streams of whoever started it.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

_PROGRAM = """#!{python} -SE
import json, os, socket, sys
arguments = [{name!r}, *sys.argv[1:]]
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = {{"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\\n")
    sys.exit(int(server.recv(16) or b"1"))
"""


def write_programs(folder, address):
    """Write the programs ``biounet`` and ``python`` into a folder."""
    for name in ("biounet", "python"):
        program = Path(folder, name)
        program.write_text(_PROGRAM.format(python=sys.executable, name=name, address=str(address)))
        program.chmod(0o755)


def serve(address):
    """Serve until the process is ended."""
    import biounet.api
    import biounet.batch
    import biounet.cli.commands
    import biounet.training
    import biounet.training.loop  # noqa: F401 - for the forks

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        print("ready", flush=True)  # noqa: T201 - to whoever started it
        while True:
            connection = server.accept()[0]
            if os.fork() == 0:
                server.close()
                _answer(connection)
            connection.close()
            while _has_ended_child():
                pass


def _has_ended_child():
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _answer(connection):
    """Do what is asked in this process, send the exit code and end."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate("rww"))  # noqa: PTH123, SIM115
    request = json.loads(connection.makefile("rb").readline())
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        code = _run(request["arguments"])
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        code = _exit_code(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(code)


def _run(arguments):
    name, *rest = arguments
    if name == "biounet":
        from biounet.cli.commands import main

        sys.argv = arguments
        main()
    code = rest[1] if rest[0] == "-c" else Path(rest[0]).read_text(encoding="utf-8")
    sys.argv = rest
    exec(compile(code, rest[0], "exec"), {"__name__": "__main__"})
    return 0


def _exit_code(error):
    if isinstance(error, SystemExit):
        return int(error.code or 0)
    import traceback

    traceback.print_exception(error)
    return 1


if __name__ == "__main__":
    serve(sys.argv[1])
