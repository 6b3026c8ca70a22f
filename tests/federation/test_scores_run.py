"""How well a clinical model predicts the sites' patients: a run, its ledger, the page that shows it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synclave_server.evaluation.score_curves import MEASURES
from synclave_server.evaluation.scored_run import ScoredRun
from synclave_server.snapshots import read_snapshot
from synclave_server.warm_start import read_start
from synclave_shared.errors import ConfigurationError, PlanError, SnapshotError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.plan import ClassifierSpec, ScoresSpec
from synclave_shared.protocol import decode_update, encode_model
from synclave_shared.score_histogram import histogram_size
from tests.coordinator.test_commands import answer, call
from tests.evaluation.test_evaluate import Page
from tests.federation.conftest import World
from tests.federation.hospitals import NAMES
from tests.federation.test_series_run import SCHEMA, NewWorld, tags, trained
from tests.models.small_series import SERIES_LAYOUT, series_dataset

PARAMETERS = parameter_vector(build_series_classifier(SERIES_LAYOUT, ClassifierSpec())) + np.float32(0.2)
START = encode_model(np.concatenate([PARAMETERS, usual_anchor(SERIES_LAYOUT).to_vector(), np.float32([0.7, 0.3])]))


@pytest.fixture
def scored(new_world: NewWorld) -> World:
    return trained(new_world, ScoresSpec(), START)


def test_scores_travel_as_one_noisy_sum_of_each_site_and_end_in_a_page(
    scored: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tags(scored) == ["gaussian-sum/1"]
    snapshot = read_snapshot(scored.run.snapshot)
    run = ScoredRun.of(snapshot)
    assert np.array_equal(snapshot.model[: PARAMETERS.size], PARAMETERS)
    assert list(run.histograms) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        released = from_fixed(decode_update(scored.sites[name].replies[-2].payload, histogram_size(2)))
        np.testing.assert_allclose(run.histograms[name].reshape(-1), released, atol=1e-3)
        with_outcome = int(series_dataset(80, seed=number).labels.sum())
        # Six standard deviations of the noise in 48 cells.
        assert run.histograms[name][0].sum(axis=1) == pytest.approx([80 - with_outcome, with_outcome], abs=6 * 48**0.5)

    capsys.readouterr()
    document = answer(capsys, "scores", "--snapshot", f"ours={scored.run.snapshot}", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["runs"] == document["runs"]
    (shown,) = document["runs"]
    assert (shown["name"], shown["model_digest"], shown["noise_std"]) == ("ours", run.plan.warm_start, 1.0)
    assert shown["outcomes"][0]["value"] == "yes"
    together = shown["outcomes"][0]["together"]
    assert list(together["measures"]) == list(MEASURES)
    assert 0.3 < together["measures"]["auroc"]["value"] < 1
    assert set(shown["outcomes"][0]["sites"]) == set(NAMES)
    html = (tmp_path / "out" / "scores.html").read_text()
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert html.count("<svg") == 3
    assert not re.search(r"https?:", html)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)

    models = [argument for name in ("a", "b") for argument in ("--snapshot", f"{name}={scored.run.snapshot}")]
    assert call("scores", *models, "--out", tmp_path / "two") == 0
    assert "AUROC" in capsys.readouterr().out
    assert call("scores", *models, *models[:2], "--out", tmp_path / "x") != 0
    assert "tell them apart" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

    before = (tmp_path / "two" / "scores.json").read_bytes()
    assert call("scores", *models[:2], "--out", tmp_path / "two") != 0
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "two" / "scores.json").read_bytes() == before
    (tmp_path / "by=day").symlink_to(scored.run.snapshot.parent)
    folder = tmp_path / "by=day" / scored.run.snapshot.name
    for number, (text, name) in enumerate(((str(folder), snapshot.plan.name), (f"ours={folder}", "ours"))):
        (told,) = answer(capsys, "scores", "--snapshot", text, "--out", tmp_path / f"d{number}")["runs"]
        assert (told["name"], told["absent_sites"]) == (name, [])


def test_a_site_that_told_nothing_is_named_beside_the_others(
    scored: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, absent = ScoredRun.of(read_snapshot(scored.run.snapshot)), sorted(NAMES)[0]
    part = replace(whole, histograms={name: told for name, told in whole.histograms.items() if name != absent})
    monkeypatch.setattr(ScoredRun, "of", lambda *_: part)
    capsys.readouterr()
    (told,) = answer(capsys, "scores", "--snapshot", scored.run.snapshot, "--out", tmp_path / "out")["runs"]
    assert told["absent_sites"] == [absent]
    assert f"all sites but {absent}" in (tmp_path / "out" / "scores.html").read_text()


def test_what_is_no_run_of_scores_is_refused(scored: World) -> None:
    snapshot = read_snapshot(scored.run.snapshot)
    other = snapshot.plan.model_copy(update={"model": ClassifierSpec()})
    with pytest.raises(ConfigurationError, match="kind = classifier"):
        ScoredRun.of(replace(snapshot, plan=other))
    with pytest.raises(SnapshotError, match="histograms"):
        ScoredRun.of(replace(snapshot, model=snapshot.model[:-1]))
    with pytest.raises(PlanError, match="a classifier"):
        read_start(scored.run.snapshot, schema=SCHEMA, spec=ScoresSpec(), anchored=False)
