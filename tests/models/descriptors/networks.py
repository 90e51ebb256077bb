"""Files of random weights, in the published formats."""

from __future__ import annotations

import re
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


def lightglue_file(folder: Path, *, random: bool = False) -> Path:
    """Write weights of LightGlue in the published layout.

    Unless `random`, its layers change nothing and the assignment is sharp, so that it matches
    mutual nearest descriptors by a double softmax.
    """
    import torch
    from kornia.feature import LightGlue

    torch.manual_seed(0)
    network = LightGlue(None, input_dim=128, add_scale_ori=True)
    if not random:
        with torch.no_grad():
            for layer in network.transformers:
                for block in (layer.self_attn, layer.cross_attn):
                    block.ffn[3].weight.zero_()
                    block.ffn[3].bias.zero_()
            network.input_proj.weight.copy_(torch.eye(256, 128) * 8)
            network.input_proj.bias.zero_()
            for one in network.log_assignment:
                one.final_proj.weight.copy_(torch.eye(256) * 8)
                one.final_proj.bias.zero_()
                one.matchability.weight.zero_()
                one.matchability.bias.fill_(9)
    state = {
        re.sub(r"^transformers\.(\d+)\.(self|cross)_attn", r"\2_attn.\1", name): tensor
        for name, tensor in network.state_dict().items()
        if name != "confidence_thresholds"
    }
    path = folder / "sift_lightglue.pth"
    torch.save(state, path)
    return path
