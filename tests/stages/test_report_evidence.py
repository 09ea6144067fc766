"""What the report shows beside numbers: sounds, pictures and words of the worst answers, and cards; in a browser."""

import base64
import io
import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from d2v_core.data.table import LABELS, digest, schema, write_index, write_shard
from d2v_core.run import write_run
from stages import training
from stages.report import __main__ as report
from stages.report import card, media, tables
from stages.report.answers import worst
from stages.report.content import read_content
from tests.flows import browser
from tests.stages.test_report import answer, spread, text, write_csv, write_json, write_scores

pytestmark = pytest.mark.usefixtures("home")
RATE = 8000


def write_table(name: str, arrays: dict, classes: list[str], rows: list[dict]) -> None:
    """One table whose splits hold the same rows."""
    folder, columns = Path("data/tables") / name, schema(**arrays)
    shards = {f"{split}-00000.arrow": {} for split in ("train", "valid", "test")}
    for shard in shards:
        shards[shard] = write_shard(folder / shard, columns, rows)
    write_index(folder, shards, classes, 0)
    counted = {"seen": len(rows), "kept": len(rows), "rows": len(rows), "items": len(rows)}
    splits = dict.fromkeys(("train", "valid", "test"), counted)
    totals = {"seen": 3 * len(rows), "kept": 3 * len(rows), "unit": "items", "dropped": {}, "splits": splits}
    write_json(f"metrics/{name}/counts.json", totals)


