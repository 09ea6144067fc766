"""Fine-tuned runs on raw files: the answers of the evaluation, in any form, whatever else is among the files."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import torch

from d2v_core.evaluation import arpa, kneser_ney
from d2v_core.model.supervised import HeadConfig, Supervised
from d2v_core.run import read_config, read_weights, write_run
from stages import tasks, training
from stages.tasks import ORIGINS
from tests.tiny import ROOT, SENTENCE, Project, environment, write_audio, write_image

SYMBOLS = {"speech": ["<s>", *"|AEGNOST"], "vision": ["red", "green", "blue"], "text": ["even", "odd"]}
KINDS = {"speech": "ctc", "vision": "mean", "text": "first"}


def train(project: Project, name: str, *origins: str) -> str:
    """Take a task's tiny corpora to a fine-tuned run; an encoder of random weights stands for a pretrained one."""
    modality, table = (project.params["tasks"][name][key] for key in ("modality", "table"))
    project.prepare(*dict.fromkeys([modality, table]))
    setup = training.read_setup(modality)
    weights = {f"encoder.{key}": value for key, value in setup.encoder().state_dict().items()}
    write_run(Path(f"models/pretrain/{modality}"), setup.describe(), weights)
    for origin in origins:
        project.done("finetune", name, origin)
    return f"models/finetune/{name}/{origins[0]}/seed-0"


def drawn(project: Project, modality: str, kind: str = "", symbols: Sequence[str] = ()) -> str:
    """Return a fine-tuned run with random weights."""
    if modality == "text":
        project.write("text")
        project.done("vocabulary", "text")
    setup, kind, symbols = training.read_setup(modality), kind or KINDS[modality], list(symbols or SYMBOLS[modality])
    setup = replace(setup, trunk=replace(setup.trunk, final_norm=setup.trunk.final_norm and kind != "mean"))
    torch.manual_seed(0)
    model = Supervised(setup.encoder(), HeadConfig(kind, 0, 0.0, init_std=1.0), 16, len(symbols))
    write_run(Path("run"), setup.describe() | {"head": kind, "symbols": symbols}, model.state_dict())
    return "run"


