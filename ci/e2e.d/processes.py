"""The processes of our containers, found by their cgroup: what they cost, and their end."""

import os
import pathlib
import signal
import time

TICKS = os.sysconf("SC_CLK_TCK")


def of_pod(uid, command):
    """Process ids of a command in a pod, without those that are about to vanish."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The kernel cuts a command's name off after 15 characters.
            if (folder / "comm").read_text().strip() == command[:15] and f"pod{uid}" in (folder / "cgroup").read_text():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def stat(process):
    return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()


def age(process):
    """Seconds since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat(process)[19]) / TICKS


def cpu(process):
    """Seconds of CPU that it has used."""
    fields = stat(process)
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(process):
    """Resident memory in MiB, and its peak."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line)
    return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


def kill(process):
    os.kill(process, signal.SIGKILL)
