"""Published runs come back as they were."""

import numpy as np
import pytest
import torch

import d2v_core
from d2v_core.errors import Dropped, UserError
from d2v_core.run import write_run
from tests.d2v_core.blocks import small_block, small_model

ITEMS = {
    "speech": [np.random.default_rng(n).normal(0, 0.1, 8000 + 900 * n).astype(np.float32) for n in range(3)],
    "vision": [torch.randint(0, 255, (1, 9 + n, 12), dtype=torch.uint8) for n in range(3)],
    "text": [np.arange(4, 20 + n) for n in range(3)],
}


def publish(folder, name):
    _, model = small_model(name)
    block = small_block(name)
    config = {"modality": name, "version": 1, "table": block["table"], "model": block["model"]}
    write_run(folder, config, {f"encoder.{key}": value for key, value in model.student.state_dict().items()})
    return model


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_has_the_same_features_alone_and_in_a_batch(tmp_path, name):
    publish(tmp_path / "run", name)
    encoder = d2v_core.load(tmp_path / "run")
    together = encoder.embed(ITEMS[name])
    for features, item in zip(together, ITEMS[name], strict=True):
        assert features.shape[1] == 16
        torch.testing.assert_close(features, encoder.embed([item])[0], atol=1e-5, rtol=1e-5)


def test_the_weights_are_the_students(tmp_path):
    model = publish(tmp_path / "run", "vision")
    loaded = d2v_core.load(tmp_path / "run").encoder.state_dict()
    for key, value in model.student.state_dict().items():
        assert torch.equal(value, loaded[key])


def test_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        d2v_core.load(tmp_path)
    publish(tmp_path / "run", "vision")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        d2v_core.load(tmp_path / "run")


def test_a_damaged_configuration_is_one_sentence(tmp_path):
    publish(tmp_path / "run", "vision")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        d2v_core.load(tmp_path / "run")


def test_an_item_that_is_no_row_is_refused(tmp_path):
    publish(tmp_path / "run", "speech")
    with pytest.raises(Dropped, match="empty"):
        d2v_core.load(tmp_path / "run").embed([np.zeros(0, dtype=np.float32)])