def tone(seconds: float, frequency: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return np.int16(10_000 * np.sin(2 * np.pi * frequency * time))


def write_project() -> None:
    """A task of sounds and one of pictures: tables, answers, scores, and a pretrained run."""
    sounds = [{"id": f"s{number}", "text": "ONE TWO", "audio": tone(0.5 + number / 8, 1000)} for number in range(4)]
    write_table("sonar", {"audio": pa.int16()}, [], sounds)
    pixels = np.arange(48, dtype=np.uint8)
    pictures = [{"id": f"p{number}", "label": number % 2, "image": pixels + number} for number in range(6)]
    write_table("radar", {"image": pa.uint8()}, ["wren", "crow"], pictures)
    said = [
        answer(row["id"], "ONE TWO", ["ONE TWO", "ONE", "TWO ONE TEN"][place % 3]) for place, row in enumerate(sounds)
    ]
    write_csv("plots/listen/answers.csv", said)
    write_csv("plots/birds/answers.csv", [answer(row["id"], "wren", "crow") for row in pictures])
    errors = {"word_error_rate": spread(50.0), "letter_error_rate": spread(25.0)}
    write_scores("metrics/listen/evaluate.json", pretrained=errors, scratch=errors)
    bounded = {"accuracy": spread(80.0, 81.0) | {"low": 70.0, "high": 90.0}}
    write_scores("metrics/birds/evaluate.json", pretrained=bounded, scratch={"accuracy": spread(60.0, 61.0)})
    modalities = {"sonar": {"table": {"sample_rate": RATE}}, "radar": {"table": {"size": 4, "channels": 3}}}
    birds = {"modality": "radar", "table": "radar", "pretrained": "models/pretrain/radar", "train": {"seeds": [0, 1]}}
    tasks = {"listen": {"modality": "sonar", "table": "sonar"}, "birds": birds}
    Path("params.yaml").write_text(yaml.safe_dump({"seed": 0, "modalities": modalities, "tasks": tasks}))
    trunk = {"depth": 2, "width": 16, "heads": 2}
    config = {"modality": "radar", "version": 2, "table": {"size": 4, "channels": 3}, "model": {"trunk": trunk}}
    config |= {"seed": 0, "updates": 1234, "table_digest": digest(Path("data/tables/radar"))}
    write_run(Path("models/pretrain/radar"), config, {})


def page() -> str:
    report.main()
    return Path("reports/index.html").read_text()


def decoded(address: str) -> bytes:
    return base64.b64decode(address.partition("base64,")[2])


def test_the_worst_answers_come_first_with_their_sound() -> None:
    write_project()
    made = page()
    shown = text(made)
    assert shown.index("s2 0.75 s ONE TWO TWO ONE TEN 2 wrong, 2 spoken") < shown.index("s1 0.62 s ONE TWO ONE 1 wrong")
    assert "s0 0.50 s" not in shown
    assert made.count("<audio") == 2
    assert made == page()


def test_misclassified_pictures_are_shown() -> None:
    write_project()
    made = page()
    assert made.count('src="data:image/png') == 6
    assert "wren → crow" in text(made)


def test_answers_are_listed_where_the_tables_are_elsewhere() -> None:
    write_project()
    shutil.rmtree("data")
    shown = text(page())
    assert "s2 ONE TWO TWO ONE TEN 2 wrong, 2 spoken" in shown
    assert "a table that is not here now" in shown


def test_a_damaged_table_is_left_out() -> None:
    write_project()
    Path("data/tables/sonar/test-00000.arrow").write_bytes(b"no table")
    Path("data/tables/radar/index.json").write_text("{")
    made = page()
    assert "s2 ONE TWO TWO ONE TEN" in text(made)
    assert "p0 wren crow" in text(made)
    assert "<audio" not in made
    assert "data:image/png" not in made


def test_what_was_trained_on_what_is_on_the_card() -> None:
    write_project()
    shown = text(page())
    for part in ("data2vec 2.0, radar models/pretrain/radar", "table radar: 6 items", "1,234", "RGB images of 4 × 4"):
        assert part in shown
    assert "birds, fine-tuned: accuracy 80.5 ± 0.7 [70.0, 90.0] (n = 2) 60.5 ± 0.7 (n = 2)" in shown
    run = Path("models/pretrain/radar")
    config = json.loads((run / "config.json").read_text())
    written = card.markdown(card.read_card(run, config, read_content()))
    assert "| birds, fine-tuned: accuracy | 80.5 ± 0.7 [70.0, 90.0] (n = 2) | 60.5 ± 0.7 (n = 2) |" in written
    assert "| Trained on | table radar: 6 items |" in written
    tuned = config | {"task": "birds", "origin": "scratch", "symbols": ["wren", "crow"]}
    written = card.markdown(card.read_card(Path("models/finetune/birds/scratch/seed-0"), tuned, read_content()))
    assert "| birds, accuracy | 60.5 ± 0.7 (n = 2) |" in written


def test_numbers_and_several_labels_are_said_on_the_card() -> None:
    write_project()
    tasks = {
        "alike": {"modality": "radar", "table": "radar", "train": {"per_class": 0, "head": {"kind": "score"}}},
        "heard": {"modality": "radar", "table": "radar", "train": {"per_class": 0, "head": {"kind": "tags"}}},
    }
    settings = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(settings | {"tasks": settings["tasks"] | tasks}))
    for name, metric in (("alike", "pearson"), ("heard", "mean_average_precision")):
        write_scores(f"metrics/{name}/evaluate.json", pretrained={metric: spread(81.5)}, scratch={metric: spread(60.5)})
    run = Path("models/pretrain/radar")
    config = json.loads((run / "config.json").read_text())

    def written(task: str, head: str, symbols: list[str]) -> str:
        tuned = config | {"task": task, "origin": "pretrained", "head": head, "symbols": symbols}
        return card.markdown(card.read_card(Path("models/finetune/a/b/c"), tuned, read_content()))

    said = written("alike", "score", ["score"])
    assert "| Answer | a number, learnt by squared error |" in said
    assert "| alike, pearson | 81.5 (n = 1) |" in said
    assert "in percent, correlations times 100, on one test split" in said
    assert "| Trained on | all scores of table radar: 6 items |" in said
    said = written("heard", "tags", ["wren", "crow"])
    assert "| Answer | any number of 2 classes, each with a probability of its own |" in said
    assert "| heard, mean average precision | 81.5 (n = 1) |" in said
    assert "correlations" not in said
    assert "| Answer | one of 2 classes |" in written("birds", "mean", ["wren", "crow"])


def test_the_card_lies_beside_exported_weights(project) -> None:
    setup = training.read_setup("vision")
    weights = {f"encoder.{name}": value for name, value in setup.encoder().state_dict().items()}
    write_run(Path("models/pretrain/vision"), setup.describe() | {"updates": 1234}, weights)
    project.done("export", "models/pretrain/vision", "exported")
    written = Path("exported/README.md").read_text()
    assert "| Updates | 1,234 |" in written
    assert "It has not been scored on any task." in written
    assert written.index("AutoModel.from_pretrained") < written.index("## Facts") < written.index("License: ")


def test_rates_are_on_a_page_of_their_own() -> None:
    write_project()
    before = page()
    rates = {"updates_per_second": 5.5, "units_per_second": 12345.6, "input_wait": 0.25}
    write_csv("state/speed/pretrain-radar.csv", [{"update": update, **rates} for update in (1, 2, 3)])
    Path("state/timings.jsonl").write_text('{"stage": "pretrain radar", "seconds": 12.5}\n')
    assert page() == before
    shown = text(Path("reports/speed.html").read_text())
    assert "pretrain-radar 5.5 12,346 0.25" in shown
    assert "pretrain radar 12.5" in shown


