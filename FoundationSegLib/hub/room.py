"""Room on the disk."""

import shutil
from pathlib import Path

from ..core.errors import CheckpointError
from ..core.sizes import bytes_text

_RESERVE = 64 << 20  # a disk that is full to the last byte stops every other program too


def free_bytes(folder: Path) -> int:
    """The room on the disk that a folder is on, or would be on, in bytes."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def require_room(folder: Path, wanted: int, model_id: str) -> None:
    """Make sure that so many bytes can be stored.

    Raises:
        CheckpointError: there is no room for them.
    """
    free = free_bytes(folder)
    if wanted and wanted + _RESERVE > free:
        raise CheckpointError(
            f"{model_id} needs {bytes_text(wanted)} more, and the disk has {bytes_text(free)} free; make room, or "
            "choose another folder with FOUNDATIONSEG_STORE"
        )
