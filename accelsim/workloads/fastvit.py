"""FastViT-T8 in its inference form: parallel branches and BatchNorm are folded into single convolutions with biases.

Structure as timm@aa4b585 builds it.  The published parameters are those of the training form, which has more branches.
"""

from __future__ import annotations

from functools import partial

from accelsim.ir import Tensor, Workload
from accelsim.workloads import blocks, recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

ACTIVATION = "gelu"
WIDTHS = (48, 96, 192, 384)
DEPTHS = (2, 2, 4, 2)
MLP_RATIO = 3
MIXER_KERNEL = 3
LARGE_KERNEL = 7
HEAD_RATIO = 2
SQUEEZE = 16
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/fastvit.py"


def build_fastvit(name: str, resolution: int) -> Workload:
    """FastViT-T8 at a resolution in pixels, a multiple of 32."""
    net = WorkloadBuilder(name, resolution)
    width = WIDTHS[0]
    x = net.conv("stem.conv1", "stem", net.input, width, kernel=3, stride=2, bias=True, activation=ACTIVATION)
    x = net.conv("stem.conv2", "dw", x, width, kernel=3, stride=2, groups=width, bias=True, activation=ACTIVATION)
    x = net.conv("stem.conv3", "pw", x, width, bias=True, activation=ACTIVATION)
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        if stage:
            # Two output channels for every input channel.
            x = net.conv(f"s{stage}.down.large", "gconv", x, width, kernel=LARGE_KERNEL, stride=2,
                         groups=WIDTHS[stage - 1], bias=True)  # fmt: skip
            x = net.conv(f"s{stage}.down.pw", "pw", x, width, bias=True, activation=ACTIVATION)
        for k in range(depth):
            x = _block(net, f"s{stage}.b{k}", x)
    x = blocks.pool(net, "pool", _final(net, x))
    output = net.conv("head", "fc", x, blocks.CLASSES, bias=True)
    return net.build(output, (("family", "fastvit"), ("source", SOURCE)))


def _block(net: WorkloadBuilder, name: str, source: str) -> str:
    """Depthwise 3 × 3 mixer (its residual is folded in), then depthwise 7 × 7 and a pointwise MLP, scaled and added."""
    channels = net.tensor(source).channels
    mixed = net.conv(f"{name}.mixer", "dw", source, channels, kernel=MIXER_KERNEL, groups=channels, bias=True)
    x = net.conv(f"{name}.dw7", "dw", mixed, channels, kernel=LARGE_KERNEL, groups=channels, bias=True)
    x = net.conv(f"{name}.fc1", "pw", x, MLP_RATIO * channels, bias=True, activation=ACTIVATION)
    x = net.conv(f"{name}.fc2", "pw", x, channels, bias=True)
    return blocks.residual(net, f"{name}.mlp_add", x, mixed, layer_scale=True)


def _final(net: WorkloadBuilder, source: str) -> str:
    """3 × 3 convolution in groups to twice the channels, squeeze and excitation, activation."""
    given = net.tensor(source).channels
    channels = HEAD_RATIO * given
    x = net.conv("final.conv", "gconv", source, channels, kernel=3, groups=given, bias=True)
    shape = net.tensor(x)
    y = net.conv("final.squeeze", "fc", blocks.pool(net, "final.pool", x), channels // SQUEEZE, bias=True,
                 activation="relu")  # fmt: skip
    y = net.conv("final.excite", "fc", y, channels, bias=True, activation="sigmoid")
    recipe = recipes.gate(channels, shape.h, shape.w, table_after=ACTIVATION)
    return net.vector("final.gate", "gate", (x, y), recipe, Tensor("final.gate", shape.h, shape.w, channels))


register("fastvit_t8", 256, multiple=32)(partial(build_fastvit, "fastvit_t8"))
