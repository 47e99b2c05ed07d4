"""fmnist/layers.py: torch's own dropout is the oracle, where draws can be compared at all."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fmnist.layers import Dropout, FoldableNorm


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.95])
def test_the_fraction_left_out_is_as_asked_in_each_quarter_of_a_draw(fraction):
    torch.manual_seed(0)
    result = Dropout(fraction)(torch.ones(400_000)).view(-1, 4)  # a row is one draw
    std = math.sqrt(fraction * (1 - fraction) / len(result))
    assert ((result == 0).double().mean(0) - fraction).abs().max() < 5 * std
    assert torch.allclose(result[result != 0], torch.tensor(1 / (1 - fraction)), rtol=1e-3)
    together = torch.corrcoef((result == 0).double().T).fill_diagonal_(0)
    assert together.abs().max() < 5 / math.sqrt(len(result))  # the quarters do not know of each other


def test_the_mean_is_kept_exactly_although_the_fraction_is_rounded():
    kept = Dropout(0.1)(torch.ones(1000, dtype=torch.float64)).max()
    assert kept == 65_536 / (65_536 - 6_554)


def test_gradients_pass_where_values_do():
    values = torch.randn(8, 3, 5, 7, requires_grad=True)
    result = Dropout(0.5)(values)
    result.sum().backward()
    assert torch.equal(values.grad, torch.where(result == 0, 0.0, 2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.rand(4, 3, 5, 7) + 1,
        lambda: (torch.rand(4, 3, 5, 7) + 1).to(memory_format=torch.channels_last),
        lambda: (torch.rand(9, 14) + 1)[1::2, ::3],
        lambda: (torch.rand(5, 1) + 1).expand(5, 6),
        lambda: torch.rand(()) + 1,
        lambda: torch.rand(0, 4) + 1,
    ],
    ids=["dense", "channels last", "gaps", "expanded", "scalar", "empty"],
)
def test_shape_type_and_layout_are_those_of_torchs_own(make, dtype):
    values = make().to(dtype)
    torch.manual_seed(1)
    ours, torchs = Dropout(0.5)(values), nn.Dropout(0.5)(values)
    assert (ours.shape, ours.dtype, ours.stride()) == (torchs.shape, torchs.dtype, torchs.stride())
    assert torch.equal(torch.where(ours == 0, ours, 2 * values), ours)


def test_an_expanded_value_is_left_out_place_by_place():
    torch.manual_seed(2)
    assert len(Dropout(0.5)(torch.ones(1, 1).expand(1, 100)).unique()) == 2


def test_the_same_seed_leaves_out_the_same_values():
    first, second = (torch.manual_seed(3) and Dropout(0.3)(torch.ones(1001)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(second, Dropout(0.3)(torch.ones(1001)))


def test_nothing_is_left_out_when_scoring_or_where_none_is_asked_for():
    values = torch.randn(5, 6)
    assert torch.equal(Dropout(0.3).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()


class NormsWithoutScale(TorchDispatchMode):
    """Counts the batch norms that are computed, and those of them whose kernel is given no scale."""

    computed = without = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.name() == "aten::native_batch_norm":
            self.computed += 1
            self.without += args[1] is None
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "usual"), [((6, 4), nn.BatchNorm1d), ((6, 4, 3, 3), nn.BatchNorm2d)])
def test_a_foldable_norm_is_batch_norm_of_scale_one(shape, usual, training):
    ours, theirs = FoldableNorm(4).train(training), usual(4).train(training)
    made, gradients = [], []
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.bias.copy_(torch.arange(4.0))
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        made.append(norm(values))
        made[-1].square().sum().backward()
        gradients.append((values.grad, norm.bias.grad))
    torch.testing.assert_close(made[0], made[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    kept = {name: tensor for name, tensor in theirs.state_dict().items() if name != "weight"}
    torch.testing.assert_close(dict(ours.state_dict()), kept)


def test_no_kernel_is_asked_for_a_bias_alone():
    """Torch's kernels for CUDA and MPS give the bias a gradient of the scale's shape, and fail where there is none."""
    with NormsWithoutScale() as norms:
        FoldableNorm(4)(torch.randn(6, 4, requires_grad=True)).sum().backward()
    assert (norms.computed, norms.without) == (1, 0)
