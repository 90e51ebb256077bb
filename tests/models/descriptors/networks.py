"""Files of random weights, in the published formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.indexes.local.scenes import scene


def xfeat_file(folder: Path, seed: int = 0) -> Path:
    """Write weights of a random XFeat whose layers are normalised as those of a trained one are.

    Without that, all descriptors would be nearly the same.
    """
    import torch
    from kornia.feature import XFeat

    torch.manual_seed(seed)
    network = XFeat().net
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # type: ignore[assignment]  # The mean of all that it sees.
    pictures = np.stack([scene(number, 160, 192) for number in range(20, 24)])
    with torch.no_grad():
        network(torch.from_numpy(pictures)[:, None].float() / 255)
        network.block_fusion[2].bias.zero_()
        network.keypoint_head[3].weight.mul_(4)
    path = folder / "xfeat.pt"
    torch.save(network.state_dict(), path)
    return path
