"""A parent process to be killed: starts one worker, keeps it busy, prints its process number."""

from __future__ import annotations

import sys
import time

from harness.supervisor import Launch, Worker


def main(verb: str) -> None:
    worker = Worker(Launch("victim", handler="faults.verbs:handler"))
    worker.start()
    print(worker.pid, flush=True)
    if verb != "idle":
        worker.call(verb)
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
