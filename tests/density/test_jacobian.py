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
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.Dropout(0.5), nn.Linear(6, 4))
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


class Pooled(nn.Module):
    """Tokens of a feature map through a norm of their own, then their mean."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.after = after

    def forward(self, x):
        return self.after(x.flatten(2).transpose(1, 2)).mean(1)


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
    encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 4), norm, Pooled(nn.LayerNorm(8)), nn.Linear(8, 4))
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


@pytest.mark.parametrize(
    "hidden", [with_batch_norm(), nn.Sequential(nn.Flatten(), nn.Dropout(0.5))]
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_function_cannot_hide_training_mode(hidden: nn.Module, count: int) -> None:
    """Coupled or random embeddings give themselves away, for a single image as well."""
    with pytest.raises(ValueError, match=r"other features beside another image .*\.eval\(\)"):
        jepa_score(lambda x: hidden(x), images(count))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    """Whether the weights have it or only a function's images or embeddings."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).eval().to(dtype)
    for encoder, x in (
        (module, images(2)),
        (lambda x: x.flatten(1)[:, :4], images(2).to(dtype)),
        (lambda x: x.flatten(1)[:, :4].to(dtype), images(2)),
    ):
        with pytest.raises(ValueError, match=r"are .*float16, whose .*call \.float\(\)"):
            jepa_score(encoder, x)


def test_autocast_around_the_call_is_switched_off() -> None:
    """The score is that of full precision."""
    expected = jepa_score(tiny_encoder(), images(1)).score
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jepa_score(tiny_encoder(), images(1)).score, expected)


def test_tokens_have_to_be_pooled() -> None:
    """The sentence names what does it; pooling keeps the encoder's mode."""
    tokens = tiny_encoder()[0]
    with pytest.raises(ValueError, match=r"\(1, 16, 24\), and \[1, K\] is needed.*pooled"):
        jepa_score(tokens, images(1))
    assert not pooled(tokens).training and pooled(tokens.train()).training


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.empty(0, 4), "at least one image"),
        (torch.ones(2, 4, dtype=torch.uint8), "of torch.uint8"),
        (torch.full((2, 4), torch.nan), "NaN or infinity"),
    ],
)
def test_mistakes_are_one_sentence(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jepa_score(lambda x: x, x)


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
