"""Which device computes: CUDA first, then Apple's MPS, then the CPU."""

from ..core.errors import InputError
from ..core.requests import DeviceChoice


def choose_device(choice: DeviceChoice) -> str:
    """The device to compute on, ``"cuda"``, ``"mps"`` or ``"cpu"``; ``"auto"`` takes the first that is there.

    Raises:
        InputError: the wanted device is not there.
    """
    if choice == "cpu":
        return choice  # always there, and a model may do without torch
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[choice]:
        usable = ", ".join(device for device, is_there in there.items() if is_there)
        raise InputError(f"the device {choice} is not available here; available: {usable}")
    return choice
