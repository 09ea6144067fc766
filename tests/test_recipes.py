"""The recipes of published models: valid over params.yaml, of the published sizes, schedules and initial weights."""

import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from d2v_core import modalities
from d2v_core.config import build
from d2v_core.errors import UserError
from d2v_core.finetuning import FinetuneConfig, finetuned_setup
from d2v_core.model.supervised import Supervised
from d2v_core.pretraining import PretrainConfig, make_model
from d2v_core.setup import Setup, make_setup
from d2v_core.training.optimizer import make_optimizer, rate_at
from stages import params, recipes
from stages.decoding import DecodingConfig
from stages.layouts import CorpusConfig
from stages.probe import ProbeConfig
from stages.vocabulary import VocabularyConfig

ROOT = Path(__file__).parents[1]
FILES = [path.relative_to(ROOT / "recipes") for path in ROOT.glob("recipes/**/*.yaml") if path.parent.name != "real"]
NAMES = sorted(path.with_suffix("").as_posix() for path in FILES)
MODELS = [name for name in NAMES if name.partition("/")[2].startswith(("speech-", "vision-", "text-"))]
DECODINGS = [name for name in NAMES if name.startswith("decode/")]
TASKS = [name for name in NAMES if name not in MODELS and name not in DECODINGS]

# what a model's recipe has by the publication: encoder, what predicts (reference 2.7, 3.7, 4.4, 5.13 to 5.15); batch
# before views; warm-up and all updates
PUBLISHED = {
    "v1/speech-base": (93_164_288, 590_592, 3800, 12_000, 400_000),
    "v1/speech-large": (313_276_416, 1_049_600, 3800, None, 600_000),
    "v1/speech-audioset": (93_164_288, 590_592, 5100, 10_000, 200_000),
    "v1/vision-base": (86_256_720 - 590_592, 590_592, 2048, 10 * 625, 800 * 625),
    "v1/vision-large": (304_186_816 - 1_049_600, 1_049_600, 4096, 80 * 312, 800 * 312),
    "v1/vision-large-second": (304_186_816 - 1_049_600, 1_049_600, 4096, 40 * 312, 800 * 312),
    "v1/text-base": (124_054_272, 2_361_600, 16 * 8192, 10_000, 1_000_000),
    "v2/speech-base": (93_163_532, 619_776, 500, 8_000, 400_000),
    "v2/speech-large": (313_275_408, 1_908_736, 960, 10_000, 600_000),
    "v2/vision-base": (85_647_360, 2_585_856, 256, 50_040, 375_300),
    "v2/vision-large": (303_099_904, 5_967_872, 128, 50_040, 375_300),
    "v2/vision-huge14": (630_435_840, 6_639_872, 256, 50_040, 500_000),
    "v2/vision-huge16": (None, 6_639_872, 128, 50_040, 375_300),
    "v2/text-base": (124_054_272, 28_907_520, 64 * 512, 4_000, 1_000_000),
    "v2/text-large": (354_309_120, 31_070_464, 64 * 512, 4_000, 600_000),
}
# batch, warm-up, updates and head-only updates of fine-tuning (reference 6.1, 6.3); GLUE: warm-up and updates (6.4)
TUNED = {
    "v1/ctc-base-10min": (1600, 1_300, 13_000, 10_000),
    "v1/ctc-base-1h": (1600, 1_300, 13_000, 10_000),
    "v1/ctc-base-10h": (1600, 2_000, 20_000, 10_000),
    "v1/ctc-base-100h": (1600, 8_000, 80_000, 0),
    "v1/ctc-base-960h": (1600, 32_000, 320_000, 0),
    "v1/ctc-large-10min": (1600, 1_300, 13_000, 10_000),
    "v1/ctc-large-1h": (1600, 1_300, 13_000, 10_000),
    "v1/ctc-large-10h": (1600, 2_000, 20_000, 10_000),
    "v1/ctc-large-100h": (1600, 8_000, 80_000, 10_000),
    "v1/ctc-large-960h": (1920, 32_000, 320_000, 10_000),
    "v2/ctc-10min": (1000, 1_000, 10_000, 100),
    "v2/ctc-1h": (500, 4_000, 60_000, 100),
    "v2/ctc-10h": (318.75, 8_000, 60_000, 100),
    "v2/ctc-10h-b": (318.75, 8_000, 60_000, 100),
    "v2/ctc-100h": (637.5, 8_000, 100_000, 100),
    "v2/ctc-100h-b": (637.5, 8_000, 100_000, 100),
    "v2/ctc-960h": (1000, 8_000, 200_000, 100),
    "v2/ctc-960h-b": (1281.25, 8_000, 200_000, 100),
    "v1/audioset-base": (1280, 5_000, 30_000, 0),
    "v1/imagenet-base": (1024, 12_510, 125_100, 0),
    "v1/imagenet-large": (1024, 6_255, 62_550, 0),
    "v2/imagenet-base": (512, 16_000, 250_200, 0),
    "v2/imagenet-large": (512, 16_000, 125_200, 0),
    "v2/imagenet-huge": (512, 16_000, 125_200, 0),
    "glue/cola": (None, 320, 5_336, 0),
    "glue/mnli": (None, 7_432, 123_873, 0),
    "glue/mrpc": (None, 137, 2_296, 0),
    "glue/qnli": (None, 1_986, 33_112, 0),
    "glue/qqp": (None, 28_318, 113_272, 0),
    "glue/rte": (None, 122, 2_036, 0),
    "glue/sst-2": (None, 1_256, 20_935, 0),
    "glue/sts-b": (None, 214, 3_598, 0),
}
CHOSEN_BY = {  # what the best weights are chosen by, where it is not the first score of the task (reference 6.4)
    "glue/cola": ("matthews",),
    "glue/mrpc": ("accuracy", "f1"),
    "glue/qqp": ("accuracy", "f1"),
    "glue/sts-b": ("pearson", "spearman"),
}
KIND_BLOCKS = {"sentencepiece, unigram", "share of characters covered"}  # comments inside blocks that are replaced


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", ROOT / "recipes")


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


