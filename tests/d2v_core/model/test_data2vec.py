"""What data2vec promises, for every modality (reference 1.2 to 1.6 and the invariances of chapter 10)."""

import pytest
import torch
import torch.nn.functional as F

from d2v_core.model.data2vec import RegressionConfig, regression_loss
from d2v_core.model.targets import average_targets
from d2v_core.model.teacher import decay_at
from tests.d2v_core.blocks import MODALITIES, masked_batch, small_block, small_model

VERSIONS = [(name, version) for name in MODALITIES for version in (1, 2)]


def without_dropout(name: str, version: int = 1):
    block = small_block(name, version)
    for part in (block["model"]["trunk"], block["model"]["local"]):
        part |= {key: 0.0 for key in part if "dropout" in key}
    return small_model(name, block=block)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_the_student_cannot_see_what_is_masked_and_the_teacher_can(name, version):
    setup, model = without_dropout(name, version)
    batch = masked_batch(name, setup)
    features, padding = model.student.local(batch | {"inputs": batch.get("corrupted", batch["inputs"])})
    changed = features + 3 * batch["mask"].unsqueeze(-1)
    hidden = batch["mask"], batch.get("visible")
    seen = model.student.contextualise(features, padding, *hidden).x
    if (name, version) != ("text", 1):
        torch.testing.assert_close(model.student.contextualise(changed, padding, *hidden).x, seen)
    full = model.teacher.encoder.contextualise(features, padding).x
    assert not torch.allclose(model.teacher.encoder.contextualise(changed, padding).x, full)


def test_masked_words_are_replaced_before_the_student_reads_them():
    setup, _ = small_model("text")
    batch = masked_batch("text", setup, 32)
    hidden = setup.config.table.vocabulary - 1
    assert (batch["corrupted"][batch["mask"]] == hidden).all()
    assert not (batch["inputs"] == hidden).any()
    diverted = (batch["corrupted"] != batch["inputs"]) & ~batch["mask"]
    assert diverted.any(), "a tenth of the chosen tokens become another piece and are not predicted"


@pytest.mark.parametrize("name", MODALITIES)
def test_version_2_encodes_the_visible_tokens_of_every_view_and_no_other(name):
    setup, model = without_dropout(name, 2)
    views = model.config.views.count
    batch = masked_batch(name, setup, 3, views)
    encoded = []
    model.student.trunk.blocks[0].register_forward_hook(lambda block, given, result: encoded.append(given[0].shape))
    loss = model(batch)
    visible = int((~batch["mask"][0]).sum())
    assert encoded == [(3 * views, visible + model.student.local.extra, 16)]
    assert loss.targets.shape == (3, batch["mask"].shape[1], 16), "one set of targets for all views"
    assert len(loss.predictions) == len(loss.masked_targets) == int(loss.count) == len(batch["masked"])


def test_tokens_return_to_their_places_with_fresh_noise_between_them():
    _, model = small_model("speech", version=2)
    visible = torch.tensor([[1, 3], [0, 4]])
    tokens = torch.arange(2 * 2 * 16.0).reshape(2, 2, 16) + 1
    model.eval()
    filled, again = model.fill(tokens, visible, 5), model.fill(tokens, visible, 5)
    for view, places in enumerate(visible):
        assert torch.equal(filled[view, places], tokens[view])
        others = [place for place in range(5) if place not in places]
        assert filled[view, others].std() == pytest.approx(0.01, rel=0.4)
        assert not torch.equal(filled[view, others], again[view, others])


