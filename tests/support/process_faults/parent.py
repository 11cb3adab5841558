"""A parent process to be killed: it starts a worker, keeps it busy, and prints its process id.

The second argument is code to run at the end; by default the process waits to be killed.
"""

from __future__ import annotations

import signal
import sys
import time

from harness.worker.launch import Launch
from harness.worker.worker import Worker


def main(verb: str, ending: str = "time.sleep(60)") -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = Worker(Launch("victim", handler="process_faults.verbs:handler"))
    worker.start()
    if verb == "litter":
        assert worker.call(verb).value == "littered"
    print(worker.pid, flush=True)
    if verb not in ("idle", "litter"):
        worker.call(verb)
    exec(ending, {"time": time, "sys": sys, "worker": worker})


if __name__ == "__main__":
    main(*sys.argv[1:])
