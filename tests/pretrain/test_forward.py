"""The training forward gives the numbers of tabpfn's own module."""

import pytest
import torch
from tabpfn.architectures.tabpfn_v2 import TabPFNV2

from tttab.pretrain import forward
from tttab.pretrain.checkpoint import new_network
from tttab.pretrain.draw import Draw
from tttab.pretrain.prior import Size, batch
from tttab.pretrain.settings import recipe


def _module_positions(net: TabPFNV2, groups: int) -> torch.Tensor:
    """Return the column embeddings' random vectors as the module draws them on the CPU."""
    generator = torch.Generator().manual_seed(net.seed)
    return torch.randn((groups, net.emsize // 4), generator=generator)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("features", [1, 4, 7])
def test_training_forward_equals_module(task, features):
    settings = recipe("tiny", task)
    net = new_network(settings, seed=3)
    with torch.no_grad():  # the outputs of fresh blocks are zero: make them count
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    tables = batch(Draw(5, task), Size(6, 40, 12, features, 5), settings, None)
    tables.x[0, :, 0] = 2.5  # a constant column
    tables.x[1, 3:9, -1] = float("nan")
    groups = -(-features // 2)
    positions = _module_positions(net, groups)
    ours = forward.logits(net, tables, positions.expand(6, -1, -1))
    with torch.no_grad():
        theirs = net(tables.x.transpose(0, 1), tables.y[:, :40].T.float()).transpose(0, 1)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
    assert theirs.std() > 0.01


def test_no_kernel_that_plans_every_shape_anew_is_used():
    settings = recipe("tiny", "classification")
    tables = batch(Draw(5, "kernels"), Size(2, 20, 8, 4, 3), settings, None)
    positions = Draw(5, "positions").normal(2, 2, settings.architecture.emsize // 4)
    allowed = []

    def spied(*layer):
        allowed.append((torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))
        return forward.block(*layer)

    forward.logits(new_network(settings, seed=3), tables, positions, run=spied)
    assert allowed == [(False, True)] * (settings.architecture.nlayers - 1)
