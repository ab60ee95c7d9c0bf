"""What this machine does: processors, memory, and GPUs where nvidia-ml-py is installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device."""

    busy: int
    """per cent"""
    used_gb: float
    total_gb: float


@dataclass(frozen=True, slots=True)
class Load:
    """One look at the machine; None where it does not say."""

    cpus: int
    cpu_busy: float | None = None
    """per cent of all processors since the look before"""
    memory_gb: float | None = None
    """in use"""
    total_gb: float | None = None
    gpus: tuple[Gpu, ...] = ()


class Machine:
    """Looks again and again."""

    def __init__(self) -> None:
        self._ticks: tuple[int, int] | None = None
        self._nvml: object | None = None
        self._without_gpu = find_spec("pynvml") is None

    def look(self) -> Load:
        """Return the load now."""
        used, total = _memory()
        return Load(os.cpu_count() or 1, self._cpu(), used, total, self._gpus())

    def _cpu(self) -> float | None:
        try:
            ticks = [int(t) for t in (PROC / "stat").read_text().split("\n")[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        before, self._ticks = self._ticks, (sum(ticks), ticks[3] + ticks[4])
        if before is None or self._ticks[0] <= before[0]:
            return None
        idle = (self._ticks[1] - before[1]) / (self._ticks[0] - before[0])
        return 100 * (1 - idle)

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._without_gpu:
            return ()
        import pynvml

        try:
            if self._nvml is None:
                pynvml.nvmlInit()
                self._nvml = pynvml
            found = []
            for index in range(pynvml.nvmlDeviceGetCount()):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                busy = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
                found.append(Gpu(int(busy), memory.used / 1e9, memory.total / 1e9))
            return tuple(found)
        except pynvml.NVMLError:
            self._without_gpu = True
            return ()


def _memory() -> tuple[float | None, float | None]:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        kb = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        total = kb["MemTotal"] / 1e6
        return total - kb["MemAvailable"] / 1e6, total
    except (OSError, ValueError, KeyError, IndexError):
        return None, None
