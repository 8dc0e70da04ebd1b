import pytest
import torch
from torch import nn

from models import AttentionUNet, UNet

BOTH = pytest.mark.parametrize("network", [UNet, AttentionUNet])


def small(network, seed=0, **arguments):
    """A network of few channels, in evaluation."""
    torch.manual_seed(seed)
    return network(**{"width": 4, "depth": 2, **arguments}).eval()


def outputs_of(modules, model, images):
    """What each of ``modules`` of a model gives out for these images."""
    outputs = []
    for module in modules:
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.inference_mode():
        model(images)
    return outputs


@pytest.mark.parametrize(
    ("network", "n_parameters"), [(UNet, 31_042_369), (AttentionUNet, 31_393_901)]
)
def test_the_bottleneck_sees_1024_channels_and_the_parameters_are_as_many_as_published(
    network, n_parameters
):
    model = network().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters
    modules = [*model.down, model.bottleneck, *model.up]
    levels = outputs_of(modules, model, torch.randn(1, 1, 32, 32))
    sizes = [tuple(level.shape[1:]) for level in levels]
    down = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert sizes == [*down, (1024, 2, 2), *reversed(down)]


@BOTH
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_logits_have_the_size_of_the_image(network, size):
    model = small(network, in_channels=3, out_channels=2)
    with torch.inference_mode():
        z = model(torch.randn(3, 3, *size))
    assert z.shape == (3, 2, *size)
    assert (z > 0).any() and (z < 0).any()  # logits, no probabilities


@BOTH
@pytest.mark.parametrize("size", [(16, 20), (20, 16)])
def test_sides_that_cannot_be_halved_often_enough_are_refused(network, size):
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} px.*multiples of 2\*\*3 = 8"):
        small(network, depth=3)(torch.randn(1, 1, *size))


@BOTH
def test_a_step_sends_a_finite_gradient_to_every_parameter(network):
    model = small(network).train()
    model(torch.randn(2, 1, 16, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # Batch norm takes out the biases of the convolutions before it.
        assert parameter.ndim == 1 or parameter.grad.any(), name


@BOTH
def test_an_image_moved_by_the_coarsest_pixel_moves_its_logits(network):
    model = small(network)
    image = torch.zeros(1, 1, 96, 96)
    image[..., 40:52, 40:52] = torch.randn(12, 12)
    with torch.inference_mode():
        z, moved = model(image), model(image.roll((4, -4), (2, 3)))
    torch.testing.assert_close(moved[..., 36:64, 28:56], z[..., 32:60, 32:60])


@BOTH
def test_channels_last_changes_the_layout_and_not_the_logits(network):
    model, images = small(network), torch.randn(2, 1, 16, 16)
    with torch.inference_mode():
        z = model(images)
        model.to(memory_format=torch.channels_last)
        again = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(again, z)


@BOTH
def test_an_image_gets_the_same_logits_alone_and_in_a_batch(network):
    model, images = small(network), torch.randn(3, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_gates_weigh_each_pixel_of_every_skip_by_a_coefficient_from_0_to_1():
    model = small(AttentionUNet, depth=3)
    psi = [gate.psi for gate in model.gates]
    coefficients = outputs_of(psi, model, 5 * torch.randn(2, 1, 32, 32))
    assert [tuple(each.shape) for each in coefficients] == [
        (2, 1, 8, 8), (2, 1, 16, 16), (2, 1, 32, 32)
    ]  # fmt: skip
    for each in coefficients:
        assert each.min() >= 0 and each.max() <= 1
        assert each.std() > 1e-4  # not one number for all pixels


def test_a_gate_depends_on_the_skip_and_on_what_comes_from_below():
    gate = small(AttentionUNet).gates[0]
    skip, gating, other = torch.randn(3, 1, 8, 6, 6)
    with torch.inference_mode():
        weighted = gate(skip, gating)
        torch.testing.assert_close(weighted, skip * (weighted / skip).median(1, keepdim=True)[0])
        assert not torch.allclose(gate(skip, other), weighted)
        assert not torch.allclose(gate(other, gating) / other, weighted / skip)


def steer(model, bias):
    """Open all gates by a large bias, or close them by a negative one."""
    for gate in model.gates:
        nn.init.zeros_(gate.psi[1].weight)
        nn.init.constant_(gate.psi[1].bias, bias)


def test_with_its_gates_open_the_attention_unet_of_a_seed_is_the_unet_of_that_seed():
    plain, gated = small(UNet, seed=3), small(AttentionUNet, seed=3)
    images = torch.randn(2, 1, 16, 16)
    with torch.inference_mode():
        z = plain(images)
        assert not torch.allclose(gated(images), z, atol=1e-3)
        steer(gated, 50)
        torch.testing.assert_close(gated(images), z)


def test_through_closed_gates_only_the_bottleneck_reaches_the_logits():
    model = small(AttentionUNet)
    steer(model, -200)
    images = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        before = model(images)
        model.bottleneck.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        images_of_any_kind = model(images), model(torch.randn(1, 1, 16, 16))
    assert not torch.allclose(before, images_of_any_kind[0])
    assert torch.equal(*images_of_any_kind)


def test_a_network_one_channel_wide_has_gates_too():
    z = small(AttentionUNet, width=1, depth=1)(torch.randn(2, 1, 4, 4))
    assert torch.isfinite(z).all()


@BOTH
@pytest.mark.parametrize("depth", [2, 3])
def test_a_logit_depends_on_what_is_in_reach_and_on_no_pixel_beyond(network, depth):
    model = small(network, depth=depth).double()
    step_px, reach_px = 2**depth, model.reach_px
    rows = slice(reach_px + 2 * step_px, reach_px + 5 * step_px)
    images = torch.randn(1, 1, 2 * reach_px + 7 * step_px, 3 * step_px).double()

    def change_without_the_rest(margin_px):
        seen = images[:, :, rows.start - margin_px : rows.stop + margin_px]
        alone = model(seen)[:, :, margin_px : margin_px + 3 * step_px]
        return (alone - model(images)[:, :, rows]).abs().max()

    with torch.inference_mode():
        assert change_without_the_rest(reach_px) < 1e-14
        assert change_without_the_rest(reach_px - step_px) > 1e-12
