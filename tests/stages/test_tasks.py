"""With which weights a task begins."""

import pytest
import torch

from d2v_core.errors import UserError
from d2v_core.run import read_weights
from stages import tasks


@pytest.fixture
def pretrained(project):
    project.prepare("text")
    project.write("topics")
    project.done("prepare", "topics")
    project.done("pretrain", "text")
    return project


def begun(project, origin: str, **train) -> dict[str, torch.Tensor]:
    """Return the weights with which the encoder of ``topics`` begins."""
    project.set(**{f"tasks__topics__train__{key}": value for key, value in train.items()})
    task = tasks.starting_from(tasks.read_task("topics"), origin)
    torch.manual_seed(0)
    return tasks.first_model(task, origin).encoder.state_dict()


def test_fresh_parts_begin_with_random_weights_and_all_others_with_those_of_the_run(pretrained):
    random, loaded = begun(pretrained, "scratch"), begun(pretrained, "pretrained")
    mixed = begun(pretrained, "pretrained", fresh=["trunk.blocks.0."])
    run = read_weights(tasks.read_task("topics").pretrained, "encoder.")
    fresh = {name for name in mixed if name.startswith("trunk.blocks.0.")}
    assert fresh
    assert fresh < set(mixed)
    for name, value in mixed.items():
        assert torch.equal(value, (random if name in fresh else run)[name]), name
    assert any(not torch.equal(mixed[name], loaded[name]) for name in fresh)


@pytest.mark.parametrize("origin", tasks.ORIGINS)
def test_fresh_parts_that_the_encoder_does_not_have_are_refused(pretrained, origin):
    with pytest.raises(UserError, match=r"train.fresh names 'trunk.blocks.9.'"):
        begun(pretrained, origin, fresh=["trunk.blocks.9."])
