"""VISTA3D as its bundle runs it: MONAI's own transforms and inferers in the order of configs/inference.json.

Written after NV-Segment-CT of github.com/NVIDIA-Medtech/NV-Segment-CTMR (configs/inference.json, scripts/inferer.py,
scripts/evaluator.py), whose evaluator wants PyTorch Ignite; nothing here uses the library.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from monai import transforms
from monai.apps.vista3d.inferer import point_based_window_inferer
from monai.apps.vista3d.transforms import VistaPostTransformd, VistaPreTransformd
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInfererAdapt

SUBCLASS = {
    "2": [14, 5],
    "20": [28, 29, 30, 31, 32],
    "21": [*range(33, 57), *range(63, 98), 114, 120, 122],
}
EVERYTHING = sorted(set(range(1, 133)) - {2, 16, 18, 20, 21, 23, 24, 25, 26, 27, 128, 129, 130, 131, 132})


def preprocessing() -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.Spacingd(keys="image", pixdim=[1.5, 1.5, 1.5], mode="bilinear"),
            transforms.CropForegroundd(keys="image", allow_smaller=True, margin=10, source_key="image"),
            VistaPreTransformd(keys="image", subclass=SUBCLASS),
            transforms.ScaleIntensityRanged(
                keys="image", a_min=-963.8247715525971, a_max=1053.678477684517, b_min=0, b_max=1, clip=True
            ),
            transforms.Orientationd(keys="image", axcodes="RAS"),
            transforms.CastToTyped(keys="image", dtype=torch.float32),
        ]
    )


def run_bundle(
    network: torch.nn.Module,
    array_ijk: np.ndarray,
    affine: np.ndarray,
    roi: Sequence[int],
    label_prompt: list[int] | None = None,
    points: list[list[int]] | None = None,
    point_labels: list[int] | None = None,
    previous: torch.Tensor | None = None,
) -> np.ndarray:
    """The label map that the bundle writes: (I, J, K), classes by number (1 where none was named), 255 where nothing
    was looked at. ``previous`` are logits on the network's grid, which its inferer takes beside points."""
    image = MetaTensor(torch.from_numpy(np.float32(array_ijk))[None], affine=torch.from_numpy(affine))
    image.meta["original_affine"] = affine
    steps = preprocessing()
    data = steps({"image": image, "label_prompt": label_prompt, "point_labels": point_labels})
    x, labels, signs = data["image"], data["label_prompt"], data["point_labels"]
    classes = torch.as_tensor([labels])[0].unsqueeze(-1) if labels is not None else None
    where = signs_ = None
    if points is not None:
        homogeneous = np.c_[np.array(points, np.float64), np.ones(len(points))]
        where = torch.from_numpy((np.linalg.inv(x.affine.numpy()) @ affine @ homogeneous.T).T[None, :, :3])
        signs_ = torch.as_tensor([signs])
    with torch.no_grad():
        logits = _infer(network, x[None], roi, where, signs_, classes, previous)
    out = {"image": transforms.reset_ops_id(x), "pred": logits[0]}
    if classes is not None:
        out["label_prompt"] = classes
    if where is not None:
        out |= {"points": where, "point_labels": signs_}
    out = VistaPostTransformd(keys="pred")(out)
    out = transforms.Invertd(
        keys="pred", transform=deepcopy(steps), orig_keys="image", nearest_interp=True, to_tensor=True
    )(out)
    return torch.nan_to_num(out["pred"], nan=255)[0].numpy()


def automatic_logits(
    network: torch.nn.Module, array_ijk: np.ndarray, affine: np.ndarray, roi: Sequence[int], number: int
) -> torch.Tensor:
    """The logits of one class on the network's grid, (1, 1, X, Y, Z)."""
    image = MetaTensor(torch.from_numpy(np.float32(array_ijk))[None], affine=torch.from_numpy(affine))
    with torch.no_grad():
        x = preprocessing()({"image": image})["image"][None]
        return _infer(network, x, roi, None, None, torch.tensor([[number]]), None)


def _infer(network, inputs, roi, point_coords, point_labels, class_vector, previous):
    prompt_class = deepcopy(class_vector)
    if class_vector is not None and point_labels is not None and torch.any(class_vector > 132):
        class_vector = None
    if point_coords is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return point_based_window_inferer(
                inputs=inputs,
                roi_size=roi,
                transpose=True,
                with_coord=True,
                predictor=network,
                mode="gaussian",
                overlap=0.3,
                point_coords=point_coords,
                point_labels=point_labels,
                class_vector=class_vector,
                prompt_class=prompt_class,
                prev_mask=previous,
                labels=None,
                label_set=None,
            )
    inferer = SlidingWindowInfererAdapt(roi_size=roi, sw_batch_size=1, with_coord=True, padding_mode="replicate")
    return inferer(
        inputs,
        network,
        transpose=True,
        point_coords=None,
        point_labels=None,
        class_vector=class_vector,
        prompt_class=prompt_class,
        prev_mask=previous,
        labels=None,
        label_set=None,
    )
