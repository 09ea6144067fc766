"""Fine-tuning of images with all that the published recipe does to them: what is learnt from, and resumed."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d2v_core.config import build
from d2v_core.data.order import key
from d2v_core.data.table import Table, write_index, write_shard
from d2v_core.errors import UserError
from d2v_core.finetuning import (
    FinetuneConfig,
    finetune,
    finetuned_setup,
    label_columns,
    label_pairs,
    labelled_rows,
    predict,
)
from d2v_core.model.supervised import HeadConfig, Supervised
from tests.d2v_core.blocks import PARAMS, small_block, small_setup

CLASSES = ["nought", "one", "two"]
OPERATIONS = {"count": 2, "magnitude": 9.0, "spread": 0.5}
AUGMENT = {"area": 0.08, "aspect": 0.75, "flip": True, "jitter": 0.0, "mean": [0.5], "std": [0.5], "erase": 0.25}
PUBLISHED = {
    "augment": AUGMENT | {"operations": OPERATIONS},
    "mix": {"mixup": 0.8, "cutmix": 1.0, "probability": 0.9, "switch": 0.5},
    "head": {"kind": "mean", "freeze": 0, "smoothing": 0.1, "init_std": 0.02},
}
LOOP = {"updates": 6, "accumulate": 2, "log_every": 1, "save_every": 2}


def configure(**changes) -> FinetuneConfig:
    block = copy.deepcopy(PARAMS["tasks"]["digits"]["train"]) | {"batch": 4, "per_class": 0, "loop": LOOP}
    return build(FinetuneConfig, block | changes, "train")


@pytest.fixture
def table(tmp_path) -> Table:
    """Images of 10 x 10 pixels: 2 more than the model reads."""
    rng = np.random.default_rng(0)
    rows = [
        {"image": rng.integers(0, 255, 100).astype(np.uint8), "label": n % 3, "id": f"{n}", "split": "train"}
        for n in range(12)
    ]
    setup, _ = small_setup("vision")
    shard = write_shard(tmp_path / "table" / "train-00000.arrow", setup.modality.columns, rows)
    write_index(tmp_path / "table", {"train-00000.arrow": shard}, CLASSES, 0)
    return Table(tmp_path / "table", "train", setup.modality.columns)


def labels(rows) -> torch.Tensor:
    return torch.tensor([row["label"] for row in rows])


def run(config, table, state, stop_after=None):
    setup, _ = small_setup("vision", small_block("vision", 2))
    torch.manual_seed(0)
    model = Supervised(finetuned_setup(setup, config).encoder(), config.head, 16, len(CLASSES))
    state.mkdir(exist_ok=True)
    records = []
    for step in finetune(setup, config, model, table, labels, 3, state):
        records.append(step.record)
        if step.update == stop_after:
            break
    return model, records


def test_the_published_recipe_stopped_and_resumed_equals_never_stopped(tmp_path, table):
    config = configure(**PUBLISHED)
    whole, all_records = run(config, table, tmp_path / "whole")
    run(config, table, tmp_path / "halves", stop_after=3)
    resumed, late_records = run(config, table, tmp_path / "halves")
    assert late_records == all_records[2:], "it went on from update 2, the last that was saved"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_blocks_are_recomputed_where_the_loop_says_so(tmp_path, table):
    _, kept = run(configure(), table, tmp_path / "kept")
    model, recomputed = run(configure(loop=LOOP | {"recompute": True}), table, tmp_path / "recomputed")
    assert model.encoder.trunk.recompute
    assert recomputed == kept


@pytest.mark.parametrize("part", ["augment", "mix", "head"])
def test_every_part_of_the_recipe_changes_what_is_learnt(tmp_path, table, part):
    _, all_of_it = run(configure(**PUBLISHED), table, tmp_path / "all")
    without = {name: value for name, value in PUBLISHED.items() if name != part}
    _, less = run(configure(**without), table, tmp_path / "less")
    assert all_of_it != less


def test_the_loss_of_soft_targets_is_that_of_the_definition():
    setup, _ = small_setup("vision")
    config = HeadConfig("mean", 0, 0.1)
    model = Supervised(finetuned_setup(setup, configure()).encoder(), config, 16, 3).eval()
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
    inputs = {"inputs": torch.randn(2, 1, 8, 8), "labels": targets}
    logits = model.logits(inputs)[0].detach().double()
    smooth = 0.9 * targets.double() + 0.1 / 3
    expected = -(smooth * (logits - logits.exp().sum(1, keepdim=True).log())).sum()
    loss = model(inputs)
    assert float(loss.total.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.count) == 2
    hard = model(inputs | {"labels": torch.tensor([0, 1])}).total
    torch.testing.assert_close(hard, model(inputs | {"labels": F.one_hot(torch.tensor([0, 1]), 3).float()}).total)


def test_fine_tuning_sees_images_as_it_is_told_and_the_table_in_its_middle(table):
    setup, _ = small_setup("vision")
    tuned = finetuned_setup(setup, configure(augment=AUGMENT))
    rows = [table[0], table[1]]
    whole = tuned.modality.batch(rows, None, tuned.config)["inputs"]
    middle = torch.from_numpy(rows[0]["image"].reshape(1, 10, 10)[:, 1:9, 1:9].copy()) / 255
    torch.testing.assert_close(whole[0], (middle - 0.5) / 0.5)
    own = setup.config.augment
    torch.testing.assert_close(
        setup.modality.batch(rows, None, setup.config)["inputs"][0], (middle - own.mean[0]) / own.std[0]
    )
    views = [tuned.modality.batch(rows, [key(0, n), key(1, n)], tuned.config)["inputs"] for n in range(50)]
    erased = [view for view in views if view.min() < -1.001 or view.max() > 1.001]
    assert views[0].shape == (2, 1, 8, 8)
    assert len(erased) > 5, "noise stands over what was normalised"
    assert finetuned_setup(tuned, configure(augment=AUGMENT)) == tuned
    assert finetuned_setup(setup, configure(augment={})).config == setup.config
    assert finetuned_setup(setup, configure(augment=None)).config == setup.config


def test_predictions_do_not_depend_on_the_augmentation(table):
    config = configure(**PUBLISHED)
    setup, _ = small_setup("vision")
    tuned = finetuned_setup(setup, config)
    model = Supervised(tuned.encoder(), config.head, 16, len(CLASSES))
    once, again = (torch.stack(list(predict(tuned, model, table, torch.device("cpu")))) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize(
    ("name", "augment", "sentence"),
    [
        ("vision", {"are": 0.5}, r"^vision: train\.augment\.are is not a known key\. Did you mean 'area'\?$"),
        ("vision", {"area": 2.0}, r"^vision: train\.augment\.area must be in \(0, 1\], not 2\.0\.$"),
        ("vision", {"mean": [0.5] * 3}, r"^vision: train\.augment\.mean must hold one number per channel, not 3\.$"),
        ("vision", {"operations": {"count": 2}}, r"train\.augment\.operations\.magnitude is missing; add it\.$"),
        ("text", {"area": 0.5}, r"^text has no block model\.augment to change; set train\.augment to null or {}\.$"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_one_sentence(name, augment, sentence):
    setup, _ = small_setup(name)
    with pytest.raises(UserError, match=sentence):
        finetuned_setup(setup, configure(augment=augment))


@pytest.mark.parametrize(("name", "version"), [("vision", 2), ("text", 1), ("speech", 1)])
def test_there_must_be_a_bias_for_every_block_to_have_its_own(name, version):
    setup, _ = small_setup(name, small_block(name, version))
    with pytest.raises(UserError, match=rf"^{name} has no bias in model\.local to copy; .* to false\.$"):
        finetuned_setup(setup, configure(augment=None, block_bias=True))


def test_every_block_has_a_bias_of_its_own_that_learns():
    setup, _ = small_setup("vision")
    config = configure(block_bias=True)
    tuned = finetuned_setup(setup, config)
    assert finetuned_setup(tuned, config) == tuned
    model = Supervised(tuned.encoder(), config.head, 16, 3)
    model({"inputs": torch.randn(2, 1, 8, 8), "labels": torch.tensor([0, 1])}).total.backward()
    gradient = model.encoder.local.relative_bias.grad
    assert len(gradient) == setup.trunk.depth
    assert all(table.any() for table in gradient)
    assert not torch.equal(*gradient[:2])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mix": PUBLISHED["mix"], "head": {"kind": "ctc", "freeze": 0, "smoothing": 0.0}}, r"train\.mix needs a head"),
        (
            {"mix_waves": {"least": 0.5, "probability": 1.0}, "head": {"kind": "ctc", "freeze": 0, "smoothing": 0.0}},
            r"train\.mix_waves needs a head",
        ),
        ({"head": {"kind": "ctc", "freeze": 0, "smoothing": 0.0}}, r"train\.augment must be null for the head 'ctc'"),
        (
            {"head": {"kind": "ctc", "freeze": 0, "smoothing": 0.0}, "per_class": 2},
            r"train\.per_class must be 0, not 2",
        ),
        (
            {"head": {"kind": "score", "freeze": 0, "smoothing": 0.0}, "per_class": 2},
            r"train\.per_class must be 0, not 2",
        ),
        ({"head": {"kind": "tags", "freeze": 0, "smoothing": 0.1}}, r"train\.head\.smoothing must be 0 for the head"),
        ({"mix": {"mixup": 0.8}}, r"train\.mix\.cutmix is missing"),
        ({"mix": PUBLISHED["mix"] | {"switch": 2.0}}, r"train\.mix\.switch must be in"),
        ({"augment": True}, r"train\.augment must be"),
        ({"head": PUBLISHED["head"] | {"init_std": 0.0}}, r"train\.head\.init_std must be positive"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        configure(**changes)


def test_images_of_another_margin_fit_the_same_model(table):
    setup, _ = small_setup("vision")
    other = replace(setup.config.table, margin=2)
    assert other == setup.config.table, "no model depends on it"
    assert repr(other) != repr(setup.config.table), "a table does"
    (row,) = setup.modality.rows(torch.zeros(3, 30, 40, dtype=torch.uint8), other)
    assert row["image"].shape == (100,)
    assert setup.modality.batch([row], None, setup.config)["inputs"].shape == (1, 1, 8, 8)


def test_few_labels_of_a_class_are_the_first_rows_that_have_it_in_a_keyed_order(tmp_path):
    setup, _ = small_setup("vision")
    config = configure(head={"kind": "tags", "freeze": 0, "smoothing": 0.0})
    rng = np.random.default_rng(0)
    several = [np.flatnonzero(rng.random(3) < 0.4).tolist() for _ in range(40)]
    content = [{"image": np.zeros(64, np.uint8), "id": str(n), "labels": row} for n, row in enumerate(several)]
    columns = label_columns(setup, config.head)
    shards = {
        f"train-0000{n}.arrow": write_shard(tmp_path / f"train-0000{n}.arrow", columns, content[20 * n : 20 * n + 20])
        for n in range(2)
    }
    write_index(tmp_path, shards, CLASSES, 0)
    table = Table(tmp_path, "train", columns)
    owners, found = label_pairs(table, config.head)
    assert list(zip(owners.tolist(), found.tolist(), strict=True)) == [
        (number, label) for number, row in enumerate(several) for label in row
    ]
    assert labelled_rows(table, config, 0).tolist() == [number for number, row in enumerate(several) if row]
    few = labelled_rows(table, replace(config, per_class=2), 0)
    counts = np.sum([[label in several[row] for label in range(3)] for row in few], axis=0)
    assert counts.min() >= 2
    assert len(few) <= 6
    assert few.tolist() != labelled_rows(table, replace(config, per_class=2), 1).tolist()


def test_a_weighted_layer_cannot_be_dropped():
    setup, _ = small_setup("text")
    drop = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "layer_drop": 0.1, "drop_path": 0.0}
    head = {"kind": "first", "freeze": 0, "smoothing": 0.0, "layers": "weighted"}
    with pytest.raises(UserError, match=r"^text: layers of the head .* set layer_drop to 0\.$"):
        finetuned_setup(setup, configure(augment=None, regularise=drop, head=head))
