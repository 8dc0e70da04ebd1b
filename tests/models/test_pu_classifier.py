import pytest
import torch

from models import BACKBONES, PUClassifier


# torchvision's own count with 1,000 classes and colour, less both ends, plus ours.
@pytest.mark.parametrize(
    ("backbone", "torchvision_count", "width"),
    [("resnet18", 11_689_512, 512), ("resnet34", 21_797_672, 512), ("resnet50", 25_557_032, 2048)],
)
def test_only_the_first_and_the_last_layer_differ_from_torchvision(
    backbone, torchvision_count, width
):
    model = PUClassifier(backbone)
    count = sum(parameter.numel() for parameter in model.parameters())
    two_channels_of_first_layer = 2 * 64 * 7 * 7
    assert count == torchvision_count - two_channels_of_first_layer - 999 * (width + 1)
    assert backbone in BACKBONES


def test_the_narrow_one_is_resnet18_with_a_quarter_of_the_channels():
    wide, narrow = (
        PUClassifier("resnet18").state_dict(),
        PUClassifier("resnet18_narrow").state_dict(),
    )
    assert list(narrow) == list(wide)
    for name, weights in wide.items():
        wanted = [size if size in (1, 3, 7) else size // 4 for size in weights.shape]
        assert list(narrow[name].shape) == wanted, name


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (48, 80)])
def test_one_logit_comes_out_for_each_patch_of_any_size(size):
    model = PUClassifier().eval()
    with torch.inference_mode():
        assert model(torch.randn(3, 1, *size)).shape == (3,)
        assert model(torch.randn(1, 1, *size)).shape == (1,)


def test_a_step_sends_a_finite_gradient_to_every_parameter():
    torch.manual_seed(0)
    model = PUClassifier()
    model(torch.randn(4, 1, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_dropout_acts_in_training_only_and_before_the_last_layer():
    torch.manual_seed(0)
    patches = torch.randn(2, 1, 32, 32)
    model = PUClassifier(dropout=0.5).eval()
    assert torch.equal(model(patches), model(patches))
    assert PUClassifier(dropout=0.3).network.fc[0].p == 0.3
    model.network.fc.train()  # batch norm still in evaluation: dropout alone can change the logits
    assert not torch.equal(model(patches), model(patches))


def test_first_layer_starts_as_wide_as_torchvision_makes_it():
    torch.manual_seed(0)
    spread = PUClassifier().network.conv1.weight.std().item()
    assert spread == pytest.approx((2 / (64 * 7 * 7)) ** 0.5, rel=0.05)  # fan out


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet19'.*resnet18, resnet34, resnet50"):
        PUClassifier("resnet19")