@functools.cache
def original() -> dict:
    return params.load(ROOT / "params.yaml")


@functools.cache
def laid(*names: str) -> dict:
    """Return params.yaml under recipes, as plain values."""
    values = original()
    for name in names:
        values = params.merge(values, params.load(ROOT / "recipes" / f"{name}.yaml"))
    return values


def effective(name: str, *more: str) -> tuple[str, dict]:
    """Return the modality of a model's recipe and its block as pretraining reads it, over recipes ``more``."""
    modality = name.partition("/")[2].partition("-")[0]
    block = laid(*more, name)["modalities"][modality]
    return modality, params.of_version(block, block["version"])


def setup_of(name: str) -> tuple[Setup, PretrainConfig]:
    modality, block = effective(name)
    return make_setup(modality, block, name), build(PretrainConfig, block["pretrain"], name)


def task_of(name: str) -> FinetuneConfig:
    (task,) = params.load(ROOT / "recipes" / f"{name}.yaml")["tasks"]
    return build(FinetuneConfig, laid(name)["tasks"][task]["train"], name)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def comments(path: Path) -> set[str]:
    return {line.partition("#")[2].strip() for line in path.read_text().splitlines() if "#" in line}


def keys(values: Mapping, above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from keys(value, f"{above}{key}.")


def test_every_recipe_has_its_published_numbers_here():
    assert set(PUBLISHED) == set(MODELS)
    assert set(TUNED) == set(TASKS)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_changes_what_it_names_and_keeps_comments_and_order(copy, name):
    changes = params.load(ROOT / "recipes" / f"{name}.yaml")
    recipes.main(name)
    changed = params.load(copy)
    assert changed == laid(name) != original()
    assert params.merge(changed, changes) == changed
    assert comments(ROOT / "params.yaml") - comments(copy) <= KIND_BLOCKS
    unchanged = [key for key in keys(original()) if not any(key.startswith(f"{group}.") for group in changes)]
    assert unchanged == [key for key in keys(changed) if not any(key.startswith(f"{group}.") for group in changes)]
    for modality in changes.get("modalities", {}):
        check_modality(modality)
    for task in changes.get("tasks", {}):
        check_task(task)
    for labelled in changes.get("labelled", {}):
        params.read(CorpusConfig, f"labelled.{labelled}.corpus")


def test_what_is_applied_already_is_left_as_it_is(copy, capsys):
    recipes.main("v2/speech-base")
    once = copy.read_text()
    recipes.main("v2/speech-base")
    assert copy.read_text() == once
    assert "params.yaml: 0 values changed" in capsys.readouterr().out


@pytest.mark.parametrize("name", DECODINGS)
@pytest.mark.parametrize("task", [name for name in TASKS if "/ctc-" in name])
def test_a_decoding_goes_over_every_recipe_that_transcribes_and_tries_the_published_weights(copy, name, task):
    recipes.main(task, name)
    config = params.read(DecodingConfig, "decoding.transcribe")
    assert params.get(f"tasks.{config.task}") == laid(task)["tasks"]["transcribe"]
    assert task_of(task).head.kind == "ctc"
    weights, scores = config.tune.lm_weights, config.tune.word_scores
    assert min(weights) <= 1.74  # reference 6.1, as below
    assert max(weights) >= 3.23
    assert min(scores) <= -1.62
    assert max(scores) >= 0.52


def check_modality(name: str) -> None:
    params.read(CorpusConfig, f"modalities.{name}.corpus")
    params.read(VocabularyConfig, f"modalities.{name}.vocabulary")
    block = params.modality(name)
    make_setup(name, block, name)
    build(PretrainConfig, block["pretrain"], name)


def check_task(name: str) -> None:
    block = params.get(f"tasks.{name}")
    assert block["table"] in [*params.get("modalities"), *params.get("labelled")]
    build(FinetuneConfig, block["train"], name)
    build(ProbeConfig, block["probe"], name)
    assert modalities.get(block["modality"])


def test_an_anchor_in_params_does_not_carry_changes_to_another_task(copy):
    copy.write_text("tasks:\n  one: {rates: &shared {a: 1, b: 2}}\n  # between\n  two: {rates: *shared}  # last\n")
    changes = recipes.parse("tasks: {one: {rates: {a: 3}}}", copy)
    document = recipes.parse(copy.read_text(), copy)
    assert recipes.settle(document, params.merge(document, changes)) == 1
    assert document["tasks"]["one"]["rates"] == {"a": 3, "b": 2}
    assert document["tasks"]["two"]["rates"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", MODELS)
def test_a_models_recipe_says_all_of_the_model_and_its_pretraining(name):
    modality, block = effective(name)
    said = params.load(ROOT / "recipes" / f"{name}.yaml")["modalities"][modality]
    said = said | said.get("v2", {})
    for part in ("model", "pretrain"):
        assert set(keys(said[part])) == set(keys(block[part]))


@pytest.mark.parametrize("name", MODELS)
def test_a_models_recipe_over_any_other_one_is_the_same_model(name):
    _, alone = effective(name)
    for other in MODELS:
        block = effective(name, other)[1]
        parts = ("version", "vocabulary", "table", "model", "pretrain")
        assert {part: block[part] for part in parts} == {part: alone[part] for part in parts}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_published_size_batch_and_warm_up(name):
    encoder, head, batch, warmup, updates = PUBLISHED[name]
    setup, config = setup_of(name)
    with torch.device("meta"):
        model = make_model(setup, config)
    assert count(model.student) == (encoder or count(model.student))
    assert count(model.head) == head
    assert setup.version == int(name[1])
    assert config.batch * config.loop.accumulate == batch
    assert config.loop.updates == updates
    rates = [rate_at(update, updates, config.optimizer) for update in range(0, updates, 10)]
    assert max(rates) == config.optimizer.rate
    if warmup:
        assert rate_at(warmup, updates, config.optimizer) == config.optimizer.rate
        assert rate_at(warmup - 1, updates, config.optimizer) < config.optimizer.rate
        assert rate_at(warmup // 2, updates, config.optimizer) == pytest.approx(config.optimizer.rate / 2, rel=0.02)
    last = rate_at(updates - 1, updates, config.optimizer)
    assert last == pytest.approx(config.optimizer.rate * config.optimizer.final, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("v2/vision")])
def test_the_class_token_has_the_published_weight_in_every_batch(name):
    _, config = setup_of(name)
    views = config.objective.views
    weight = 2.56 if name == "v2/vision-base" else 1.28  # reference 5.10
    assert views.class_weight * config.batch * views.count == pytest.approx(weight)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_published_batch_and_warm_up(name):
    batch, warmup, updates, freeze = TUNED[name]
    config = task_of(name)
    rate = config.optimizer.rate
    assert batch in (None, config.batch * config.loop.accumulate)
    assert (config.loop.updates, config.head.freeze) == (updates, freeze)
    assert rate_at(warmup, updates, config.optimizer) == rate
    assert rate_at(warmup - 1, updates, config.optimizer) < rate
    assert rate_at(updates - 1, updates, config.optimizer) < 0.12 * rate


@pytest.mark.parametrize("name", TASKS)
def test_a_task_keeps_its_best_weights_by_the_published_metric(name):
    config = task_of(name)
    assert config.choose is not None
    assert config.choose.metrics == CHOSEN_BY.get(name, ())
    assert config.choose.after + 2 * config.choose.every < config.loop.updates


def test_a_decay_that_the_run_cuts_off_ends_where_the_longer_one_would_be():
    for name, share in (("v2/ctc-10h-b", 52 / 72), ("v2/ctc-960h", 192 / 200)):
        assert task_of(name).optimizer.final == pytest.approx(0.05**share, rel=1e-4)


@pytest.mark.parametrize(
    "task", ["v1/ctc-base-1h", "v2/ctc-10min", "v1/audioset-base", "v1/imagenet-large", "v2/imagenet-large"]
)
def test_rates_and_frozen_parts_name_parameters_that_are_there(task):
    pair = {"ctc": "speech-base", "aud": "speech-audioset", "ima": "vision-large"}[task[3:6]]
    config, (setup, _) = task_of(task), setup_of(f"{task[:2]}/{pair}")
    with torch.device("meta"):
        model = Supervised(finetuned_setup(setup, config).encoder(), config.head, setup.trunk.width, 32)
    names = dict(model.named_parameters())
    named = [*config.optimizer.rate_scales, *config.optimizer.undecayed, *(f"encoder.{part}" for part in config.frozen)]
    assert all(any(part in name for name in names) for part in named)
    scales = {
        id(parameter): group["rate_scale"]
        for group in make_optimizer(model, config.optimizer).param_groups
        for parameter in group["params"]
    }
    if "imagenet" in task:
        decay, depth = config.optimizer.layer_decay, setup.trunk.depth
        first = decay ** (depth + 1) if task.startswith("v1") else 1.0  # reference 6.3
        assert scales[id(names["encoder.local.patches.weight"])] == pytest.approx(first, rel=1e-3)
        assert scales[id(names["encoder.trunk.blocks.0.attention.qkv.weight"])] == pytest.approx(decay**depth)
        assert scales[id(names["head.0.weight"])] == 1.0


def test_masks_hide_the_published_number_of_patches():
    patches = {name: setup_of(name)[0].config for name in MODELS if "vision" in name}
    hidden = {name: int(config.mask.share * config.side**2) for name, config in patches.items() if name[1] == "1"}
    shown = {name: int(config.side**2 * (1 - config.mask.share)) for name, config in patches.items() if name[1] == "2"}
    assert set(hidden.values()) == {120}
    assert shown == {"v2/vision-base": 39, "v2/vision-large": 49, "v2/vision-huge14": 64, "v2/vision-huge16": 49}


def test_the_list_and_the_table_in_the_docs_hold_every_recipe(capsys):
    recipes.main()
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in NAMES)
    assert listed.count("published: ") == len(recipes.known())
    assert recipes.table() in (ROOT / "docs" / "recipes.md").read_text()


def test_an_unknown_recipe_is_one_sentence_with_the_nearest_name(copy):
    before = copy.read_bytes()
    with pytest.raises(UserError, match=r"v1/speech-bas\.yaml is not there; the nearest recipe is 'v1/speech-base'\.$"):
        recipes.main("v1/text-base", "v1/speech-bas")
    assert copy.read_bytes() == before


def test_a_damaged_recipe_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    fields = "".join(f"# {field}: x\n" for field in recipes.FIELDS)
    (tmp_path / "bad.yaml").write_text(f"# Bad.\n{fields}modalities: [\n")
    (tmp_path / "bare.yaml").write_text("modalities: {}\n")
    (tmp_path / "list.yaml").write_text(f"# List.\n{fields}- 1\n")
    for name, sentence in (("bad", "not valid YAML"), ("bare", "no line '# Source:'"), ("list", "a block of keys")):
        with pytest.raises(UserError, match=sentence):
            recipes.read(name)
