"""Processes that do a studio's jobs, beside the one that serves its page; one that ends is replaced."""

import logging
import subprocess
import threading
from collections.abc import Sequence

_PATIENCE = 15.0
"""Seconds that a process may take to end."""


class Workers:
    """Worker processes; each ends when its standard input does, also if this process is killed."""

    def __init__(self, command: Sequence[str], count: int, *, pause: float = 5.0) -> None:
        """Start the processes.

        Args:
            command: command line of a worker.
            count: number of processes.
            pause: seconds to wait before one that ended is replaced.
        """
        self._command, self._pause = list(command), pause
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        """Processes by their number."""
        self._keepers = [threading.Thread(target=self._keep, args=(number,), daemon=True) for number in range(count)]
        for keeper in self._keepers:
            keeper.start()

    def _keep(self, number: int) -> None:
        while True:
            with self._lock:
                if self._closing.is_set():
                    return
                # In a process group of its own: Ctrl-C is for the studio, which ends its workers. In the same session, or
                # Linux would divide the cores between the sessions, whatever their processes' priorities.
                process = subprocess.Popen(  # noqa: S603 -- this interpreter and a module of this package
                    self._command, stdin=subprocess.PIPE, process_group=0
                )
                self.processes[number] = process
            code = process.wait()
            if self._closing.is_set():
                return
            logging.getLogger(__name__).error("a worker of the studio ended with %d; another is started", code)
            self._closing.wait(self._pause)

    def close(self) -> None:
        """End the processes; their jobs are continued at the next start."""
        with self._lock:
            self._closing.set()
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:  # it compiles a program
                process.kill()
        for keeper in self._keepers:
            keeper.join()
