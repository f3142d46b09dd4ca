"""What every network is asked: how much memory it takes, and to stop in its midst."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from .base import Check


def weight_bytes(*modules: nn.Module) -> int:
    """Memory taken by the weights, and by what else the modules keep, in bytes."""
    return sum(kept.nbytes for module in modules for kept in (*module.parameters(), *module.buffers()))


@contextmanager
def checked(modules: Iterable[nn.Module], check: Check) -> Iterator[None]:
    """Call ``check`` before each of the modules runs."""
    hooks = [module.register_forward_pre_hook(lambda *_: check()) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
