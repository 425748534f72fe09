"""Extractors with weights that a user has: what they open, declare, refuse and answer."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from rfxray.checkpoints import conversion
from rfxray.commands import evaluate_check_weights
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import check_weights, kinds, rad_dino, resident, twins
from rfxray.networks import vit
from rfxray.networks.convnets import densenet, inception
from rfxray.networks.vit import Vit
from tests.peers import import_peer
from tests.rfxray.networks.parity import draw

TINY = Vit(width=16, depth=1, heads=2, mlp=64)
# In the processor of RAD-DINO's folder; the values of mean and deviation are those of this test.
PROCESSOR = {
    "crop_size": {"height": 518, "width": 518},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.25, 0.5, 0.125],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 518},
}


def folder_of(folder, network=TINY, processor=PROCESSOR, **changed):
    """A folder as Hugging Face publishes it, with drawn weights."""
    tensors = draw(vit.shapes(network), 0.3)
    tensors["embeddings.mask_token"] = np.zeros((1, network.width), np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "dinov2",
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "mlp_ratio": 4,
        "patch_size": network.patch,
        "image_size": network.patch * network.side,
    }
    (folder / "config.json").write_text(json.dumps(config | changed))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def tiny_rad_dino(monkeypatch):
    monkeypatch.setattr(rad_dino, "NETWORK", TINY)


def prepared(extractor, n=2):
    images = np.random.default_rng(0).random((n, 60, 50), np.float32)
    return np.stack([extractor.preprocessing.prepare(image) for image in images])


# ---------------------------------------------------------------------------------------------
# What they open and answer


@pytest.mark.parametrize("name", ["dinov2", "inception", "rad_dino", "xrv"])
def test_without_weights_the_error_says_where_they_come_from(name):
    with pytest.raises(ConfigError, match=f"the extractor {name} needs its weights: {name}=F"):
        kinds.open_extractor(name)


@pytest.mark.usefixtures("tiny_rad_dino")
def test_rad_dino_answers_the_class_token_with_the_processor_of_its_folder(tmp_path):
    extractor = kinds.open_extractor(f"rad_dino={folder_of(tmp_path)}")
    assert str(extractor.preprocessing) == (
        "cropped to a square, centred, after the resize, 518x518 bicubic antialiased in 8 bits, "
        "3 channels, (x - [0.5 0.4 0.3]) / [0.25 0.5 0.125]"
    )
    assert "mimic" in extractor.trained_on
    images = prepared(extractor)
    weights = vit.convert(TINY, draw(vit.shapes(TINY), 0.3))
    expected = vit.apply(TINY, weights, images)["cls"]
    np.testing.assert_allclose(extractor.features(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("tiny_rad_dino")
@pytest.mark.parametrize(
    ("height", "width"), [(640, 640), (640, 523), (400, 611), (1021, 519), (300, 1000), (518, 700)]
)
def test_rad_dino_prepares_an_image_exactly_as_the_processor_of_transformers(
    tmp_path, height, width
):
    import_peer("torchvision")
    processor = import_peer("transformers").BitImageProcessorPil(**PROCESSOR)
    extractor = kinds.open_extractor(f"rad_dino={folder_of(tmp_path)}")
    levels = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    colour = Image.fromarray(np.repeat(levels[..., None], 3, -1))
    theirs = np.asarray(processor(colour, return_tensors="np")["pixel_values"][0])
    ours = extractor.preprocessing.prepare(levels / np.float32(255))
    np.testing.assert_allclose(ours, theirs.transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("path", ["", "model.safetensors"])
def test_dinov2_answers_the_class_token(tmp_path, path):
    extractor = kinds.open_extractor(f"dinov2={folder_of(tmp_path, processor=None) / path}")
    assert (extractor.width, extractor.preprocessing.size) == (16, 224)
    images = prepared(extractor)
    weights = vit.convert(TINY, draw(vit.shapes(TINY), 0.3))
    expected = vit.apply(TINY, weights, images)["cls"]
    np.testing.assert_allclose(extractor.features(images), expected, rtol=1e-4, atol=1e-5)


def test_xrv_declares_its_range_and_names_its_scores(tmp_path):
    tensors = draw(densenet.shapes(), 0.05)
    save_file(tensors, tmp_path / "xrv.safetensors")
    extractor = kinds.open_extractor(f"xrv={tmp_path / 'xrv.safetensors'}")
    assert extractor.width == 1024
    one = extractor.preprocessing.prepare(np.float32([[0, 1], [0, 1]]))
    assert (one.shape, one.min(), one.max()) == ((224, 224, 1), -1024, 1024)
    assert {"nih", "padchest", "chexpert", "mimic"} <= set(extractor.trained_on)
    thresholds = np.float32(list(extractor_thresholds().values()))
    save_file(tensors | {"op_threshs": thresholds}, tmp_path / "with.safetensors")
    assert kinds.open_extractor(f"xrv={tmp_path / 'with.safetensors'}").hash == extractor.hash
    for other in (thresholds * 2, thresholds[:5]):
        save_file(tensors | {"op_threshs": other}, tmp_path / "other.safetensors")
        with pytest.raises(DataError, match="thresholds of other weights"):
            kinds.open_extractor(f"xrv={tmp_path / 'other.safetensors'}")


def test_xrv_opens_what_convert_makes_of_a_pickled_module(tmp_path):
    torch, xrv = import_peer("torch"), import_peer("torchxrayvision")
    module = xrv.models.DenseNet()
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    save_file(tensors, tmp_path / "state.safetensors")
    torch.save(module, tmp_path / "module.pt")
    with pytest.raises(ConfigError, match="into one by `rfxray evaluate convert`"):
        kinds.open_extractor(f"xrv={tmp_path / 'module.pt'}")
    conversion.convert(tmp_path / "module.pt", tmp_path / "module.safetensors")
    opened = [kinds.open_extractor(f"xrv={tmp_path / n}.safetensors") for n in ("state", "module")]
    assert opened[0].hash == opened[1].hash


def extractor_thresholds():
    from rfxray.evaluate.extractors import xrv

    return xrv.THRESHOLDS


def test_thresholds_and_findings_are_those_that_torchxrayvision_publishes():
    models = import_peer("torchxrayvision").models
    published = models.model_urls["densenet121-res224-all"]
    assert list(extractor_thresholds()) == published["labels"]
    assert list(extractor_thresholds().values()) == published["op_threshs"]


def test_weights_stay_on_a_device_and_each_device_gets_its_own(monkeypatch):
    moved = []
    put = jax.device_put

    def counted(value, device=None, **more):
        moved.append(isinstance(value, dict))
        return put(value, device, **more)

    monkeypatch.setattr(resident.jax, "device_put", counted)
    run = resident.of_images(lambda w, x: x.sum(1) * w["w"], {"w": np.float32([2, 3])})
    images = np.ones((4, 3, 1), np.float32)
    expected = np.full((4, 1), 3.0) * np.float32([2, 3])
    with jax.default_device(jax.local_devices()[-1]):
        np.testing.assert_array_equal(run(images), expected)
        np.testing.assert_array_equal(run(images), expected)
    np.testing.assert_array_equal(run(images), expected)
    assert sum(moved) == len({jax.local_devices()[0], jax.local_devices()[-1]})


# ---------------------------------------------------------------------------------------------
# What they refuse


@pytest.mark.usefixtures("tiny_rad_dino")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": {"shortest_edge": 224}}, "must have size={'shortest_edge': 518}"),
        ({"resample": 2}, "must have resample=3 (got 2)"),
        ({"do_center_crop": False}, "must have do_center_crop=True (got False)"),
        ({"image_mean": 0.5}, "three numbers as image_mean and as image_std"),
        ({"image_std": [1.0, 0.0, 1.0]}, "three numbers as image_mean and as image_std"),
    ],
)
def test_a_processor_that_prepares_otherwise_is_refused(tmp_path, change, words):
    folder_of(tmp_path, processor=PROCESSOR | change)
    with pytest.raises(DataError) as error:
        kinds.open_extractor(f"rad_dino={tmp_path}")
    assert words in str(error.value)


def test_rad_dino_refuses_a_folder_without_its_processor_and_another_network(tmp_path, monkeypatch):
    folder_of(tmp_path, processor=None)
    with pytest.raises(DataError, match=r"holds Vit\(width=16, .* and RAD-DINO is Vit\(width=768"):
        kinds.open_extractor(f"rad_dino={tmp_path}")
    monkeypatch.setattr(rad_dino, "NETWORK", TINY)
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json in"):
        kinds.open_extractor(f"rad_dino={tmp_path}")


def test_dinov2_refuses_damaged_and_missing_files(tmp_path):
    with pytest.raises(ConfigError, match=r"no model\.safetensors in"):
        kinds.open_extractor(f"dinov2={tmp_path}")
    folder_of(tmp_path, num_hidden_layers=2)
    with pytest.raises(DataError, match=r"18 of 42 tensors are missing"):
        kinds.open_extractor(f"dinov2={tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        kinds.open_extractor(f"dinov2={tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        kinds.open_extractor(f"dinov2={tmp_path}")


def test_inception_reads_images_from_minus_one_to_one(tmp_path):
    classifier = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    save_file(draw(inception.shapes() | classifier, 0.05), tmp_path / "w.safetensors")
    extractor = kinds.open_extractor(f"inception={tmp_path / 'w.safetensors'}")
    one = extractor.preprocessing.prepare(np.float32([[0, 1], [0, 1]]))
    assert (one.shape, one.min(), one.max()) == ((299, 299, 3), -1, 1)
    assert extractor.width == 2048


def test_inception_has_the_matrix_of_the_inception_score_in_its_hash(tmp_path):
    classifier = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    tensors = draw(inception.shapes() | classifier, 0.05)
    hashes = []
    for scale in (1, 2):
        tensors["fc.weight"] = scale * tensors["fc.weight"]
        save_file(tensors, tmp_path / f"{scale}.safetensors")
        extractor = kinds.open_extractor(f"inception={tmp_path / f'{scale}.safetensors'}")
        np.testing.assert_array_equal(extractor.classes, tensors["fc.weight"].T)
        hashes.append(extractor.hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("name", ["inception", "xrv"])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, name):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="these are not the weights of") as error:
        kinds.open_extractor(f"{name}={tmp_path / 'w.safetensors'}")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------
# Check of weights


def test_the_built_in_picture_never_changes():
    picture = check_weights.picture()
    assert (picture.min(), picture.max()) == (0, 0.96484375)
    levels = (picture * 512).astype(np.int64)
    np.testing.assert_array_equal(levels / np.float32(512), picture)
    assert int((levels * np.arange(levels.size).reshape(levels.shape) % 65521).sum()) == 13411452159


def test_check_shows_our_features_beside_those_of_transformers(tmp_path, capsys):
    import_peer("torchvision")
    import_peer("transformers")
    folder = folder_of(tmp_path, processor=None)
    evaluate_check_weights.main([f"dinov2={folder}"])
    said = capsys.readouterr().out
    extractor = kinds.open_extractor(f"dinov2={folder}")
    assert extractor.hash in said
    ours, theirs = (line.split()[1:7] for line in said.splitlines()[4:6])
    np.testing.assert_allclose(np.float64(ours), np.float64(theirs), rtol=1e-4, atol=1e-5)
    assert "equal to its PyTorch original" in said


def test_check_fails_if_the_original_answers_otherwise(tmp_path, monkeypatch, capsys):
    def other(name, weights):
        return lambda images: np.ones((len(images), 16), np.float32)

    monkeypatch.setattr(twins, "open_twin", other)
    with pytest.raises(SystemExit) as ended:
        evaluate_check_weights.main([f"dinov2={folder_of(tmp_path)}"])
    assert ended.value.code == 65
    assert "differ from its PyTorch original" in capsys.readouterr().err


def test_check_without_the_original_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    evaluate_check_weights.main([f"dinov2={folder_of(tmp_path)}"])
    assert "not compared: dinov2 cannot be compared" in capsys.readouterr().out


@pytest.mark.drill
@pytest.mark.parametrize("name", ["inception", "xrv"])
def test_check_of_a_whole_network_equals_its_original(tmp_path, capsys, name):
    import_peer("pytorch_fid.inception" if name == "inception" else "torchxrayvision")
    tensors = draw(densenet.shapes(), 0.05)
    if name == "inception":
        classifier = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
        tensors = draw(inception.shapes() | classifier, 0.05)
    save_file(tensors, tmp_path / "w.safetensors")
    evaluate_check_weights.main([f"{name}={tmp_path / 'w.safetensors'}"])
    said = capsys.readouterr().out
    assert "equal to its PyTorch original" in said
    assert said.count("score") == (18 if name == "xrv" else 0)


def test_a_network_with_patches_that_do_not_fill_the_image_is_refused(tmp_path):
    folder_of(tmp_path, dataclasses.replace(TINY, patch=15))
    with pytest.raises(DataError, match="patches of 15 pixels, which do not fill 224"):
        kinds.open_extractor(f"dinov2={tmp_path}")
