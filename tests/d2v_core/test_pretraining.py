"""A run that was stopped and a run that was not end in the same bits; the same seed gives the same run."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from d2v_core.data.table import Table, write_index, write_shard
from d2v_core.errors import UserError
from d2v_core.pretraining import pretrain
from tests.d2v_core.blocks import MODALITIES, rows, small_block, small_setup
from tests.nightly import NIGHTLY

CPU = torch.device("cpu")
BATCH = {"speech": 3.0, "vision": 4, "text": 200}
CASES = [(1, 1), (2, 2)] + [(2, 1), (1, 2)] * NIGHTLY


def make_table(folder, name, setup, count=12):
    shard = write_shard(folder / "train-00000.arrow", setup.modality.columns, rows(name, count))
    write_index(folder, {"train-00000.arrow": shard}, [], 0)
    return Table(folder, "train", setup.modality.columns)


def configure(name, updates=6, version=1, **loop):
    setup, config = small_setup(name, small_block(name, version))
    steps = replace(config.loop, updates=updates, log_every=1, save_every=2, **loop)
    return setup, replace(config, batch=BATCH[name], loop=steps)


def run(setup, config, table, state, stop_after=None, seed=0):
    records = []
    model, steps = pretrain(setup, config, table, seed, state, CPU)
    for step in steps:
        records.append(step.record)
        if step.update == stop_after:
            break
    return model, records


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize(("accumulate", "version"), CASES)
def test_stopped_and_resumed_equals_never_stopped(tmp_path, name, accumulate, version):
    setup, config = configure(name, accumulate=accumulate, version=version)
    table = make_table(tmp_path / "table", name, setup)
    whole, all_records = run(setup, config, table, tmp_path / "whole")
    run(setup, config, table, tmp_path / "halves", stop_after=5)
    resumed, late_records = run(setup, config, table, tmp_path / "halves")
    assert late_records == all_records[4:], "it went on from update 4, the last that was saved"
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_the_seed_decides_everything(tmp_path):
    setup, config = configure("vision", updates=3)
    table = make_table(tmp_path / "table", "vision", setup)
    losses = [
        [record["loss"] for record in run(setup, config, table, tmp_path / str(number), seed=seed)[1]]
        for number, seed in enumerate((0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_more_target_layers_than_blocks_are_refused(tmp_path):
    setup, config = configure("vision")
    targets = replace(config.objective.targets, layers=3)
    config = replace(config, objective=replace(config.objective, targets=targets))
    with pytest.raises(UserError, match=r"targets\.layers must be in 1-2"):
        run(setup, config, make_table(tmp_path / "table", "vision", setup), tmp_path / "state")


def test_a_table_with_only_short_rows_is_refused(tmp_path):
    setup, config = configure("speech")
    crop = replace(setup.config.crop, min_seconds=7.0, max_seconds=9.0)
    setup = replace(setup, config=replace(setup.config, crop=crop))
    table = make_table(tmp_path / "table", "speech", setup)
    with pytest.raises(UserError, match="long enough"):
        run(setup, config, table, tmp_path / "state")


def test_columns_of_a_modality_are_labels_and_a_list():
    for name in MODALITIES:
        setup, _ = small_setup(name)
        assert setup.modality.columns.names[:3] == ["id", "label", "text"]
        assert pa.types.is_list(setup.modality.columns[3].type)