def write_lines(*lines: str) -> str:
    Path("lines.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return "lines.txt"


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def answers(project: Project, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in project.done("predict", *arguments).splitlines()]


def on_table(name: str) -> dict[str, str]:
    """Return what the evaluation says of every row of the test split, by the row's id."""
    task, model = tasks.load_finetuned(tasks.read_task(name), "scratch", 0)
    table = task.table("test")
    return dict(zip(table.column("id"), task.answers(model, table), strict=True))


def test_transcripts_of_raw_audio_are_those_of_the_evaluation(project):
    run = train(project, "transcribe", "scratch")
    found = answers(project, "--run", run, "data/raw/speech/test-tiny", "--batch", "2")
    assert {Path(each["path"]).stem: each["transcript"] for each in found} == on_table("transcribe")
    assert [each["path"] for each in found] == sorted(each["path"] for each in found), "as the files are ordered"


def test_classes_of_raw_images_are_the_answers_that_the_evaluation_wrote(project):
    train(project, "digits", *ORIGINS)
    project.done("evaluate", "digits")
    with Path("plots/digits/answers.csv").open(newline="") as lines:
        written = {(row["origin"], row["id"]): row["predicted"] for row in csv.DictReader(lines)}
    for origin in ORIGINS:
        run = f"models/finetune/digits/{origin}/seed-0"
        for each in answers(project, "--run", run, "data/raw/vision/test", "--top", "3"):
            name = str(Path(each["path"]).relative_to("data/raw/vision").with_suffix(""))
            assert written.pop((origin, name)) == each["label"] == each["top"][0]["label"]
            assert sum(one["probability"] for one in each["top"]) == pytest.approx(1, abs=1e-5)
    assert not written


def test_labels_of_lines_are_those_of_the_evaluation(project, monkeypatch):
    run = train(project, "topics", "scratch")
    with Path("data/raw/topics/test.tsv").open() as lines:
        given = [row["sentence"] for row in csv.DictReader(lines, delimiter="\t")]
    expected = list(on_table("topics").values())
    from_file = answers(project, "--run", run, write_lines(*given))
    assert [each["label"] for each in from_file] == expected
    assert [(each["line"], each["text"]) for each in from_file] == list(enumerate(given, 1))
    feed(monkeypatch, Path("lines.txt").read_bytes())
    assert [each["label"] for each in answers(project, "--run", run, "-", "--batch", "16")] == expected


def test_bad_files_are_told_and_skipped(project):
    run = drawn(project, "speech")
    write_audio(Path("good.wav"), 0.7)
    write_audio(Path("short.wav"), 0.05)
    Path("notes.wav").write_text("not audio")
    Path("empty").mkdir()
    given = ["good.wav", "notes.wav", "none.wav", "short.wav", "empty", "good.wav"]
    outcome = project.run("predict", "--run", run, *given)
    assert outcome.code == 1
    assert [json.loads(line)["path"] for line in outcome.out.splitlines()] == ["good.wav", "good.wav"]
    told = outcome.err.splitlines()
    assert [line.partition(": ")[0] for line in told] == ["notes.wav", "none.wav", "short.wav", "empty"]
    assert told[2] == "short.wav: duration (0.05 s is outside 0.2-30.0 s)."
    assert told[3].startswith("empty: empty (no file there ends in .flac, .wav,")


def test_lines_that_are_no_text_are_told_and_skipped(project):
    run = drawn(project, "text")
    Path("lines.txt").write_bytes(b"\xef\xbb\xbfthe cat\r\n\n\xff\xfe\na\tb\n")
    outcome = project.run("predict", "--run", run, "lines.txt", "none.txt")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["the cat", "a\tb"]
    told = [line.partition(" (")[0] for line in outcome.err.splitlines()]
    assert told == ["lines.txt:2: empty", "lines.txt:3: unreadable", "none.txt: unreadable"]
    outcome = project.run("predict", "--run", run, "lines.txt", "--pairs")
    assert [json.loads(line)["pair"] for line in outcome.out.splitlines()] == ["b"]
    assert outcome.err.count("no pair") == 2


def test_a_pipe_gets_lines_of_json_and_a_person_a_table(project):
    run = drawn(project, "vision")
    for number, colour in enumerate(("red", "green")):
        write_image(Path(f"{number}.png"), colour, height=30, width=20)
    command = [sys.executable, "-m", "stages.predict", "--run", run, "-"]
    piped = subprocess.run(command, input="0.png\n1.png", env=environment(), capture_output=True, text=True, check=True)
    assert [json.loads(line)["path"] for line in piped.stdout.splitlines()] == ["0.png", "1.png"]
    lines = project.done("predict", "--run", run, "--format", "table", "--top", "2", "0.png", "1.png").splitlines()
    best = json.loads(piped.stdout.splitlines()[1])
    assert lines[1].startswith(f"1.png  {best['label']} {best['probability']:.3f}, ")
    assert not Path("state").exists(), "it is no stage of the pipeline and leaves nothing behind"


def test_it_ends_quietly_when_nobody_reads_on(project):
    run = drawn(project, "text")
    Path("lines.txt").write_text("a cat\n" * 20_000)
    command = f"{shlex.quote(sys.executable)} -m stages.predict --run {run} --batch 64 lines.txt"
    shell = f"{{ {command}; echo $? > code; }} | head -n 1"
    done = subprocess.run(["bash", "-c", shell], env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["line"] == 1
    assert done.stderr == ""
    assert Path("code").read_text() == "141\n", "as of a process that SIGPIPE ends"


class Quiet(SimpleHTTPRequestHandler):
    """Files of the working folder by HTTP."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(project):
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_in_archives_and_at_urls_have_the_answers_of_files(project, address):
    run = drawn(project, "speech")
    for name, seconds in (("one.wav", 0.7), ("two.wav", 0.9)):
        write_audio(Path("recordings", name), seconds)
    with tarfile.open("recordings.tar.gz", "w:gz") as archive:
        archive.add("recordings")
    with fsspec.open("memory://bucket/recordings/one.wav", "wb") as file:
        file.write(Path("recordings/one.wav").read_bytes())
    one, two = answers(project, "--run", run, "recordings")
    members = [f"recordings.tar.gz!/recordings/{name}.wav" for name in ("one", "two")]
    found = answers(project, "--run", run, "recordings.tar.gz")
    assert found == [expected | {"path": name} for name, expected in zip(members, (one, two), strict=True)]
    places = [members[1], f"{address}/recordings/two.wav", Path("recordings/two.wav").absolute().as_uri()]
    assert answers(project, "--run", run, *places) == [two | {"path": place} for place in places]
    inside = "memory:///bucket/recordings/one.wav"
    assert answers(project, "--run", run, "memory://bucket/") == [one | {"path": inside}]
    found = answers(project, "--run", run, f"{address}/recordings.tar.gz")
    assert [each["transcript"] for each in found] == [one["transcript"], two["transcript"]]


def test_places_that_cannot_be_read_are_told_and_skipped(project, address):
    run = drawn(project, "text")
    Path("lines.txt").write_text("a cat\n")
    missing = [
        f"{address}/none.txt",
        f"{address}/none.tar",
        "memory://none/",
        "none.tar!/a.txt",
        "http://127.0.0.1:1/a",
    ]
    outcome = project.run("predict", "--run", run, *missing, f"{address}/lines.txt")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["a cat"]
    assert [line.split(": unreadable (")[0] for line in outcome.err.splitlines()] == missing
    assert outcome.code == 1


def test_scores_are_numbers(project):
    run = drawn(project, "text", "score", ["score"])
    (found,) = answers(project, "--run", run, write_lines("a cat"))
    assert found == {"path": "lines.txt", "line": 1, "text": "a cat", "score": found["score"]}
    assert isinstance(found["score"], float)


def test_of_several_labels_the_likely_ones_are_given(project):
    run = drawn(project, "speech", "tags", "abcdef")
    write_audio(Path("good.wav"), 0.7)
    (likely,) = answers(project, "--run", run, "good.wav")
    (best,) = answers(project, "--run", run, "good.wav", "--top", "6")
    assert likely["labels"] == [each for each in best["labels"] if each["probability"] >= 0.5]
    assert 0 < len(likely["labels"]) < 6


def write_language_model(project: Project) -> list[str]:
    """Write a model of words and what the stage ``tune_decoding`` makes of it; returns the letters of its words."""
    letters = ["<s>", "|", *sorted(set(SENTENCE.upper()) - {" "})]
    for name in ("models/language/spoken", "metrics/spoken", "data/vocabulary/speech"):
        Path(name).mkdir(parents=True)
    model = Path("models/language/spoken/model.arpa.gz")
    arpa.write_arpa(model, kneser_ney.train([SENTENCE.upper().split()], 2))
    Path("models/language/spoken/config.json").write_text('{"unit": "words"}')
    Path("data/vocabulary/speech/vocabulary.json").write_text(json.dumps({"symbols": letters}))
    block = {"task": "transcribe", "language_model": str(model.parent), "unit": "words", "unknown_score": None}
    block |= {"beam": {"size": 8}, "tune": {"lm_weights": [0.5], "word_scores": [9.0]}}
    project.set(decoding={"spoken": block})
    chosen = {"lm_weight": 0.5, "word_score": 9.0, "silence_weight": 0.0, "unknown_score": None}
    tuned = {origin: {"chosen": chosen} for origin in ORIGINS}
    Path("metrics/spoken/tuned.json").write_text(json.dumps(tuned))
    return letters


def test_a_language_model_decides_what_words_there_are(project):
    letters = write_language_model(project)
    run = drawn(project, "speech", symbols=letters)
    write_run(Path(run), read_config(Path(run)) | {"origin": "scratch"}, read_weights(Path(run)))
    write_audio(Path("good.wav"), 0.7)
    model = Path("models/language/spoken/model.arpa.gz")
    tuned = answers(project, "--run", run, "--decoding", "spoken", "good.wav")
    options = ["--lm-weight", "0.5", "--word-score", "9", "--beam", "8", "good.wav"]
    for place in (model, model.parent):
        assert answers(project, "--run", run, "--language-model", str(place), *options) == tuned
    assert set(tuned[0]["transcript"].split()) <= set(SENTENCE.upper().split())
    assert tuned != answers(project, "--run", run, "good.wav")


def test_what_cannot_be_used_is_one_sentence(project, monkeypatch):
    run = drawn(project, "vision")
    write_image(Path("0.png"), "red")
    assert "none is not a run folder" in project.refused("predict", "--run", "none", "0.png")
    write_run(Path("encoder"), {"modality": "vision"}, {})
    assert "encoder names no head" in project.refused("predict", "--run", "encoder", "0.png")
    assert "gives no transcripts" in project.refused("predict", "--run", run, "--language-model", "a.arpa", "0.png")
    assert "--device cuda:99" in project.refused("predict", "--run", run, "--device", "cuda:99", "0.png")
    assert project.run("predict", "--run", run).code == 2
    feed(monkeypatch, b"")
    assert project.done("predict", "--run", run, "-") == "", "nothing asked, nothing said"


def test_the_page_runs(project):
    """Every command and the Python of docs/predicting.md, on runs with random weights."""
    page = (ROOT / "docs/predicting.md").read_text(encoding="utf-8")
    letters = write_language_model(project)
    for modality, task in (("speech", "transcribe"), ("vision", "digits"), ("text", "topics")):
        run = Path(drawn(project, modality, symbols=letters if modality == "speech" else ()))
        config = read_config(run) | {"origin": "pretrained"}
        write_run(Path(f"models/finetune/{task}/pretrained/seed-0"), config, read_weights(run))
    write_run(Path("models/pretrain/speech"), {}, {})
    write_audio(Path("one.flac"), 0.7)
    write_audio(Path("more.wav"), 0.5)
    write_audio(Path("recordings/two.ogg"), 0.9, rate=44100)
    write_image(Path("pictures/red/1.png"), "red")
    Path("sentences.txt").write_text(SENTENCE + "\n")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        module, *arguments = shlex.split(command)[2:]
        if "models/pretrain" not in command:  # the graph of speech takes seconds, and has tests of its own
            assert project.done(module.removeprefix("stages."), *arguments), command
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert names["label"] in SYMBOLS["vision"]
