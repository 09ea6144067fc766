"""Whatever is wrong with what a stage is given: one line that names it, exit code 1, nothing half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from d2v_core.errors import UserError
from stages import params
from tests.tiny import Project, contents

TRUNK = "params.yaml: modalities.vision.model.trunk"
LOOP = "params.yaml: modalities.vision.pretrain.loop"


def changed(**changes: object) -> Callable[[Project], None]:
    return lambda project: project.set(**changes)


def removed(path: str) -> Callable[[Project], None]:
    def remove(project: Project) -> None:
        target = project.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return remove


def cut(pattern: str) -> Callable[[Project], None]:
    def cut_in_half(project: Project) -> None:
        for path in project.folder.glob(pattern):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut_in_half


def written(path: str, content: bytes) -> Callable[[Project], None]:
    return lambda project: (project.folder / path).write_bytes(content)


def emptied(project: Project) -> None:
    removed("data/raw/vision")(project)
    (project.folder / "data/raw/vision").mkdir()


def without_valid_rows(project: Project) -> None:
    project.set(modalities__vision__corpus__holdout={"valid": 0.0, "test": 0.0})
    project.done("prepare", "vision")


def without_transcripts(project: Project) -> None:
    for path in project.write("speech").rglob("*.trans.txt"):
        path.unlink()
    project.done("vocabulary", "speech")
    project.done("prepare", "speech")


def with_the_table_of_text(project: Project) -> None:
    project.prepare("text")
    removed("data/tables/vision")(project)
    shutil.copytree(project.folder / "data/tables/text", project.folder / "data/tables/vision")


CASES = {
    "a key that is not known": (
        changed(modalities__vision__model__trunk__widht=3),
        ["pretrain vision", "finetune digits scratch", "probe digits", "evaluate digits"],
        f"error: {TRUNK}.widht is not a known key. Did you mean 'width'?",
    ),
    "a block that is not known": (
        changed(tasks__digits__trian={}),
        ["vocabulary vision", "prepare vision", "pretrain vision", "finetune digits scratch"],
        "error: params.yaml: tasks.digits.trian is not a known key. Did you mean 'train'?",
    ),
    "a key that is missing": (
        changed(modalities__vision__pretrain__loop__updates=...),
        ["pretrain vision"],
        f"error: {LOOP}.updates is missing; add it.",
    ),
    "a block that is missing": (
        changed(modalities__vision__pretrain=...),
        ["pretrain vision"],
        "error: params.yaml: modalities.vision.pretrain is missing; add it.",
    ),
    "a corpus that is missing": (
        changed(labelled__topics__corpus=...),
        ["prepare topics"],
        "error: params.yaml: labelled.topics.corpus is missing; the nearest key there is 'modality'.",
    ),
    "a number in words": (
        changed(modalities__vision__pretrain__loop__updates="many"),
        ["pretrain vision"],
        f"error: {LOOP}.updates must be int, not 'many'.",
    ),
    "a number where a block belongs": (
        changed(modalities__vision__corpus=3),
        ["prepare vision"],
        "error: params.yaml: modalities.vision.corpus must be a block of keys, but holds 3.",
    ),
    "a list where a block belongs": (
        changed(modalities=["vision"]),
        ["vocabulary vision", "prepare vision", "pretrain vision"],
        "error: params.yaml: modalities must be a block of keys, but holds ['vision'].",
    ),
    "a number out of range": (
        changed(modalities__vision__pretrain__loop__updates=0),
        ["pretrain vision"],
        f"error: {LOOP}.updates must be positive, not 0.",
    ),
    "a share above one": (
        changed(modalities__vision__corpus__max_dropped=1.5),
        ["prepare vision"],
        "error: params.yaml: modalities.vision.corpus.max_dropped must be in [0, 1], not 1.5.",
    ),
    "a layout that is not known": (
        changed(modalities__vision__corpus__layout="folders"),
        ["prepare vision"],
        "error: params.yaml: modalities.vision.corpus.layout must be one of 'auto', 'librispeech', 'common_voice', "
        "'labelfolders', 'imagefolder', 'text', 'tsv', 'glue', 'manifest', 'parquet', 'arrays', not 'folders'.",
    ),
    "a vocabulary in words": (
        changed(modalities__text__table__vocabulary="large"),
        ["vocabulary text"],
        "error: params.yaml: modalities.text.table.vocabulary must be int, not 'large'.",
    ),
    "a seed in words": (
        changed(seed="zero"),
        ["prepare vision", "vocabulary speech", "pretrain vision"],
        "error: params.yaml: seed must be int, not 'zero'.",
    ),
    "a negative seed": (
        changed(seed=-1),
        ["prepare vision", "pretrain vision"],
        "error: params.yaml: seed must not be negative, but is -1.",
    ),
    "no params.yaml": (
        removed("params.yaml"),
        ["vocabulary vision", "prepare vision", "pretrain vision", "evaluate digits"],
        "error: params.yaml is missing; run from the project's folder.",
    ),
    "a params.yaml that is not YAML": (
        written("params.yaml", b"seed: [0\nmodalities: 1\n"),
        ["vocabulary vision", "prepare vision"],
        "error: params.yaml is not valid YAML: while parsing a flow sequence",
    ),
    "a params.yaml that is not UTF-8": (
        written("params.yaml", b"seed: 0  # caf\xe9\n"),
        ["prepare vision"],
        "error: params.yaml is not valid YAML: 'utf-8' codec can't decode byte 0xe9",
    ),
    "a params.yaml without a key": (
        written("params.yaml", b"- 1\n"),
        ["prepare vision"],
        "error: params.yaml must be a block of keys, but holds [1].",
    ),
    "no raw folder": (
        removed("data/raw/vision"),
        ["prepare vision"],
        "error: data/raw/vision is not a folder; put the corpus there or change `raw` in params.yaml.",
    ),
    "a name with a line break": (
        changed(modalities__vision__corpus__raw="no\nsuch"),
        ["prepare vision"],
        "error: no such is not a folder",
    ),
    "an empty corpus": (
        emptied,
        ["prepare vision"],
        "error: data/raw/vision holds nothing in the 'imagefolder' layout; check `raw` and `layout` in params.yaml.",
    ),
    "no vocabulary": (
        removed("data/vocabulary/vision"),
        ["prepare vision"],
        "error: data/vocabulary/vision/vocabulary.json is missing; run the stage vocabulary@vision.",
    ),
    "a split without rows": (
        without_valid_rows,
        ["probe digits", "evaluate digits"],
        "error: data/tables/vision has no rows in its 'valid' split; check the corpus and",
    ),
    "the table of another modality": (
        with_the_table_of_text,
        ["pretrain vision", "finetune digits scratch", "probe digits", "evaluate digits"],
        "error: data/tables/vision/train-00000.arrow has no column 'image' of type list<item: uint8>; run its",
    ),
    "a table that is cut off": (
        cut("data/tables/vision/*.arrow"),
        ["pretrain vision", "finetune digits pretrained", "probe digits", "evaluate digits"],
        "error: data/tables/vision/train-00000.arrow cannot be read as an Arrow file (",
    ),
    "a vocabulary that is cut off": (
        cut("data/vocabulary/vision/vocabulary.json"),
        ["prepare vision"],
        "error: data/vocabulary/vision/vocabulary.json is damaged (",
    ),
    "no table": (
        removed("data/tables/vision"),
        ["pretrain vision", "finetune digits scratch", "probe digits", "evaluate digits"],
        "error: data/tables/vision is not a prepared table (index.json is missing); run its prepare stage.",
    ),
    "no pretrained run": (
        removed("models/pretrain/vision"),
        ["finetune digits pretrained", "probe digits"],
        "error: models/pretrain/vision is not a run folder (config.json is missing); train it first.",
    ),
    "a pretrained run that is cut off": (
        cut("models/pretrain/vision/model.safetensors"),
        ["finetune digits pretrained", "probe digits"],
        "error: models/pretrain/vision/model.safetensors cannot be read (",
    ),
    "no fine-tuned run": (
        removed("models/finetune"),
        ["evaluate digits"],
        "error: models/finetune/digits/pretrained/seed-0 is not a run folder (config.json is missing)",
    ),
    "a modality that params.yaml does not have": (
        changed(),
        ["vocabulary visoin", "pretrain visoin"],
        "error: params.yaml: modalities.visoin is missing; the nearest key there is 'vision'.",
    ),
    "a table that params.yaml does not have": (
        changed(),
        ["prepare topcis"],
        "error: params.yaml: modalities.topcis is not a known key. Did you mean 'topics'?",
    ),
    "a modality that has no file": (
        lambda project: project.set(modalities__visoin=project.params["modalities"]["vision"]),
        ["prepare visoin", "pretrain visoin"],
        "error: modalities.visoin is not a known key. Did you mean 'vision'?",
    ),
    "a task that params.yaml does not have": (
        changed(),
        ["finetune digts scratch", "probe digts", "evaluate digts"],
        "error: params.yaml: tasks.digts is missing; the nearest key there is 'digits'.",
    ),
    "a task of a modality that is not there": (
        changed(tasks__digits__modality="visoin"),
        ["finetune digits scratch", "probe digits", "evaluate digits"],
        "error: params.yaml: modalities.visoin is missing; the nearest key there is 'vision'.",
    ),
    "a task whose table is a number": (
        changed(tasks__digits__table=3),
        ["finetune digits scratch"],
        "error: params.yaml: tasks.digits.table must be str, not 3.",
    ),
    "a task without labels": (
        lambda project: (project.prepare("text"), project.set(tasks__topics__table="text")),
        ["finetune topics scratch", "probe topics", "evaluate topics"],
        "error: data/tables/text has no labels, so task 'topics' has nothing to learn",
    ),
    "a task without transcripts": (
        without_transcripts,
        ["finetune transcribe scratch"],
        "error: data/tables/speech has no labelled row in its 'train' split; fine-tuning needs labels.",
    ),
    "an origin that does not exist": (
        changed(),
        ["finetune digits pretraind"],
        "error: the origin of the weights must be one of pretrained, scratch, not 'pretraind'.",
    ),
    "too few arguments": (changed(), ["prepare"], "usage: python -m stages.prepare NAME"),
    "too many arguments": (changed(), ["prepare vision now"], "usage: python -m stages.prepare NAME"),
    "an argument of two missing": (changed(), ["finetune digits"], "usage: python -m stages.finetune NAME ORIGIN"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project that has a table, a pretrained and a fine-tuned run of vision."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("trained")
        monkeypatch.chdir(folder)
        project = Project(folder, monkeypatch).prepare("vision")
        project.done("pretrain", "vision")
        project.done("finetune", "digits", "pretrained")
        project.done("finetune", "digits", "scratch")
    return folder


@pytest.fixture
def vision(project, trained) -> Project:
    shutil.copytree(trained, project.folder, dirs_exist_ok=True)
    return project


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_the_fault_and_nothing_is_half_written(vision, case):
    spoil, commands, beginning = CASES[case]
    spoil(vision)
    before = contents(vision.folder)
    for command in commands:
        stage, *arguments = command.split()
        assert vision.refused(stage, *arguments).startswith(beginning)
    assert not vision.unfinished
    after = contents(vision.folder)
    assert {name: content for name, content in after.items() if not name.startswith("state/")} == {
        name: content for name, content in before.items() if not name.startswith("state/")
    }


@pytest.mark.parametrize("command", ["prepare visoin", "evaluate"])
def test_a_process_says_it_on_stderr_and_exits_with_1(project, command):
    stage, *arguments = command.split()
    outcome = project.process(stage, *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.sentence


@pytest.mark.parametrize(
    ("stage", "arguments"), [("finetune", " NAME ORIGIN"), ("recipes", " [NAMES ...]"), ("timings", "")]
)
def test_help_says_what_a_stage_does(project, stage, arguments):
    said = project.done(stage, "--help").splitlines()
    assert said[:2] == [f"usage: python -m stages.{stage}{arguments}", ""]
    assert said[2]


def test_what_the_system_refuses_is_one_line_too(vision):
    shutil.rmtree(vision.folder / "metrics")
    (vision.folder / "metrics").write_text("in the way")
    assert "metrics" in vision.refused("prepare", "vision")


def test_a_fault_of_ours_keeps_its_traceback(project):
    project.write("vision")
    project.done("vocabulary", "vision")
    project.monkeypatch.setattr("stages.layouts.manifest", lambda corpus, seed: None)
    with pytest.raises(TypeError):
        project.run("prepare", "vision")


@pytest.mark.parametrize("text", ["1e-5", "1.0e-05", "1e-05", "0.00001", "1E-5"])
def test_small_numbers_are_numbers_as_dvc_writes_them(project, text):
    (project.folder / "params.yaml").write_text(f"rate: {text}\n")
    assert params.get("rate", float) == 1e-5


def test_names_that_look_like_numbers_stay_names(project):
    (project.folder / "params.yaml").write_text("names: [1e, e5, 2e-, v1e5, 1e5x]\n")
    assert params.get("names") == ["1e", "e5", "2e-", "v1e5", "1e5x"]


def test_a_key_below_a_value_is_an_error(project):
    with pytest.raises(UserError, match=r"params\.yaml: seed must be a block of keys, but holds 0"):
        params.get("seed.more")
