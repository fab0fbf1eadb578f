"""Runs one command that prints a JSON object, and says how much of the machine others took meanwhile."""

import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time

TIMEOUT_SECONDS = 900
STAT = pathlib.Path("/proc/stat")


def busy_seconds() -> float | None:
    """Time that the cores were not idle, other machines' (stolen) time included; None where the system does not say."""
    if not STAT.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in STAT.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(cores: float, seconds: float) -> None:
    """Returns once all programs together take less than `cores`, or when the time is over."""
    end = time.monotonic() + seconds
    while (before := busy_seconds()) is not None and time.monotonic() < end:
        time.sleep(1)
        if busy_seconds() - before < cores:
            return


def run(command: list[str], cwd: pathlib.Path) -> dict:
    """`result` or `error`; `seconds`; `foreign_cores`: cores that were busy with something else, on average.

    Engines that spin at a barrier lose far more than that share when a core is taken from them.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin, busy = time.monotonic(), busy_seconds()
        child = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err)
        killer = threading.Timer(TIMEOUT_SECONDS, child.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:  # Ctrl-C: no engine goes on alone
            child.kill()
            raise
        finally:
            killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        measurement: dict = {"seconds": round(time.monotonic() - begin, 2)}
        if busy is not None:
            foreign = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
            measurement["foreign_cores"] = round(max(0.0, foreign) / measurement["seconds"], 3)
        out.seek(0)
        err.seek(0)
        return measurement | outcome(child.returncode, out.read().decode(), err.read().decode())


def outcome(code: int, out: str, err: str) -> dict:
    if code != 0:
        said = [line for line in err.splitlines() if line.strip()] or ["nothing on stderr"]
        telling = [line for line in said if "rror" in line] or said
        return {"error": f"exit code {code}: {telling[-1].strip()[:300]}"}
    try:
        return {"result": json.loads(out)}
    except json.JSONDecodeError:
        return {"error": f"expected one JSON object on stdout, found {out[:200]!r}"}
