"""Arms of autoencoders: the command at a toy size, and the table that it prints."""

import json

import pytest

from benchmarks import autoencoders
from rfxray.errors import ConfigError
from rfxray.outputs import files
from tests.conftest import write
from tests.rfxray.evaluate.projection import projection


def arm(psnr=31.25, seconds=None) -> dict:
    figures = [{"name": "PSNR", "value": psnr, "low": psnr - 0.5, "high": psnr + 0.5}]
    for what, value in (("kept", 0.5), ("correlation", 0.75)):
        for low in (8, 16, 32):
            name = f"{what} from {low} cycles/picture"
            figures.append({"name": name, "value": value, "low": None, "high": None})
    figures.append({"name": "KID", "value": 0.0125, "low": 0.01, "high": 0.02})
    return {"seconds": seconds, "steps": 1500, "figures": figures}


def test_table_has_a_line_for_each_arm():
    found = {"arms": {"z=4": arm(), "l2": arm(30.0, {"wall": 60.0, "processor": 90.0})}}
    found["arms"]["z=4"]["flow"] = 0.876
    found["arms"]["l2"]["figures"].append({"name": autoencoders.OWN, "value": 0.0015})
    found["arms"]["half"] = arm() | {"steps": None}
    lines = autoencoders.table(found).splitlines()
    assert lines[2] == (
        "| z=4 | 1,500 | – | 31.25 ± 0.50 | .50, .50, .50 | .75, .75, .75 | 12.50e-3 | – | .88 |"
    )
    assert lines[3].startswith("| l2 | 1,500 | 1.5 | 30.00 ± 0.50 |")
    assert lines[3].endswith("| 12.50e-3 | 1.50e-3 | – |")
    assert lines[4].startswith("| half | – | – |")


def test_arms_differ_from_the_recipe_in_what_their_names_say():
    for name, each in autoencoders.ARMS.items():
        config = autoencoders.load_config(f"{autoencoders.CONFIG}:{each.config}", each.changes)
        assert config.model.z == (16 if name == "z=16" else 4)
        assert (config.objective.spectrum_weight == 0) == (name == "no spectrum")
        assert (config.objective.distance == "l2") == (name == "l2")
        assert (config.objective.kl_weight == 0) == (name == "no KL")
        assert config.model.linear == (name != "no linear path")
        assert (config.objective.perceptual_weight > 0) == name.startswith("perceptual")
        assert (config.objective.adversarial_weight > 0) == (name == "adversarial")
        assert (config.objective.equivariance > 0) == (name == "equivariance")


def test_unknown_arm_is_refused(tmp_path, capsys):
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--arms", "l3"]
    with pytest.raises(SystemExit) as ended:
        autoencoders.main(words)
    assert ended.value.code == ConfigError.exit_code
    assert "no arm 'l3'; there are z=4, z=16, short" in capsys.readouterr().err


@pytest.mark.drill
def test_command_trains_measures_and_continues(tmp_path, capsys, monkeypatch):
    data = write(tmp_path / "data", train=range(8), validation=range(8, 12), test=range(12, 20))
    monkeypatch.setattr(autoencoders, "open_extractor", lambda name: projection(width=8))
    tiny = ["model.size=32", "model.width=8", "optim.warmup=0"]
    tiny.append("evaluators.validation_loss.batches=1")
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--steps", "12"]
    words += ["--flow-steps", "24"]
    words += [word for change in tiny for word in ("--override", change)]
    autoencoders.main([*words, "--arms", "z=16"])
    assert "| z=16 | 4 |" in capsys.readouterr().out
    (run,) = tmp_path.glob("out/*/run/run.json")
    began = run.stat().st_mtime_ns
    (kept,) = tmp_path.glob("out/*/flow_24.json")
    flow = json.loads(kept.read_text())
    assert 0.5 < flow["loss"] < 4  # of 24 steps: little below that of 0
    assert flow["losses"]["24"] == flow["loss"]
    assert len(flow["losses"]) == autoencoders.LOSSES
    autoencoders.main([*words, "--arms", "z=16,no KL"])
    found = json.loads((tmp_path / "out/autoencoders.json").read_text())
    assert autoencoders.table(found) in capsys.readouterr().out
    assert run.stat().st_mtime_ns == began  # what was trained is not trained again
    assert found["arms"].keys() == {autoencoders.HALF, "z=16", "no KL"}
    del found["arms"][autoencoders.HALF]
    assert [arm["steps"] for arm in found["arms"].values()] == [4, 1]  # a third, a ninth
    assert all(arm["seconds"]["processor"] > 0 for arm in found["arms"].values())
    assert all(arm["flow"] > 0 for arm in found["arms"].values())
    assert found["films"] == 8
    assert str(tmp_path) not in json.dumps(found)
    picture = files.read_png(tmp_path / "out/autoencoders.png")
    # Films, and for each arm what it makes and the difference.
    assert picture.shape[0] > 5 * 128
