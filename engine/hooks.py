"""The only place that registers forward hooks: taps read a module's input, edits change a module.

All are context managers that remove their hook on any exit, and all count how often they fired,
because a hook on a module that lerobot never calls would stay silent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class Calls:
    """How often a hook fired."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def tapped(module: nn.Module, read: Callable[[Tensor], None]) -> Iterator[Calls]:
    """Hand a module's input to `read` each time it runs.

    The tensor is the live one: lerobot adds residuals in place, so copy what is to be kept.
    """
    calls = Calls()

    def hook(_: nn.Module, args: tuple) -> None:
        calls.count += 1
        read(args[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def edited(module: nn.Module, edit: Callable[[Tensor], Tensor]) -> Iterator[Calls]:
    """Replace a module's input by `edit` of a copy of it each time it runs."""
    calls = Calls()

    def hook(_: nn.Module, args: tuple) -> tuple:
        calls.count += 1
        return (edit(args[0].clone()), *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def rewritten(module: nn.Module, edit: Callable[[Tensor], Tensor]) -> Iterator[Calls]:
    """Replace a module's output by `edit` of a copy of it each time it runs."""
    calls = Calls()

    def hook(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        calls.count += 1
        return edit(output.clone())

    handle = module.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()
