"""Masks by their hashes: what steps refer to."""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import GeometryError, InputError
from .geometry import Box
from .mask import EMPTY_MASK, PackedMask

_LEVEL = 1  # a segment becomes 20 to 100 times smaller at any level


def mask_key(mask: PackedMask) -> str:
    """The hash of a mask, 32 hexadecimal digits; an empty text for an empty one. Equal tight masks have equal keys."""
    if mask.box.is_empty:
        return ""
    digest = hashlib.blake2b(repr((mask.box.start_kji, mask.box.stop_kji)).encode(), digest_size=16)
    digest.update(mask.bits)
    return digest.hexdigest()


@dataclass(slots=True)
class MaskTable:
    """Masks that steps name by their keys, compressed. Nothing is ever taken out: a step may always be asked again."""

    _masks: dict[str, tuple[Box, bytes]] = field(default_factory=dict)
    _last: tuple[str, PackedMask] = ("", EMPTY_MASK)  # the seed of a segment is asked for several times in a row

    @property
    def nbytes(self) -> int:
        """Memory taken by the compressed masks, in bytes."""
        return sum(len(bits) for _, bits in self._masks.values())

    def put(self, mask: PackedMask) -> str:
        """Keep a mask and return its key."""
        key = mask_key(mask)
        if key and key not in self._masks:
            self._masks[key] = (mask.box, zlib.compress(mask.bits, _LEVEL))
        return key

    def get(self, key: str) -> PackedMask:
        """The mask of a key; the empty one for an empty key.

        Raises:
            InputError: no mask with that key was put here.
        """
        if not key:
            return EMPTY_MASK
        if key != self._last[0]:
            box, bits = self._entry(key)
            self._last = key, PackedMask(box, zlib.decompress(bits))
        return self._last[1]

    def to_document(self, keys: Iterable[str]) -> dict[str, Any]:
        """The masks of those keys as JSON values."""
        document = {}
        for key in sorted(set(keys) - {""}):
            box, bits = self._entry(key)
            text = base64.b64encode(bits).decode("ascii")
            document[key] = {"start_kji": box.start_kji, "stop_kji": box.stop_kji, "bits": text}
        return document

    def take_document(self, document: Mapping[str, Any]) -> None:
        """Put in the masks of :meth:`to_document`.

        Raises:
            InputError: one is damaged.
        """
        for key, entry in document.items():
            try:
                (k0, j0, i0), (k1, j1, i1) = entry["start_kji"], entry["stop_kji"]
                bits = zlib.decompress(base64.b64decode(entry["bits"], validate=True))
                mask = PackedMask(Box((k0, j0, i0), (k1, j1, i1)), bits)
            except (KeyError, TypeError, ValueError, zlib.error, GeometryError) as error:
                raise InputError(f"the mask {key} is damaged") from error
            if self.put(mask) != key:
                raise InputError(f"the mask {key} is damaged: its voxels are others")

    def _entry(self, key: str) -> tuple[Box, bytes]:
        if key not in self._masks:
            raise InputError(f"the mask {key} is missing: the steps came without their masks")
        return self._masks[key]
