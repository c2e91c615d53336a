"""The YAML of a training: what is read, what the command line replaces, what is refused."""

from pathlib import Path

import pytest

from rdn_engine.errors import ConfigError
from tests.training_files import MODEL, micro, phase, plain, synthetic, write_settings
from training.settings import Settings, override

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("name", ["rdn_tiny", "single_tiny"])
def test_configurations_are_read(name):
    config = Settings.read(CONFIGS / f"{name}.yaml")
    assert bool(config.model.relation.num_modules) == (name == "rdn_tiny")


def test_the_comparison_is_fair():
    rdn, single = (Settings.read(CONFIGS / f"{name}.yaml") for name in ("rdn_tiny", "single_tiny"))
    assert rdn.data == single.data
    assert rdn.model.backbone == single.model.backbone
    after_start = [[(p.iterations, p.learning_rate) for p in s.phases if p.name != "start"] for s in (rdn, single)]
    assert after_start[0] == after_start[1]


def test_settings_come_back(tmp_path):
    settings = micro(phases=[phase(), phase(name="b", drops=[2, 4])], schedule="step", optimizer="sgd")
    settings.write(tmp_path / "c.yaml")
    assert Settings.read(tmp_path / "c.yaml") == settings


def test_values_are_replaced(tmp_path):
    path = write_settings(tmp_path / "s.yaml")
    sets = ["phases.0.iterations=10", "model.dials.window=3", "seed=1", "phases.0.learning_rate=1e-4",
            "data.train.0.synthetic.size=[48, 64]", "model.detection.max_detections=7", "optimizer=sgd"]  # fmt: skip
    settings = Settings.read(path, sets)
    assert (settings.phases[0].iterations, settings.model.dials.window, settings.seed) == (10, 3, 1)
    assert settings.phases[0].learning_rate == 1e-4
    assert settings.data.train[0].synthetic.size == (48, 64)
    assert settings.model.detection.max_detections == 7
    assert settings.optimizer == "sgd"
    assert settings.model.dials.num_support == MODEL["dials"]["num_support"], "its neighbours stay"


@pytest.mark.parametrize(("text", "message"), [
    ("seed", "--set seed; wanted field=value"),
    ("a..b=1", "wanted field=value"),
    ("=1", "wanted field=value"),
    ("phases.1.iterations=3", "1 is no place in a list of 1; wanted 0..0"),
    ("phases.first.iterations=3", "first is no place in a list of 1"),
    ("seed.a=3", "a stands below 0; wanted a field of a mapping"),
    ("seed=[", "cannot be read as YAML"),
])  # fmt: skip
def test_replacements_that_have_no_place_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        override({**plain(), "seed": 0}, text)


def test_replaced_values_are_checked(tmp_path):
    path = write_settings(tmp_path / "s.yaml")
    with pytest.raises(ConfigError, match=r"s\.yaml: settings has unknown fields \['sed'\]"):
        Settings.read(path, ["sed=1"])
    with pytest.raises(ConfigError, match=r"settings\.seed is 'one'; wanted a whole number"):
        Settings.read(path, ["seed=one"])


def test_phases_follow_one_another():
    settings = micro(phases=[phase(name="a", iterations=2, clips=3), phase(name="b", iterations=3, clips=5)])
    assert settings.total == 5
    assert [(p.name, done) for p, done in map(settings.phase_at, range(5))] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert [settings.clips_before(i) for i in range(6)] == [0, 3, 6, 11, 16, 21]
    with pytest.raises(IndexError):
        settings.phase_at(5)


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch": 3}, "batch"),
    ({"data": {"train": [synthetic(size=96)]}}, r"micro\.yaml: settings\.data\.train\[0\]\.synthetic\.size is 96"),
    ({"data": None}, r"micro\.yaml: settings\.data is None; wanted a mapping"),
    ({"data": {"train": []}}, r"data\.train is empty; wanted one source or more"),
    ({"data": {"train": [{}]}}, r"a source of data is .*; wanted `synthetic`, or `annotations` with `images`"),
    ({"data": {"train": [{"annotations": "a.json"}]}}, "`annotations` with `images`"),
    ({"model": None}, r"micro\.yaml: settings\.model is None; wanted a mapping"),
    ({"model": {"rpm": {}}}, r"micro\.yaml: settings\.model has unknown fields \['rpm'\]"),
    ({"phases": []}, r"micro\.yaml: phases are \(\); wanted one or more"),
    ({"phases": [phase(), phase()]}, "distinct names"),
    ({"phases": [phase(name="../a")]}, "wanted letters, digits"),
    ({"phases": [phase(name="last")]}, "and none of"),
    ({"phases": [phase(iterations=0)]}, "of 1 iteration or more"),
    ({"phases": ["full"]}, r"micro\.yaml: settings\.phases\[0\] is 'full'; wanted a mapping"),
    ({"phases": [phase(iteratons=6)]}, r"micro\.yaml: settings\.phases\[0\] has unknown fields \['iteratons'\]"),
    ({"phases": [phase(), {"name": "b"}]}, r"phases\[1\] lacks \['iterations', 'learning_rate', 'relation'\]"),
    ({"phases": [phase(relation="ful")]}, r"phases\[0\]\.relation is 'ful'; wanted one of"),
    ({"phases": [phase(learning_rate="1e-3")]}, r"phases\[0\]\.learning_rate is '1e-3'; wanted a finite number"),
    ({"phases": [phase(learning_rate=0)]}, r"learning_rate is 0\.0; wanted more than 0"),
    ({"phases": [phase(clips=3)], "accumulate": 2}, "clips is 3; wanted a multiple of accumulate = 2"),
    ({"phases": [phase(references="first", frames_per_clip=1)]}, "frames_per_clip is 1 .* wanted 2 or more"),
    ({"phases": [phase(references="first", relation="none")]}, "frames_per_clip is 3 .* wanted 1"),
    ({"phases": [phase(drops=[2])]}, "has drops; wanted schedule: step"),
    ({"phases": [phase(drops=[4, 2])], "schedule": "step"}, r"drops are \(4, 2\); wanted growing iterations below 6"),
    ({"bf16": "maybe"}, r"micro\.yaml: settings\.bf16 is 'maybe'; wanted a bool"),
    ({"save_every": 0}, "save_every is 0; wanted 1 or more"),
    ({"seed": -1}, "seed is -1; wanted 0 or more"),
    ({"frozen_stages": 6}, r"frozen_stages is 6; wanted 0\.\.5"),
    ({"momentum": 1}, "momentum is 1"),
    ({"evaluate_every": 5}, r"evaluate_every is 5 without data\.validation"),
])  # fmt: skip
def test_settings_refuse(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Settings.read(write_settings(tmp_path / "micro.yaml", **changes))


@pytest.mark.parametrize(("text", "message"), [
    ("model: {}", r"s\.yaml: settings lacks \['data', 'phases'\]"),
    ("data: {train: []}", r"settings lacks \['model', 'phases'\]"),
    ("- 1", r"s\.yaml holds \[1\]; wanted a mapping"),
    ("a: [", r"s\.yaml cannot be read as YAML"),
    (None, r"s\.yaml cannot be read as YAML"),
])  # fmt: skip
def test_files_that_are_no_settings_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Settings.read(tmp_path / "s.yaml")
