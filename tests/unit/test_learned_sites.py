"""What is quantized: the sites of a vision transformer, their signs and granularity, and heads on the right axes."""

from __future__ import annotations

import pytest
import torch

from accelsim.problems import AccelsimError
from accelsim.workloads import build_workload
from quant.learned.budget import uniform_widths
from quant.learned.network import LearnedNetwork
from quant.learned.quantizer import Quantizer, Start
from quant.learned.sites import COMPONENTS, END_BITS, SiteOptions, sites_of
from quant.learned.structure import attentions
from quant.network import Numerics, run
from quant.separate import separate
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

HEADS, DIM, TOKENS = 2, 12, 5


def test_sites_are_those_of_the_paper():
    """Per tensor unless said; LayerNorm, softmax and GELU arithmetic, residual sums and logits have none."""
    sites = sites_of(tiny_vit(depth=1).workload)
    found = {
        name: (one.tables, one.heads, "offset" if one.offset else "signed" if one.signed else "unsigned", one.pinned)
        for name, one in sites.items()
    }
    assert found == {
        "stored/image": (1, 1, "signed", True),
        "weights/patch_embed": (1, 1, "signed", True),
        "stored/b0.norm1": (1, 1, "signed", False),
        "weights/b0.qkv": (3, HEADS, "signed", False),
        "stored/b0.qkv": (3, HEADS, "signed", False),
        "stored/b0.softmax": (1, HEADS, "unsigned", False),
        "stored/b0.values": (1, HEADS, "signed", False),
        "weights/b0.proj": (1, HEADS, "signed", False),
        "stored/b0.norm2": (1, 1, "signed", False),
        "weights/b0.fc1": (1, 1, "signed", False),
        "stored/b0.fc1": (1, 1, "offset", False),
        "weights/b0.fc2": (1, 1, "signed", False),
        "stored/norm": (1, 1, "signed", True),
        "weights/head": (1, 1, "signed", True),
    }


def test_layers_have_one_width_but_three_for_q_k_and_v():
    sites = sites_of(tiny_vit(depth=1).workload, SiteOptions(granularity="layer"))
    assert {one.heads for one in sites.values()} == {1}
    assert [name for name, one in sites.items() if one.tables == 3] == ["stored/b0.qkv", "weights/b0.qkv"]
    assert sites.keys() == sites_of(tiny_vit(depth=1).workload).keys()


def test_options_change_what_they_say():
    workload = tiny_vit(depth=1).workload
    plain = sites_of(workload)
    free = sites_of(workload, SiteOptions(ends_learned=True))
    assert not any(one.pinned for one in free.values())
    assert {k: v.tolist() for k, v in uniform_widths(free, 4).items()} == {
        k: v.tolist() for k, v in uniform_widths(plain, 4).items()
    }
    assert {name for name, one in free.items() if float(uniform_widths(free, 4)[name].max()) == 8} == {
        "stored/image", "weights/patch_embed", "stored/norm", "weights/head"
    }  # fmt: skip
    for gelu, signed, offset in (("offset", False, True), ("unsigned", False, False), ("signed", True, False)):
        one = sites_of(workload, SiteOptions(gelu=gelu))["stored/b0.fc1"]
        assert (one.signed, one.offset) == (signed, offset)
    left_out = {one: plain.keys() - sites_of(workload, SiteOptions(floating=(one,))).keys() for one in COMPONENTS}
    assert left_out["gelu"] == {"stored/b0.fc1"}
    attention = ("stored/b0.norm1", "weights/b0.qkv", "stored/b0.qkv", "stored/b0.softmax", "stored/b0.values")
    assert left_out["msa"] == {*attention, "weights/b0.proj"}


def test_a_gelu_of_its_own_has_the_offset_too():
    sites = sites_of(separate(tiny_vit(depth=1)).workload)
    assert sites["stored/b0.fc1.gelu"].offset
    assert "stored/b0.fc1" not in sites
    assert "stored/b0.fc1.gelu" not in sites_of(separate(tiny_vit(depth=1)).workload, SiteOptions(floating=("gelu",)))


