"""Work in processes of its own, which may be killed."""

import os
import sys
import traceback


def forked(work, log=None):
    """Start work in a process, which may write to a file; returns its id. What it returns is the exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if log is not None:
                file = open(log, "w", buffering=1)  # noqa: SIM115  (ends with the process)
                os.dup2(file.fileno(), 2)
                sys.stderr = sys.stdout = file
            code = work() or 0
        except SystemExit as left:
            code = int(left.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def result(pid):
    """The exit code, negative for a signal, once the process has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
