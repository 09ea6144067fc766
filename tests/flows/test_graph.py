"""The plan: DVC's graph, what each stage needs, what changed, and one sentence for each mistake."""

from pathlib import Path

import pytest

from flows.graph import PlanError, Stage, plan


def test_dependencies_come_first_and_meta_says_what_a_stage_needs(workspace):
    stages = {stage.name: stage for stage in plan()}
    assert stages["pretrain@vision"] == Stage(
        "pretrain@vision", ("prepare@vision",), "gpu", 1, True, ("vision.json",), ("vision.csv",)
    )
    assert stages["report"] == Stage("report", ("pretrain@speech", "pretrain@vision"), "cpu", 0, True)
    order = list(stages)
    assert len(order) == 5
    assert all(order.index(other) < order.index(stage.name) for stage in stages.values() for other in stage.depends_on)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["pretrain@speech"], {"prepare@speech", "pretrain@speech"}),
        (["prepare"], {"prepare@speech", "prepare@vision"}),
        (["prepare@vision", "prepare@vision"], {"prepare@vision"}),
    ],
)
def test_targets_bring_what_they_depend_on_and_nothing_else(workspace, targets, expected):
    stages = plan(targets)
    assert {stage.name for stage in stages} == expected
    assert len(stages) == len(expected)


def write(path: str, *, replace: str, by: str) -> None:
    text = Path(path).read_text()
    assert replace in text
    Path(path).write_text(text.replace(replace, by))


def test_each_mistake_is_one_sentence_that_says_what_to_do(workspace, tmp_path, monkeypatch):
    with pytest.raises(PlanError, match=r"no stage 'pretrain@speach'.*did you mean 'pretrain@speech'\?"):
        plan(["pretrain@speach"])
    write("dvc.yaml", replace="resource: gpu", by="resource: tpu")
    with pytest.raises(PlanError, match=r"'pretrain@speech' needs the resource 'tpu'; give it cpu or gpu"):
        plan()
    write("dvc.yaml", replace="stages:", by="stagse:")
    with pytest.raises(PlanError, match="DVC cannot read the pipeline"):
        plan()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match="holds no DVC pipeline; change to the folder"):
        plan()
