"""No step asks the device for values: on a GPU every such question would wait for all work in flight.

A machine without a GPU can tell. Fake tensors have shapes and no values, so whatever needs a value fails on them:
.item(), a branch on a tensor, nonzero, an index of booleans. What is copied between host and device in a step, where
a GPU waits too, comes by operations that are refused here.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from d2v_core.training.loop import LoopConfig, fit
from d2v_core.training.optimizer import make_optimizer
from tests.d2v_core.blocks import MODALITIES, masked_batch, rows, small_block, small_model, small_setup

LOOP = LoopConfig(updates=9, accumulate=2, log_every=9, save_every=9)


class HostCopy(Exception):
    """A tensor of Python numbers was made, or one was moved between devices."""


class NoHostCopies(TorchDispatchMode):
    """Refuses copies between host and device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        moved = [each.device.type for each in (*args[:2], result) if isinstance(each, torch.Tensor)]
        if operation.overloadpacket is torch.ops.aten.lift_fresh:
            raise HostCopy("a tensor was made of Python numbers")
        if operation.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and len(set(moved)) > 1:
            raise HostCopy(f"a tensor was moved: {moved}")
        return result


def faked(model, batch, device):
    """Return the mode, and model and batch with fake tensors of the same shapes on ``device`` in it."""
    mode = FakeTensorMode()

    def fake(tensor):
        shape = mode.from_tensor(tensor.detach())
        with mode:
            return shape.to(device)

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                values = fake(parameter)
                with mode:
                    module._parameters[name] = nn.Parameter(values, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = fake(buffer)
    return mode, model.train(), {name: fake(tensor) for name, tensor in batch.items()}


def small_parts(name, version):
    block = small_block(name, version)
    setup, config = small_setup(name, block)
    _, model = small_model(name, block=block)
    batch = masked_batch(name, setup, views=config.objective.views.count if version == 2 else 1)
    return model, batch, config


def take_steps(model, batch, config, loop):
    mode, model, batch = faked(model, batch, "cpu")
    with mode:
        steps = fit(model, make_optimizer(model, config.optimizer), iter([(1.0, batch)] * 9), loop, config.optimizer, 0)
        next(steps)
        with NoHostCopies():
            return next(steps)


@pytest.mark.parametrize(("version", "precision"), [(1, "float32"), (2, "bfloat16")])
@pytest.mark.parametrize("name", MODALITIES)
def test_an_update_never_asks_for_a_value(name, version, precision):
    model, batch, config = small_parts(name, version)
    step = take_steps(model, batch, config, replace(LOOP, precision=precision))
    assert step.update == 2


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", MODALITIES)
def test_a_forward_pass_on_a_gpu_copies_nothing_from_the_host(name, version):
    mode, model, batch = faked(*small_parts(name, version)[:2], "cuda")
    with mode, NoHostCopies():
        assert model(batch).total.device.type == "cuda"


@pytest.mark.parametrize("name", MODALITIES)
def test_nor_does_an_encoder_on_padded_rows(name):
    setup, _ = small_setup(name)
    batch = setup.modality.batch(rows(name, 3), None, setup.config)
    mode, encoder, batch = faked(setup.encoder(), batch, "cuda")
    with mode, NoHostCopies():
        assert (encoder(batch).padding is None) == (name == "vision")


QUESTIONS = {
    "item": (lambda x: x.sum().item(), DataDependentOutputException),
    "branch": (lambda x: x if (x > 0).any() else None, DataDependentOutputException),
    "index": (lambda x: x[x > 0], DynamicOutputShapeException),
    "nonzero": (lambda x: x.nonzero(), DynamicOutputShapeException),
    "numbers": (lambda x: x.sum() + torch.tensor([1.0], device=x.device), HostCopy),
    "move": (lambda x: x.cpu() * 1, HostCopy),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_test_sees_every_kind_of_question(question):
    ask, error = QUESTIONS[question]
    _, batch, _ = small_parts("vision", 1)
    mode, _, batch = faked(nn.Module(), batch, "cuda")
    with mode, NoHostCopies(), pytest.raises(error):
        ask(batch["inputs"])