def test_targets_of_all_views_are_those_of_their_sample():
    setup, model = without_dropout("vision", 2)
    views = model.config.views.count
    batch = masked_batch("vision", setup, 2, views)
    loss = model(batch)
    tokens = batch["mask"].shape[1]
    for row, target in zip(batch["masked"].tolist(), loss.masked_targets, strict=True):
        assert torch.equal(target, loss.targets[row // (views * tokens), row % tokens])


@pytest.mark.parametrize("name", MODALITIES)
def test_the_teacher_is_the_student_at_first_and_its_average_afterwards(name):
    _, model = small_model(name)
    start = {key: value.clone() for key, value in model.student.named_parameters()}
    model.begin_update(0)
    for key, value in model.teacher.encoder.named_parameters():
        torch.testing.assert_close(value, start[key])
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    model.begin_update(1)
    copied = model.config.teacher.copied
    for key, value in model.teacher.encoder.named_parameters():
        moved = 1.0 if key.startswith(copied) else 1 - model.decay
        torch.testing.assert_close(value, start[key] + moved, atol=1e-6, rtol=1e-6)


def test_a_decay_of_one_freezes_the_teacher():
    _, model = small_model("vision")
    before = [value.clone() for value in model.teacher.encoder.parameters()]
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    model.teacher.refresh(model.student, 1.0)
    for old, new in zip(before, model.teacher.encoder.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_the_teacher_never_trains_never_drops_and_gets_no_gradient(name, version):
    setup, model = small_model(name, version=version)
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    model(masked_batch(name, setup, views=model.config.views.count if version == 2 else 1)).total.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert all(p.grad is not None for p in model.student.trunk.parameters())


def test_buffers_are_copied_not_averaged():
    _, model = small_model("vision")
    model.student.local.positions.fill_(7.0)
    model.teacher.refresh(model.student, 0.9)
    assert (model.teacher.encoder.local.positions == 7.0).all()


def test_decay_runs_from_start_to_end_and_stays():
    assert decay_at(0, 0.99, 0.999, 100) == 0.99
    assert decay_at(50, 0.99, 0.999, 100) == pytest.approx(0.9945)
    assert decay_at(100, 0.99, 0.999, 100) == decay_at(10**6, 0.99, 0.999, 100) == 0.999


def test_targets_are_normalised_over_time_or_channels_before_and_after_the_mean():
    results = [3 + 5 * torch.randn(2, 50, 8), -1 + torch.randn(2, 50, 8)]
    instance = average_targets(results, ["instance"], [])
    torch.testing.assert_close(instance.mean(dim=1), torch.zeros(2, 8), atol=1e-5, rtol=0)
    by_hand = sum((r - r.mean(1, keepdim=True)) / (r.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for r in results)
    torch.testing.assert_close(instance, by_hand / 2)
    both = average_targets(results, ["layer"], ["layer"])
    torch.testing.assert_close(both, F.layer_norm(sum(F.layer_norm(r, [8]) for r in results) / 2, [8]))


def test_padding_takes_no_part_in_statistics_over_time():
    result, padding = torch.randn(2, 9, 8), torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 6:] = True
    targets = average_targets([result], ["instance"], [], padding)
    torch.testing.assert_close(targets[0], average_targets([result[:1]], ["instance"], [])[0], atol=1e-5, rtol=1e-5)
    alone = average_targets([result[1:, :6]], ["instance"], [])[0]
    torch.testing.assert_close(targets[1, :6], alone, atol=1e-5, rtol=1e-5)


def test_the_targets_are_the_last_blocks_and_the_stated_tensor():
    setup, model = small_model("vision")
    batch = masked_batch("vision", setup)
    encoded = model.teacher.encoder({"inputs": batch["inputs"]})
    features, padding = model.student.local(batch)
    wanted = average_targets(encoded.results[-2:], ["instance"], ["layer"])
    torch.testing.assert_close(model.targets(batch, features, padding), wanted)
    assert wanted.shape == (4, 16, 16), "class tokens are no targets"


def test_losses_are_summed_over_channels_and_scaled():
    prediction, target = torch.randn(5, 16), torch.randn(5, 16)
    squared = regression_loss(prediction, target, RegressionConfig(0.0, "inverse_sqrt_width"))
    torch.testing.assert_close(squared, ((prediction - target) ** 2).sum() / 4)
    smooth = regression_loss(prediction, target, RegressionConfig(2.0, "inverse_width"))
    error = (prediction - target).abs()
    by_hand = torch.where(error < 2, error**2 / 4, error - 1)
    torch.testing.assert_close(smooth, by_hand.sum() / 16)


@pytest.mark.parametrize("name", MODALITIES)
def test_the_loss_counts_the_masked_tokens(name):
    setup, model = small_model(name)
    batch = masked_batch(name, setup)
    loss = model(batch)
    assert loss.count == batch["mask"].sum()
    assert loss.predictions.shape == (int(loss.count), 16)
    assert loss.targets.shape == (*batch["mask"].shape, 16)
