"""Keeps processors from sleeping while something short is measured.

A client and a server that wait for each other sleep thousands of times a second, and a processor of a virtual machine
that has nothing else to do takes far longer to wake than either takes to answer: what was measured then would be the
machine's way of sleeping, and change tenfold from run to run. On each processor a program spins that runs only when
nothing else wants to (SCHED_IDLE of sched(7)).
"""
import contextlib
import os
import signal


def spin(processor):
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


@contextlib.contextmanager
def awake():
    """Within its block all processors are awake."""
    spinning = []
    try:
        for processor in os.sched_getaffinity(0):
            pid = os.fork()
            if pid == 0:
                try:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    spin(processor)
                finally:
                    os._exit(1)
            spinning.append(pid)
        yield
    finally:
        for pid in spinning:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
