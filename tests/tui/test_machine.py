"""What the system line is made of."""

import sys
from types import SimpleNamespace

import pytest

from tui.data import machine
from tui.data.machine import Gpu, Load, Machine


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc that the test writes."""
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where it is not installed
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 3000000 kB\n")
    (tmp_path / "stat").write_text("cpu 100 0 100 700 100 0 0 0 9 9\ncpu0 1 2\n")
    return tmp_path


def test_processors_are_busy_since_the_last_look(proc):
    eye = Machine()
    first = eye.look()
    assert (first.cpu_busy, first.memory_gb, first.total_gb) == (None, 5.0, 8.0)
    (proc / "stat").write_text("cpu 160 0 110 720 110 0 0 0 9 9\n")  # 100 ticks, 30 idle
    assert eye.look().cpu_busy == pytest.approx(70.0)
    assert eye.look().cpu_busy is None  # no time went by


def test_where_there_is_no_proc(proc):
    for name in ("stat", "meminfo"):
        (proc / name).unlink()
    found = Machine().look()
    assert (found.cpu_busy, found.memory_gb, found.gpus) == (None, None, ())


def test_this_machine():
    found = Machine().look()
    assert isinstance(found, Load)
    assert found.cpus >= 1
    assert 0 < found.memory_gb <= found.total_gb


class NVMLError(Exception):
    pass


def driver(**more):
    """nvidia-ml-py over two devices."""
    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=61e9, total=80e9),
        nvmlDeviceGetUtilizationRates=lambda device: SimpleNamespace(gpu=93 - device),
        **more,
    )


def test_gpus_where_the_library_is_installed(proc, monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert Machine().look().gpus == (Gpu(93, 61.0, 80.0), Gpu(92, 61.0, 80.0))


def test_a_driver_that_fails_is_not_asked_again(proc, monkeypatch):
    asked = []

    def fail():
        asked.append(1)
        raise NVMLError

    broken = driver()
    broken.nvmlInit = fail
    monkeypatch.setattr(machine, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    eye = Machine()
    assert eye.look().gpus == eye.look().gpus == ()
    assert asked == [1]
