"""The share of a device that a run uses is told where params.yaml states what the device can do."""

import pytest

from stages.training import utilised


@pytest.mark.parametrize(("peak", "said"), [("null", {}), ("989", {"mfu": 0.5})])
def test_utilisation_is_the_share_of_the_stated_peak(tmp_path, monkeypatch, peak, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"peak: {peak}\n")
    speed = {"teraflops_per_second": 494.5}
    assert utilised(speed) == pytest.approx(speed | said)