@pytest.mark.parametrize("name", ["deit_tiny", "vit_small", "glyph_vit", "glyph_vit_small"])
def test_built_in_transformers_have_the_sites_of_every_block(name):
    workload = build_workload(name)
    sites, blocks = sites_of(workload), attentions(workload)
    assert len(sites) == 4 + 10 * len(blocks)
    assert [one.name for one in blocks] == [f"b{k}" for k in range(len(blocks))]


def test_other_networks_and_options_are_refused():
    for workload in (tiny_hybrid().workload, build_workload("efficientvit_b0")):
        with pytest.raises(AccelsimError, match="a vision transformer"):
            sites_of(workload)
    with pytest.raises(AccelsimError, match="granularity") as error:
        SiteOptions(granularity="token", head_axis="x", gelu="y", floating=("mlp",))
    assert len(error.value.problems) == 4


# Which values belong to a head


def numerics(network, options, changed=None, part=0, bits=2):
    """Quantizers of 6 bits everywhere; one part of one site has other bits."""
    quantizers = {}
    for name, site in sites_of(network.workload, options).items():
        widths = torch.full((site.tables, site.heads), float(END_BITS if site.pinned else 6))
        if name == changed:
            widths.view(-1)[part] = bits
        steps = (torch.arange(7) * -1.0).exp2().expand(site.tables, 7).clone()
        quantizers[name] = Quantizer(site, Start(steps, torch.zeros_like(steps) if site.offset else None), widths)
    return LearnedNetwork(network, quantizers)


class Only(Numerics):
    """One tensor as a network in training stores it, everything before it in floating point."""

    def __init__(self, model, name):
        self.model, self.name = model, name

    def stored(self, node, value):
        return self.model.stored(node, value) if node.op.output == self.name else value


def heads_of(name, value, code):
    """[parts, values of the part], cut by hand: q, k and v lie behind each other, in each the heads."""
    width = DIM // HEADS
    if name.endswith(".qkv") and value.dim() == 2 and code:
        tables = [value[DIM * t : DIM * (t + 1)] for t in range(3)]
        return torch.stack([one[:, width * h : width * (h + 1)].flatten() for one in tables for h in range(HEADS)])
    if name == "weights/b0.qkv":
        return value.reshape(3 * HEADS, width * DIM)
    if name == "stored/b0.qkv":
        return torch.stack([value[..., width * p : width * (p + 1)].flatten() for p in range(3 * HEADS)])
    if name == "weights/b0.proj":
        rows = value if code else value.T
        return torch.stack([rows[width * h : width * (h + 1)].flatten() for h in range(HEADS)])
    return torch.stack([value[:, h].flatten() for h in range(HEADS)])


@pytest.mark.parametrize("axis", ["head", "code"])
@pytest.mark.parametrize(
    "name", ["stored/b0.qkv", "stored/b0.softmax", "stored/b0.values", "weights/b0.qkv", "weights/b0.proj"]
)
def test_a_head_s_width_changes_that_head_s_values(name, axis):
    network, options = tiny_vit(depth=1), SiteOptions(head_axis=axis)
    kind, of = name.split("/")

    def values(model):
        with torch.no_grad():
            if kind == "weights":
                return model.parameters(model.network.node(of))[0]
            return run(model.network, images_of(network, 3), Only(model, of), keep=[of])[of]

    before = heads_of(name, values(numerics(network, options)), axis == "code")
    assert before.shape[0] == (6 if "qkv" in name else 2)
    for part in range(before.shape[0]):
        after = heads_of(name, values(numerics(network, options, name, part)), axis == "code")
        assert [k for k in range(len(before)) if not torch.equal(before[k], after[k])] == [part]


def test_attention_reads_the_heads_that_were_quantized():
    """q of head h is narrow: the scores of head h change, no others; k and v likewise in scores and outputs."""
    network = tiny_vit(depth=1)
    images = images_of(network, 3)
    for part in range(6):
        table, head = divmod(part, HEADS)
        of = "b0.values" if table == 2 else "b0.scores"
        with torch.no_grad():
            one, other = (
                run(network, images, Only(numerics(network, None, *given), "b0.qkv"), keep=[of])[of]
                for given in ((), ("stored/b0.qkv", part))
            )
        same = (one == other).reshape(3, HEADS, -1).transpose(0, 1).flatten(1).all(1)
        assert [k for k in range(HEADS) if not same[k]] == [head]
