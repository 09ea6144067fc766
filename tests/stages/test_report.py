"""The report: every number is on the page, nothing is hard-coded, nothing breaks it, and it is the same every time."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from stages.report import __main__ as report
from stages.report import figures
from stages.report.verdicts import INTERVAL_RULE, Comparison, Side, health

pytestmark = pytest.mark.usefixtures("home")
HOSTILE = '<script>alert("1")</script>\'"& $\\bad$ 猫 שלום'


def write_json(path: str, content: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def write_csv(path: str, rows: list[dict]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def spread(*values: float) -> dict:
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    return {"mean": mean, "values": values, "deviation": deviation}


def write_scores(path: str, **origins: dict) -> None:
    write_json(path, {origin: {"valid": scores, "test": scores} for origin, scores in origins.items()})


def write_everything() -> None:
    """A modality and a task that d2v does not know, and a transcription."""
    splits = {"train": {"seen": 9, "kept": 8, "rows": 8, "seconds": 7200.0}}
    counts = {"seen": 9, "kept": 8, "unit": "seconds", "dropped": {"too short": 1}, "splits": splits}
    write_json("metrics/radar/counts.json", counts)
    monitors = {"loss": 0.5, "decay": 0.999, "target_spread": 0.7, "prediction_spread": 0.2, "position_share": 0.91}
    write_json("metrics/radar/pretrain.json", {"update": 20, **monitors})
    write_csv(
        "plots/radar/pretrain.csv", [{"update": update, **monitors, "sample_share": "nan"} for update in (10, 20)]
    )
    write_scores(
        "metrics/birds/evaluate.json", pretrained={"purity": spread(81.5, 82.5)}, scratch={"purity": spread(61, 62)}
    )
    write_scores("metrics/birds/probe.json", pretrained={"oracle": spread(43.21)}, random={"oracle": spread(12.34)})
    for origin in ("pretrained", "scratch"):
        rows = [{"seed": seed, "update": update, "loss": 1 / update} for seed in (0, 1) for update in (1, 2, 3)]
        write_csv(f"plots/birds/{origin}.csv", rows)
    labels = ["wren", "crow"] * 4
    write_csv("plots/birds/answers.csv", [answer(id_, label, "crow") for id_, label in enumerate(labels)])
    scores = {"word_error_rate": spread(30.0, 31.0)}, {"word_error_rate": spread(20.0, 21.0)}
    write_scores("metrics/listen/evaluate.json", pretrained=scores[0], scratch=scores[1])
    rows = [
        answer(id_, f"spoken {id_}", f"heard {id_}", origin)
        for origin in ("pretrained", "scratch")
        for id_ in range(40)
    ]
    write_csv("plots/listen/answers.csv", rows)
    write_json("metrics/export.json", {"parity": {"greatest": 0.000123}})
    optimizer = {"rate": 0.123}
    task = {"modality": "radar", "train": {"per_class": 7, "optimizer": optimizer}, "probe": optimizer}
    modality = {"corpus": {"raw": "/home/someone/corpora/Echoes"}}
    settings = {"seed": 42, "modalities": {"radar": modality}, "tasks": {"birds": task}}
    Path("params.yaml").write_text(yaml.safe_dump(settings))


def answer(id_: int, actual: str, predicted: str, origin: str = "pretrained") -> dict:
    return {"origin": origin, "seed": 0, "id": id_, "actual": actual, "predicted": predicted}


def page() -> str:
    report.main()
    return Path("reports/index.html").read_text()


def text(page: str) -> str:
    """Return what a reader sees of a page's tables and sentences."""
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_every_number_of_unknown_modalities_and_tasks_is_there() -> None:
    write_everything()
    shown = text(page())
    for part in ("82.0 ± 0.7", "61.5 ± 0.7", "+20.5 better", "43.2", "12.3", "one seed", "81.5 · 82.5"):
        assert part in shown
    assert "clearly better on birds; clearly worse on listen" in shown
    for part in ("1 too short", "2.0 h", "91% of the targets", "radar, 7 labels per class", "Seed 42", "0.000123"):
        assert part in shown
    assert all(f"heard {id_}" in shown for id_ in (0, 4, 8, 13, 17, 21, 26, 30, 34, 39))
    assert "wren 4" in shown


def test_the_page_names_no_place_and_needs_no_network() -> None:
    write_everything()
    made = page()
    assert "/home" not in made
    assert "…/Echoes" in made
    assert "&id001" not in made
    assert not re.search(r"<script|<link|url\(http|@import", made)
    assert not re.search(r"(href|src)=\"(?!#|data:)", made.replace('xlink:href="#', ""))


def test_two_runs_give_the_same_bytes() -> None:
    write_everything()
    assert page() == page()


def test_bounds_are_shown_in_either_form() -> None:
    inside = spread(81.5, 82.5) | {"low": 79.25, "high": 84.5}
    beside = {"accuracy": spread(61, 62), "accuracy_low": spread(58, 59), "accuracy_high": spread(64, 65)}
    write_scores("metrics/birds/evaluate.json", pretrained={"accuracy": inside}, scratch=beside)
    probed = spread(43.21) | {"low": 40.0, "high": 46.5}
    write_scores("metrics/birds/probe.json", pretrained={"oracle": probed}, random={"oracle": spread(12.34)})
    shown = text(page())
    assert "82.0 ± 0.7 [79.2, 84.5]" in shown
    assert "61.5 ± 0.7 [58.5, 64.5]" in shown
    assert "43.2 [40.0, 46.5]" in shown
    assert "accuracy low" not in shown
    assert INTERVAL_RULE in shown


