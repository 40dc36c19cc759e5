"""Small folders of the hub with random weights: kinds, preprocessing, and the same network of other images."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch
import transformers
from lary_hf.folders import read_backbone
from lary_hf.models import HubModel
from lary_hf.transform import read_transform
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard

CPU = torch.device("cpu")
CARD = ImageCard.load(files("lary_hf") / "image.yaml").card("hf-small")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SQUARE = {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CROP = {
    "size": {"shortest_edge": 36}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "resample": 3,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip
CONVNEXT = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
IMAGES = {
    "vit": ("ViTModel", {**SMALL, "image_size": 32, "patch_size": 8}, SQUARE, 16, 1),
    "dinov2": ("Dinov2Model", {**SMALL, "image_size": 42, "patch_size": 7}, CROP, 16, 1),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {**SMALL, "image_size": 42, "patch_size": 7}, CROP, 16, 5),
    "dinov3_vit": (
        "DINOv3ViTModel",
        {**SMALL, "image_size": 32, "patch_size": 8, "num_register_tokens": 3},
        SQUARE,
        16,
        4,
    ),
    "dinov3_convnext": ("DINOv3ConvNextModel", CONVNEXT, SQUARE, 1, 1),
    "siglip_vision_model": ("SiglipVisionModel", {**SMALL, "image_size": 32, "patch_size": 8}, SQUARE, 16, 0),
    "clip_vision_model": ("CLIPVisionModel", {**SMALL, "image_size": 32, "patch_size": 8}, SQUARE, 16, 1),
    "vit_mae": ("ViTMAEModel", {**SMALL, "image_size": 32, "patch_size": 8}, SQUARE, 16, 1),
    "convnext": ("ConvNextModel", CONVNEXT, SQUARE, 1, 0),
    "convnextv2": ("ConvNextV2Model", CONVNEXT, SQUARE, 1, 0),
}
"""model_type -> class, config, processor, patches, special tokens."""
PREDICTOR = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
CLIPS = {
    "vjepa2": (
        "VJEPA2Model",
        {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 64, "patch_size": 16}
        | PREDICTOR,
        {**CROP, "size": {"shortest_edge": 40}, "crop_size": 32},
    ),
    "videomae": ("VideoMAEModel", {**SMALL, "image_size": 32, "patch_size": 8, "num_frames": 16}, SQUARE),
}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(tmp_path))
    return tmp_path


def make_folder(root, network, config, processor, key="hf-small", model=None):
    torch.manual_seed(0)
    folder = root / key
    if model is None:
        model = getattr(transformers, network)
        model = model(model.config_class(**config))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def loaded(folder, mode="image"):
    model = HubModel(HubModel.resolve(CARD, folder.name), mode, "corrected")
    model.load({"model": folder}, CPU, torch.float32, 0)
    return model


def frames(count, height=40, width=56):
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


@torch.inference_mode()
def tokens(model, batch):
    found = model.encode(torch.as_tensor(batch), np.arange(len(batch))).tokens
    assert tuple(found.shape[1:]) == model.spec.tokens
    assert torch.isfinite(found).all()
    return found


@pytest.mark.parametrize("kind", IMAGES)
def test_image_models(root, kind):
    network, config, processor, patches, special = IMAGES[kind]
    folder = make_folder(root, network, config, processor)
    card = HubModel.resolve(CARD, "hf-small")
    assert card.modes["video"].tokens == (9, patches, 32)
    assert card.modes["image"].tokens == (2, patches, 32)
    assert (f"{special} class and register tokens dropped" in card.title) == bool(special)
    assert card.weights[0].path == "hf-small"
    model = loaded(folder)
    batch = np.stack([model.preprocess(frames(2)), model.preprocess(frames(2)[::-1])])
    found = tokens(model, batch)
    # A frame's features are its own: rows with the frames exchanged have the tokens exchanged.
    torch.testing.assert_close(found[0], found[1].flip(0), atol=1e-5, rtol=1e-5)
    # The tokens that are kept: those of transformers' own model without the first ones.
    own = getattr(transformers, network).from_pretrained(folder, **({"mask_ratio": 0.0} if kind == "vit_mae" else {}))
    values = torch.as_tensor(batch[0]).float() / 255
    pixels = (values - torch.tensor(processor["image_mean"])) / torch.tensor(processor["image_std"])
    noise = {"noise": torch.arange(patches).expand(2, -1)} if kind == "vit_mae" else {}
    with torch.inference_mode():
        last = own.eval()(pixel_values=pixels.permute(0, 3, 1, 2).contiguous(), **noise).last_hidden_state
    if last.ndim == 4:
        last = last.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[0], last[:, special:], atol=1e-5, rtol=1e-5)
    assert last.shape[1] == patches + special


@pytest.mark.parametrize("kind", CLIPS)
def test_video_models(root, kind):
    folder = make_folder(root, *CLIPS[kind])
    card = HubModel.resolve(CARD, "hf-small")
    assert card.modes["video"].tokens[0] == 4
    assert not card.modes["image"].time_axis
    model = loaded(folder, "video")
    row = model.preprocess(frames(9))
    other = row.copy()
    other[8] = 0  # a ninth frame fills no tubelet
    found = tokens(model, np.stack([row, other]))
    torch.testing.assert_close(found[0], found[1])
    tokens(loaded(folder, "image"), model.preprocess(frames(2))[None])


@pytest.mark.parametrize("towers", ["clip", "siglip"])
def test_the_vision_tower_of_two(root, towers):
    names = {"clip": ("CLIPModel", "CLIPConfig"), "siglip": ("SiglipModel", "SiglipConfig")}[towers]
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 32}
    config = getattr(transformers, names[1])(vision_config=vision, text_config=text, projection_dim=32)
    folder = make_folder(root, None, None, SQUARE, model=getattr(transformers, names[0])(config))
    assert read_backbone(folder).model_type == towers
    model = loaded(folder)
    tokens(model, model.preprocess(frames(2))[None])


# --- preprocessing ----------------------------------------------------------------------------

PROCESSORS = [
    ("ViTImageProcessorPil", SQUARE),
    ("SiglipImageProcessorPil", {**SQUARE, "resample": 3}),
    ("BitImageProcessorPil", CROP),
    ("CLIPImageProcessorPil", {**CROP, "size": {"shortest_edge": 28}}),
    ("ConvNextImageProcessorPil", {**SQUARE, "size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3}),
    ("ConvNextImageProcessorPil", {**SQUARE, "size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3}),
]


@pytest.mark.parametrize(("name", "config"), PROCESSORS)
@pytest.mark.parametrize("size", [(40, 56), (57, 41), (30, 30)])
def test_the_models_own_processor(root, name, config, size):
    own = getattr(transformers, name)(**config)
    own.save_pretrained(root)
    transform = read_transform(root, video=False)
    image = frames(1, *size)
    expected = own(images=list(image), return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"]
    found = transform(image)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(expected).transpose(0, 2, 3, 1))
    assert transform.mean == tuple(own.image_mean)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_pad": True}, "do_pad is set"),
        ({"size": {"longest_edge": 512}}, "height"),
        ({"size": {"shortest_edge": 36}}, "no fixed size"),
        ({"rescale_factor": 0.5}, "1/255"),
        ({"resample": 9}, "resample 9"),
        ({"image_std": [0, 1, 1]}, "above 0"),
    ],
)
def test_processors_that_are_not_understood(root, change, said):
    (root / "preprocessor_config.json").write_text(json.dumps(SQUARE | change))
    with pytest.raises(WeightsError, match=said):
        read_transform(root, video=False)


# --- faults -----------------------------------------------------------------------------------


def test_folders_that_cannot_be_read(root):
    with pytest.raises(WeightsError, match=r"hf-none.*expected at"):
        HubModel.resolve(CARD, "hf-none")
    folder = make_folder(root, *IMAGES["vit"][:3])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        loaded(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no preprocessor_config\.json"):
        read_backbone(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match=r"a bert model cannot be read here; model_type may be vit, dinov2"):
        read_backbone(folder)


def test_another_size_than_the_positions(root):
    folder = make_folder(root, "ViTModel", {**SMALL, "image_size": 64, "patch_size": 8}, SQUARE)
    with pytest.raises(WeightsError, match="positions are for images of 64 x 64, its processor makes 32 x 32"):
        read_backbone(folder)
    folder = make_folder(root, "ViTModel", {**SMALL, "image_size": 32, "patch_size": 7}, SQUARE)
    with pytest.raises(WeightsError, match="no multiple"):
        read_backbone(folder)


def test_weights_of_another_network_are_refused(root):
    folder = make_folder(root, *IMAGES["vit"][:3])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(WeightsError, match="missing"):
        loaded(folder)


def test_the_example_needs_no_folder():
    card = HubModel.resolve(CARD, "hf-example")
    assert card.modes == CARD.modes
    assert card.preprocessing == CARD.preprocessing
    model = HubModel(card, "image", "corrected")
    model.random_weights(CPU, torch.float32, 0)
    tokens(model, model.preprocess(frames(2))[None])


# --- the same network in other images ---------------------------------------------------------


def pixels_of(size, count=2, rows=2):
    return torch.randint(
        0, 256, (rows, count, size, size, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8
    )


@pytest.mark.parametrize(
    ("key", "network", "config", "statistics"),
    [
        ("dinov2-origin", "Dinov2Model", {"image_size": 518, "patch_size": 14}, CROP),
        ("dinov3-origin", "DINOv3ViTModel", {"image_size": 224, "patch_size": 16, "num_register_tokens": 4}, CROP),
        ("siglip2-origin", "SiglipVisionModel", {"image_size": 224, "patch_size": 16}, SQUARE),
    ],
)
def test_equal_to_the_keys_of_lapa(root, key, network, config, statistics):
    """For the same pixels: those keys resize with OpenCV, this one as the folder says."""
    lapa = pytest.importorskip("lary_lapa.origin")
    kind = {"dinov2-origin": "Dinov2Origin", "dinov3-origin": "Dinov3Origin", "siglip2-origin": "Siglip2Origin"}[key]
    width = 1024 if key != "siglip2-origin" else 768
    config = {**SMALL, "hidden_size": width, "num_hidden_layers": 1, **config}
    processor = {**statistics, "size": {"height": 224, "width": 224}, "do_center_crop": False}
    folder = make_folder(root, network, config, processor)
    card = ImageCard.load(files("lary_lapa") / "image.yaml").card(key)
    theirs = getattr(lapa, kind)(card, "image", "corrected")
    if key == "siglip2-origin":
        theirs.kind = theirs.kind.__class__(**{**theirs.kind.__dict__, "model_type": "siglip_vision_model"})
    theirs.load({"backbone": folder}, CPU, torch.float32, 0)
    mine = loaded(folder)
    batch = pixels_of(224)
    torch.testing.assert_close(tokens(mine, batch), tokens(theirs, batch), atol=2e-5, rtol=1e-5)


def test_equal_to_vjepa2(root):
    vjepa2 = pytest.importorskip("lary_vjepa2.models")
    network, config, processor = CLIPS["vjepa2"]
    folder = make_folder(root, network, {**config, "hidden_size": 1024}, {**processor, "crop_size": 224, "size": 256})
    card = ImageCard.load(files("lary_vjepa2") / "image.yaml").card("vjepa2")
    theirs = vjepa2.VJepa2(card, "video", "corrected")
    theirs.load({"model": folder}, CPU, torch.float32, 0)
    mine = loaded(folder, "video")
    assert mine.spec.tokens == theirs.spec.tokens
    batch = pixels_of(224, 9, 1)
    torch.testing.assert_close(tokens(mine, batch), tokens(theirs, batch), atol=2e-5, rtol=1e-5)
