"""What holds for every network."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from model.complexity import complexity
from model.networks import NETWORKS, Network, NetworkConfig, network_name
from model.networks.colorunet import ColorUNetConfig
from model.networks.eccv16 import ECCV16Config
from model.networks.unet import UNetConfig

SMALL: dict[str, NetworkConfig] = {
    "unet": UNetConfig(bins=7, widths=(4, 8, 8, 8, 8)),
    "eccv16": ECCV16Config(bins=5, width=4),
    "colorunet": ColorUNetConfig(bins=6, widths=(4, 8, 8)),
}
every = pytest.mark.parametrize("name", NETWORKS)


def make(name: str, bins: int | None = None) -> Network:
    torch.manual_seed(0)
    config = SMALL[name] if bins is None else dataclasses.replace(SMALL[name], bins=bins)
    return NETWORKS[name][1](config)


@every
def test_a_picture_does_not_see_its_batch(name: str) -> None:
    net = make(name).eval()
    pictures = torch.rand(3, 1, 64, 64) * 100
    with torch.inference_mode():
        together = net(pictures)
        alone = torch.cat([net(p[None]) for p in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@every
@pytest.mark.parametrize("bins", [None, 0])
def test_every_weight_is_reached_by_the_gradient(name: str, bins: int | None) -> None:
    net = make(name, bins)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.01, 0.1)  # positive, so that no unit is dead
    net(torch.rand(2, 1, 64, 64) * 50 + 50).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@every
def test_output_has_a_channel_a_bin_or_two_of_chroma_at_the_networks_scale(name: str) -> None:
    for bins, channels in ((None, SMALL[name].bins), (0, 2)):
        net = make(name, bins).eval()
        with torch.inference_mode():
            found = net(torch.full((2, 1, 64, 96), 50.0))
        assert found.shape == (2, channels, 64 // net.scale, 96 // net.scale)


@every
def test_the_head_gives_the_output(name: str) -> None:
    net = make(name).eval()
    assert net.head.weight is list(net.parameters())[-2]
    with torch.inference_mode():
        before = net(torch.full((1, 1, 32, 32), 30.0))
        net.head.bias.add_(torch.arange(SMALL[name].bins))
        after = net(torch.full((1, 1, 32, 32), 30.0))
    torch.testing.assert_close(
        after - before, torch.arange(SMALL[name].bins)[None, :, None, None].expand_as(after) * 1.0
    )


@every
def test_names_and_configs_lead_back_to_the_network(name: str) -> None:
    net = make(name)
    assert network_name(net) == name
    again = NETWORKS[name][0](**json.loads(json.dumps(dataclasses.asdict(net.config))))
    assert again == SMALL[name]


@every
def test_complexity_counts_what_the_layers_do(name: str) -> None:
    """A convolution takes a multiply-add a weight and output place, a transposed one a weight and input place."""
    net, operations = make(name).eval(), 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal operations
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        operations += 2 * layer.weight.numel() * places.shape[2] * places.shape[3]

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.zeros(1, 1, 64, 96))
    found = complexity(make(name), 64, 96)
    assert (found.flops, found.parameters) == (operations, sum(p.numel() for p in net.parameters()))
    assert {p.device.type for p in net.parameters()} == {"cpu"}
