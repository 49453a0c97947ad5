"""Runs ``python ...`` and ``hypvl ...`` of the docs in forks of one process that has imported torch and hypvl.

A documented command is run by bash, where ``python`` and ``hypvl`` are small programs (:func:`install`) that hand their
arguments, folder, environment and streams to this process. A fork of it runs them as Python does, without the seconds
that importing takes: a page has dozens of commands.
"""

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

_CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"program": {program!r}, "words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
message = json.dumps(request).encode()
socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
server.sendall(message)
answer = server.recv(16)
raise SystemExit(int(answer) if answer else 139)
"""


def install(folder: Path, address: Path) -> None:
    """Write the programs ``python`` and ``hypvl`` into a folder that is put into PATH."""
    for program in ("python", "hypvl"):
        path = folder / program
        path.write_text(
            _CLIENT.format(python=sys.executable, address=str(address), program=program), encoding="utf-8"
        )
        path.chmod(0o755)


def serve(address: Path) -> None:
    """Answer requests until the process is ended."""
    import torch

    import hypvl.cli.evaluate
    import hypvl.cli.train
    import hypvl.evaluation.retrieval
    import hypvl.evaluation.zero_shot  # noqa: F401  # what most commands import
    from tests.docs.named_models import use_named_models

    torch.set_num_threads(1)
    use_named_models()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(client)
            client.close()
            _reap()


def _reap() -> None:
    """Collect the forks that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _answer(client: socket.socket) -> None:
    """Run one request in this fork, and end it."""
    head, streams, _, _ = socket.recv_fds(client, 8, 3)
    size, message = int.from_bytes(head, "big"), b""
    while len(message) < size:
        message += client.recv(1 << 16)
    request = json.loads(message)
    for stream, own in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, own)
    sys.stdout, sys.stderr = (
        os.fdopen(1, "w"),
        os.fdopen(2, "w", buffering=1),
    )  # those of the server were of files
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    code = _code_of(request["program"], request["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(str(code).encode())
    os._exit(code)


def _code_of(program: str, words: list[str]) -> int:
    try:
        if program == "hypvl":
            words = ["-m", "hypvl", *words]
        if words[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *words[2:]], ""
            exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], str(Path.cwd())
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does at the end of a program
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
