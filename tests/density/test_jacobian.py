"""What an encoder goes through while its Jacobian is taken, and which encoders are refused."""

import pytest
import torch
from torch import nn

from sparsejepa.density.jepa_score import jepa_score, pooled
from sparsejepa.randomness import generator
from tests.density.listing import listing_jacobian, listing_score
from tests.density.tiny_encoders import images, tiny_encoder, tiny_vit


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 4))


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_attention_on_or_off(fused: bool) -> None:
    """Equal scores, no warning, and the model's own switches stay as they were."""
    encoder = tiny_vit()
    expected = listing_score(listing_jacobian(encoder, images(2)))
    for block in encoder.blocks:
        block.attn.fused_attn = fused
    found = jepa_score(encoder, images(2), null_directions=0).score
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)
    assert all(block.attn.fused_attn == fused for block in encoder.blocks)


def test_training_mode_is_left_and_put_back() -> None:
    """One sentence says so; dropout is off for the score; each part gets its own mode back."""
    encoder = flat(nn.Linear(3072, 6), nn.Dropout(0.5), nn.Linear(6, 4))
    expected = jepa_score(encoder.eval(), images(2)).score
    encoder.train()
    encoder[1].eval()
    with pytest.warns(UserWarning, match="taken in evaluation mode, and the mode is put back"):
        assert torch.equal(jepa_score(encoder, images(2)).score, expected)
    assert [part.training for part in encoder] == [True, False, True, True]


def test_nothing_of_the_model_changes() -> None:
    """Weights that want gradients keep wanting them, and get none."""
    encoder = tiny_encoder().requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert not jepa_score(encoder, images(2)).score.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_batch_norm_scores_each_image_on_its_own() -> None:
    """By its running statistics, as the listing in evaluation mode; without any it is refused."""
    encoder, x = with_batch_norm(), images(3)
    with pytest.warns(UserWarning, match="taken in evaluation mode"):
        scores = jepa_score(encoder, x).score
    torch.testing.assert_close(jepa_score(encoder.eval(), x[2:]).score, scores[2:])
    encoder[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="other features beside another image"):
        jepa_score(encoder, x)


class Pooled(nn.LayerNorm):
    """Tokens of a feature map through a norm of their own, then their mean."""

    def forward(self, x):
        return super().forward(x.flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(8),
        nn.InstanceNorm2d(8, affine=True),
        nn.InstanceNorm2d(8, track_running_stats=True),
        nn.GroupNorm(2, 8),
    ],
    ids=lambda norm: type(norm).__name__,
)
@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 1), (1, 4), (2, 1), (2, 4)])
def test_norms_before_tokens(norm: nn.Module, batch_size: int, chunk_size: int) -> None:
    """The Jacobian of central differences in float64: torch's own backward pass is wrong for some.

    For a batch of one image whose gradient is strided as tokens are, with and without `vmap`.
    """
    draw = generator(0, "norms")
    encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 4), norm, Pooled(8), nn.Linear(8, 4))
    encoder = encoder.eval().requires_grad_(False)
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
    x = torch.rand(2, 3, 8, 8, generator=draw)
    step = 1e-6 * torch.eye(192, dtype=torch.float64).view(192, 3, 8, 8)
    encoder.double()
    ends = [[encoder(image + sign * step) for sign in (1, -1)] for image in x.double()]
    exact = torch.stack([(above - below).T / 2e-6 for above, below in ends])
    expected = torch.linalg.svdvals(exact).log()
    encoder.float()
    found = jepa_score(encoder, x, batch_size=batch_size, chunk_size=chunk_size)
    torch.testing.assert_close(found.log_spectrum, expected, rtol=0, atol=1e-4)


def test_a_wrong_gradient_is_refused() -> None:
    """An operation with a backward pass of its own: no score beats a wrong one."""

    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return 2 * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, gradient):
            return 3 * gradient

        @staticmethod
        def jvp(ctx, tangent):
            return 2 * tangent

    with pytest.raises(ValueError, match="backward pass does not agree with its forward-mode"):
        jepa_score(lambda x: Wrong.apply(x), torch.ones(2, 4))


# A function cannot hide training mode: coupled or random embeddings give themselves away.
HIDDEN = r"other features beside another image .*\.eval\(\)"
HALF = r"are .*float16, whose .*call \.float\(\)"


@pytest.mark.parametrize(
    ("encoder", "x", "message"),
    [
        (with_batch_norm().forward, images(1), HIDDEN),
        (with_batch_norm().forward, images(3), HIDDEN),
        (flat(nn.Dropout(0.5)).forward, images(1), HIDDEN),
        (flat(nn.Linear(3072, 4)).eval().half(), images(2), HALF),
        (flat(), images(2).bfloat16(), HALF),
        (lambda x: x.flatten(1).half(), images(2), HALF),
        (tiny_encoder()[0], images(1), r"\(1, 16, 24\), and \[1, K\] is needed.*pooled"),
        (flat(), torch.empty(0, 4), "at least one image"),
        (flat(), torch.ones(2, 4, dtype=torch.uint8), "of torch.uint8"),
        (flat(), torch.full((2, 4), torch.nan), "NaN or infinity"),
    ],
)
def test_mistakes_are_one_sentence(encoder, x: torch.Tensor, message: str) -> None:
    if isinstance(encoder, nn.Module):
        encoder.eval()
    with pytest.raises(ValueError, match=message):
        jepa_score(encoder, x)


def test_autocast_around_the_call_is_switched_off() -> None:
    """The score is that of full precision."""
    expected = jepa_score(tiny_encoder(), images(1)).score
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jepa_score(tiny_encoder(), images(1)).score, expected)


def test_pooling_keeps_the_mode() -> None:
    tokens = tiny_encoder()[0]
    assert not pooled(tokens).training and pooled(tokens.train()).training


def test_rounding_of_a_collapsed_encoder_is_no_wrong_gradient() -> None:
    """Its derivatives are what is left of large numbers that cancel."""
    layers = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 3))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(0, "weights")))
        layers[2].weight[:] = 1e3 * (torch.arange(64) % 2 * 2 - 1)
        layers[0].weight[1::2] = layers[0].weight[::2]
        layers[0].bias[1::2] = layers[0].bias[::2] + 1e-6
    points = torch.randn(8, 2, generator=generator(0, "points"))
    assert jepa_score(layers.eval(), points, null_directions=0).score.isfinite().all()
