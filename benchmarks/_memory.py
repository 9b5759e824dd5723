"""Peak memory of a piece of work, in a process of its own. Imports nothing large: every such process imports this."""

import concurrent.futures
import multiprocessing
import pathlib
import resource


def peak_memory(prepare, *arguments, calls=3):
    """Bytes by which `prepare(*arguments)()`, called a few times, raises the peak memory of a new process.

    Args:
        prepare: A function of an importable module. What it imports and builds is not counted; tracing and compiling,
            which the first call does, are.
        *arguments: Anything that can be pickled.
        calls: How often to call what `prepare` returns.
    """
    # Forked from this process, it would begin with its memory; the server's children share one import of TensorFlow.
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["keras_sip"])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as process:
        return process.submit(_raised_peak, prepare, arguments, calls).result()


def _raised_peak(prepare, arguments, calls):
    step = prepare(*arguments)
    before = _peak_of_this_process()
    for _ in range(calls):
        step()
    return _peak_of_this_process() - before


def _peak_of_this_process():
    """Bytes. Linux starts the ru_maxrss of a process at the size of the one that started it; VmHWM begins anew."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