def test_every_class_has_its_scores() -> None:
    scores = {"rows": 8, "precision": "75.25", "recall": "50.00", "f1": "60.04"}
    write_csv("plots/birds/classes.csv", [{"origin": "pretrained", "class": "wren", **scores}])
    write_csv("plots/birds/answers.csv", [answer(id_, "wren", "crow") for id_ in range(4)])
    assert "wren 8 60.0 75.2 50.0" in text(page())


def test_beam_search_stands_beside_greedy_decoding() -> None:
    both = {"beam": {"word_error_rate": spread(20.5)}, "greedy": {"word_error_rate": spread(30.25)}}
    origin = {"weights": {"lm_weight": 1.74}, "valid": both, "test": both}
    write_json("metrics/listen/decode.json", {"pretrained": origin, "scratch": origin})
    row = {"origin": "pretrained", "seed": 0, "id": "a-1", "actual": "ONE TWO", "greedy": "ONE TO", "beam": "ON TO"}
    write_csv("plots/listen/decoded.csv", [row])
    shown = text(page())
    assert "Beam search with a language model pretrained; lm weight 1.74" in shown
    assert "test 20.5 20.5 30.2 30.2 −9.8 one seed" in shown
    assert "a-1 ONE TWO ON TO ONE TO 2 wrong, 2 spoken" in shown


def test_no_task_is_one_clear_sentence() -> None:
    made = page()
    assert text(made).count("No task has been scored yet: run make repro") == 1
    assert "<table" not in made


@pytest.mark.parametrize("kept", range(11))
def test_any_single_file_is_enough(kept: int) -> None:
    write_everything()
    files = sorted(path for root in ("metrics", "plots") for path in Path(root).rglob("*.*"))
    assert len(files) == 11
    for path in files:
        if path != files[kept]:
            path.unlink()
    assert "not in the expected form" not in page()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"pretrained": 1}', '{"a": {"b": [1e400]}}', "update,loss\n", "\ufeff\x00"]
)
def test_broken_files_are_named_and_left_out(content: str) -> None:
    write_everything()
    for path in [*Path("metrics").rglob("*.json"), *Path("plots").rglob("*.csv"), Path("params.yaml")]:
        path.write_text(content)
    shown = text(page())
    assert "metrics/birds/evaluate.json is not in the expected form" in shown
    assert "No task has been scored yet" in shown


def test_hostile_words_stay_words() -> None:
    write_everything()
    write_csv("plots/listen/answers.csv", [answer(id_, f"{HOSTILE} {id_}", HOSTILE) for id_ in range(9)])
    write_csv("plots/birds/answers.csv", [answer(id_, HOSTILE, "") for id_ in range(9)])
    write_scores("metrics/$x<b>/evaluate.json", pretrained={HOSTILE: spread(1, 2)}, scratch={HOSTILE: spread(3, 4)})
    made = page()
    assert "<script" not in made
    assert "<b>/" not in made
    assert made.count("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&#39;&#34;&amp; $\\bad$ 猫 שלום") > 9


def test_many_classes_become_a_list_of_confusions() -> None:
    write_everything()
    rows = [answer(id_, f"class {id_ % 60}", f"class {(id_ + (id_ % 60 == 5)) % 60}") for id_ in range(300)]
    write_csv("plots/birds/answers.csv", rows)
    assert "Most frequent confusions" in text(page())
    assert "class 5 class 6 5 5" in text(page())


def test_long_curves_are_thinned() -> None:
    values = list(range(100_000))
    thinned = figures.thin(values)
    assert len(thinned) == figures.MOST_POINTS
    assert (thinned[0], thinned[-1]) == (0, 99_999)


@pytest.mark.parametrize(
    ("metric", "ours", "baseline", "verdict"),
    [
        ("accuracy", (80.0, 82.0), (60.0, 62.0), "better"),
        ("word_error_rate", (80.0, 82.0), (60.0, 62.0), "worse"),
        ("accuracy", (80.0, 90.0), (70.0, 72.0), "not clear"),
        ("accuracy", (80.5, 80.5), (80.0, 80.0), "not clear"),
        ("accuracy", (99.0,), (1.0, 1.1), "one seed"),
    ],
)
def test_a_difference_is_called_by_the_rule(metric: str, ours: tuple, baseline: tuple, verdict: str) -> None:
    sides = [Side(made["mean"], made["deviation"], values) for values in (ours, baseline) for made in [spread(*values)]]
    assert Comparison(metric, "test", *sides).verdict == verdict


@pytest.mark.parametrize(
    ("last", "level"),
    [
        ({}, "unknown"),
        ({"target_spread": 0.5, "prediction_spread": 0.3, "position_share": 0.1}, "good"),
        ({"target_spread": 0.09, "prediction_spread": 0.3}, "bad"),
        ({"target_spread": 0.5, "prediction_spread": 0.009}, "bad"),
        ({"target_spread": 0.5, "prediction_spread": 0.3, "position_share": 0.6}, "caution"),
        ({"target_spread": 0.5, "least_target_spread": 0.01}, "caution"),
    ],
)
def test_collapse_is_judged_by_the_limits_of_the_reference(last: dict, level: str) -> None:
    assert health(last).level == level
