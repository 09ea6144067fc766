"""The Python that the documentation shows, run as it is printed."""

import re
from pathlib import Path

import pytest
import torch

from tests.tiny import ROOT, write_audio, write_image

BLOCKS = re.findall(r"## (\w+)\n.*?```python\n(.*?)```", (ROOT / "docs/embedding.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_the_examples_of_features_run(project, title, code):
    modality = {"Speech": "speech", "Images": "vision", "Text": "text"}[title]
    project.prepare(modality).done("pretrain", modality)
    write_audio(Path("utterance.flac"), 1.0, rate=22050, channels=2)
    write_image(Path("picture.png"), "red", height=20, width=31)
    names: dict = {}
    exec(code, names)
    if title == "Speech":
        assert names["whole"].shape == (49, 16)
        assert names["half"].shape == (24, 16)
    elif title == "Images":
        assert names["summary"].shape == (16,)
    else:
        alone = names["encoder"].embed([names["ids"][1]])[0]
        torch.testing.assert_close(names["features"][1], alone, atol=1e-5, rtol=0)


def test_there_is_an_example_for_every_modality():
    assert [title for title, _ in BLOCKS] == ["Speech", "Images", "Text"]
