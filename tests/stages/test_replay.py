"""Any batch of a run can be looked at again from its number alone."""

import numpy as np

from d2v_core.pretraining import Source
from stages import pretrain


def test_a_replayed_update_shows_the_rows_that_were_trained_on(project):
    project.prepare("text")
    seen = []
    make = Source.batch
    with project.monkeypatch.context() as patch:
        patch.setattr(Source, "batch", lambda self, batch: (seen.append(self.rows[batch.rows]), make(self, batch))[1])
        pretrain.main("text")
    said = project.done("replay", "text", "2")
    rows = [int(line.split()[1].rstrip(":")) for line in said.splitlines() if line.startswith("  row")]
    assert np.array_equal(rows, seen[2])
    assert "inputs finite: True" in said
    assert project.refused("replay", "text") == "usage: python -m stages.replay NAME UPDATE"
    assert project.refused("replay", "text", "last") == "usage: python -m stages.replay NAME UPDATE"
    assert "numbered from 0" in project.refused("replay", "text", "-1")
