"""Gradients, teacher updates and the trace of five updates of ours, under the reference's names."""

import torch
from torch import Tensor

from d2v_core.model.data2vec import Data2Vec
from tests.parity.models import CASES, family, golden
from tests.parity.names import place
from tests.parity.passes import Numbers

RATE = 0.1
UPDATES = 5


def trained(model: Data2Vec) -> Numbers:
    """Return the parameters that learn, by the names of ``tests.parity.names``."""
    head = {f"head.{name}": parameter for name, parameter in model.head.named_parameters()}
    return dict(model.student.named_parameters()) | head


def gradients(model: Data2Vec, mean: Tensor) -> Numbers:
    """Return the gradient of ``mean`` for every parameter that has one."""
    parameters = trained(model)
    found = torch.autograd.grad(mean, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def under_reference_names(name: str, reference: dict[str, Tensor], ours: Numbers, prefix: str = "") -> Numbers:
    """Return the tensors of ours that belong to the reference's names, in its shapes; those that ours lacks are out."""
    case, found = CASES[name], {}
    for key, theirs in reference.items():
        if prefix + key in case.without_place:
            continue
        tensor = place(prefix + key, case.version, case.prenet).of(ours)
        if tensor is not None:
            found[key] = tensor.reshape(theirs.shape) if theirs.numel() == tensor.numel() else tensor  # or its norm
    return found


def gradient_numbers(name: str, ours: Numbers) -> Numbers:
    """Return gradients and their norms; the norm is -1 where there is no gradient."""
    dumped = golden(name)
    numbers = {f"grad/{key}": value for key, value in by_key(name, "grad/", ours).items()}
    norms = by_key(name, "grad_norm/", ours)
    for key in family(dumped, "grad_norm/"):
        numbers[f"grad_norm/{key}"] = norms[key].norm() if key in norms else torch.tensor(-1.0)
    numbers["grad_norm_total"] = torch.stack([gradient.norm() for gradient in ours.values()]).norm()
    return numbers


def by_key(name: str, prefix: str, ours: Numbers, inner: str = "") -> Numbers:
    """Return ``ours`` under the names of one family of dumped tensors."""
    return under_reference_names(name, family(golden(name), prefix), ours, inner)


def state(model: Data2Vec, teacher: bool = False) -> Numbers:
    """Return copies of all parameters and buffers of the student with its head, or of the teacher."""
    encoder = model.teacher.encoder if teacher else model.student
    tensors = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    tensors |= {} if teacher else {f"head.{key}": value for key, value in model.head.named_parameters()}
    return {key: value.detach().clone() for key, value in tensors.items()}


def fixed_tables(name: str, model: Data2Vec) -> Numbers:
    """Return the tables that are computed on our side and part of the weights on the other."""
    buffers, prefix = dict(model.student.named_buffers()), CASES[name].teacher_prefix
    numbers = {f"weights/{key}": value for key, value in by_key(name, "weights/", buffers).items()}
    return numbers | {f"ema_init/{key}": value for key, value in by_key(name, "ema_init/", buffers, prefix).items()}


def trace(name: str, model: Data2Vec, inputs: Numbers) -> Numbers:
    """Return losses and decays before update 1 and after each of 5, and what they leave; changes ``model``."""
    losses, decays, numbers, prefix = [], [], {}, CASES[name].teacher_prefix
    for update in range(UPDATES + 1):
        if update:
            model.begin_update(update)
        if update == 1:
            teacher = by_key(name, "ema/", state(model, teacher=True), prefix)
            numbers |= {f"ema/{key}": value for key, value in teacher.items()}
        loss = model(inputs)
        losses.append(loss.total.detach() / loss.count)
        decays.append(torch.tensor(model.decay))
        if update < UPDATES:
            descend(model, loss.total / loss.count)
    numbers |= {"trace/loss": torch.stack(losses), "trace/ema_decay": torch.stack(decays)}
    for key, ours, inner in (("weight", state(model), ""), ("ema", state(model, teacher=True), prefix)):
        kind = f"trace/{key}_norm_after_5/"
        numbers |= {kind + parameter: value.norm() for parameter, value in by_key(name, kind, ours, inner).items()}
    return numbers


@torch.no_grad()
def descend(model: Data2Vec, mean: Tensor) -> None:
    """Take one step of plain gradient descent on ``mean``."""
    with torch.enable_grad():
        found = gradients(model, mean)
    for name, parameter in trained(model).items():
        if name in found:
            parameter.sub_(RATE * found[name])