def test_a_clip_holds_the_samples_and_no_more_than_it_may() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, int(RATE * 2 * media.MOST_SECONDS)).astype(np.int16)
    heard, rate = soundfile.read(io.BytesIO(decoded(media.clip(samples, RATE))), dtype="int16")
    assert rate == RATE
    assert np.array_equal(heard, samples[: int(RATE * media.MOST_SECONDS)])
    room = media.Room(10)
    assert [room.take("x" * size) for size in (8, 3, 2)] == ["x" * 8, "", "xx"]


def test_a_spectrogram_is_dark_where_the_tone_is() -> None:
    drawn = matplotlib.image.imread(io.BytesIO(decoded(media.spectrogram(tone(1.0, 1000), RATE))))[..., 0]
    assert drawn.shape[0] == round(media.WINDOW * RATE) // 2 + 1
    assert int(drawn.mean(axis=1).argmin()) == pytest.approx(drawn.shape[0] * (1 - 1000 / (RATE / 2)), abs=1.5)


@pytest.mark.parametrize("size", [8, 96, 97, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_keep_what_is_to_be_seen(size: int, channels: int) -> None:
    left = np.zeros((channels, size, size), np.uint8)
    left[:, :, size // 2 :] = 255
    seen = matplotlib.image.imread(
        io.BytesIO(decoded(media.picture(media.smaller(media.image(left.ravel(), channels)))))
    )
    assert max(seen.shape[:2]) <= media.MOST_PIXELS
    assert seen[:, : len(seen) // 2 - 1, :3].max() == 0
    assert seen[:, len(seen) // 2 + 1 :, :3].min() == 1


def test_tags_and_numbers_are_wrong_by_how_far_they_are_off() -> None:
    tags = [answer("1", "dog; cat", "dog; cat"), answer("2", "dog; cat", "cow"), answer("3", "dog", "dog; cat")]
    assert [(one.id, one.note) for one in worst(tags, "tags", 5)] == [
        ("2", "2 missing, 1 too many"),
        ("3", "0 missing, 1 too many"),
    ]
    numbers = [answer("1", "1.5", "1.25"), answer("2", "0", "4")]
    assert [one.note for one in worst(numbers, "numbers", 1)] == ["off by 4"]


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50).filter(lambda values: max(values) - min(values) > 1e-3))
def test_a_histogram_counts_every_row_once(amounts: list[float]) -> None:
    edges, counts = tables.histogram(pl.Series(amounts), min(amounts), max(amounts), 7)
    assert len(edges) == len(counts) + 1 == 8
    assert sum(counts) == len(amounts)


def test_several_labels_of_a_row_are_counted_each() -> None:
    folder, columns = Path("data/tables/tags"), schema(audio=pa.int16()).append(LABELS)
    rows = [{"id": str(row), "labels": [0, 1][: row + 1], "audio": tone(0.1, 500)} for row in range(2)]
    write_index(
        folder, {"train-00000.arrow": write_shard(folder / "train-00000.arrow", columns, rows)}, ["dog", "cat"], 0
    )
    summary = tables.summarize(folder, {"sample_rate": RATE})
    assert summary.splits["train"].labels == {"dog": 2, "cat": 1}
    assert summary.splits["train"].amount == pytest.approx(0.2)
    assert media.label_of(tables.examples(summary, "train")[1], ["dog", "cat"]) == "dog; cat"


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_shows_the_page_wide_and_narrow(tmp_path: Path) -> None:
    write_project()
    page()
    address = (tmp_path / "reports/index.html").as_uri()
    with browser.page() as tab:
        for width in (1280, 400):
            tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            tab.read(address, "80.5 ± 0.7", "[70.0, 90.0]", "TWO ONE TEN", "wren → crow", "data2vec 2.0, radar")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        tab.evaluate("document.querySelector('audio').load(), document.querySelector('audio').preload = 'auto', 0")
        assert tab.until("document.querySelector('audio').duration > 0.7")
        tab.screenshot(tmp_path / "page.png")
        assert tab.hosts <= {None, ""}
    seen = matplotlib.image.imread(tmp_path / "page.png")
    assert seen.shape[:2] == (900, 400)
    assert seen[..., :3].std() > 0.05
