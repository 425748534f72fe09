"""Keys of each network of ours, by its kind; see schema.py."""

from rfxray.config.key import Key, runtime

ATTENTION = ("auto", "xla", "cudnn", "splash")
REMAT = ("none", "dots", "attention", "full")

# Of every autoencoder.
_VAE: dict[str, Key] = {
    "size": Key(512, "Side of the square images, pixels.", least=1),
    "channels": Key(
        1,
        "Channels of the first and the last convolution, 1 or 3; with 3 a grey image is given "
        "three times, and the mean of the output is taken.",
        least=1,
    ),
    "width": Key(128, "Channels that the multipliers multiply.", least=1),
    "multipliers": Key(
        (1, 2, 4, 4),
        "Widths of the levels in units of width, the largest maps first; each level except the "
        "last halves the sides.",
    ),
    "decoder_multipliers": Key(
        (0,),
        "Widths of the levels of the decoder, likewise; 0: those of multipliers.",
    ),
    "blocks": Key(2, "Residual blocks of a level; the decoder has one more.", least=1),
    "z": Key(16, "Channels of the latents.", least=1),
    "groups": Key(32, "Groups of the group norms; they divide every width.", least=1),
    "mid_attention": Key(True, "Whether the cells attend to each other in the middle."),
    "quant_convs": Key(
        False, "Whether a 1 × 1 convolution ends the encoder, and another begins the decoder."
    ),
    "patchify": Key(
        False,
        "Whether 2 × 2 cells of latents are folded into one and normalised by stored "
        "statistics, as FLUX.2 does; 4·z channels at twice the factor.",
    ),
    "dtype": Key(
        "float32",
        "Type of activations and products of the levels, bfloat16 or float32 (exact on every "
        "device); parameters, norms, and the first and last convolutions stay float32.",
        choices=("float32", "bfloat16"),
    ),
    "fold": Key(
        1,
        "Side of the blocks of pixels that are the channels of the first and of the last "
        "convolution, so that no map is of full size; 1: none. The factor is that times 2 for "
        "each level after the first.",
        least=1,
    ),
    "linear": Key(
        False,
        "Whether a linear path runs beside encoder and decoder, a convolution of one block "
        "each; it begins as the z lowest cosines of a block (JPEG's transform).",
    ),
    "remat": runtime(
        "none",
        "What the backward pass computes again: none, or level (each level from its input).",
        choices=("none", "level"),
    ),
}

MODELS: dict[str, dict[str, Key]] = {
    "radit": {
        "size": Key(512, "Side of the square input, in pixels or latent cells.", least=1),
        "channels": Key(1, "Channels of the input: 1 for pixels, 16 for latents.", least=1),
        "patch": Key(16, "Side of a patch in the unit of size; tokens = (size / patch)².", least=1),
        "width": Key(1024, "Width of the token stream.", least=1),
        "depth": Key(24, "Blocks.", least=1),
        "heads": Key(8, "Attention heads; width / heads is the dimension of one.", least=1),
        "mlp_width": Key(2816, "Hidden width of SwiGLU.", least=1),
        "adaln_rank": Key(128, "Rank of each block's own part of the modulation.", least=1),
        "rope_theta": Key(100.0, "Base of the axial rotary frequencies.", above=1),
        "dtype": Key(
            "bfloat16",
            "Type of activations and matrix products in the blocks, float32 ones at the device's "
            "default precision (TF32 on a GPU, bfloat16 on a TPU); parameters stay float32.",
            choices=("float32", "bfloat16"),
        ),
        "attention": runtime(
            "auto",
            "Attention kernel: xla, cudnn (GPU), splash (TPU), or auto, which takes what fits.",
            choices=ATTENTION,
        ),
        "remat": runtime(
            "none",
            "What the backward pass computes again: none, dots (no matrix product), attention, "
            "full.",
            choices=REMAT,
        ),
        "unroll": runtime(
            1, "Blocks per iteration of the scan over layers; more compiles longer.", least=1
        ),
    },
    "masked_vit": {
        "size": Key(64, "Side of the square input, in pixels.", least=1),
        "patch": Key(8, "Side of a patch, in pixels; tokens = (size / patch)² + 1.", least=1),
        "width": Key(96, "Width of the token stream, and number of features.", least=1),
        "depth": Key(4, "Blocks.", least=1),
        "heads": Key(3, "Attention heads; width / heads is the dimension of one.", least=1),
    },
    "vae": _VAE,
    "decoder_lora": {
        **_VAE,
        "rank": Key(16, "Channels of the narrow path that is added to a layer.", least=1),
        "alpha": Key(16.0, "Numerator of its weight, alpha / rank.", above=0),
        "targets": Key(
            ("conv1", "conv2"),
            "Layers of the decoder that get one: their names, or the last parts of them.",
        ),
        "base": runtime(
            "", "Folder of the autoencoder that is adapted, as rfxray export writes it."
        ),
    },
    "grey_vit": {
        "width": Key(768, "Width of a token.", least=1),
        "depth": Key(12, "Blocks.", least=1),
        "heads": Key(12, "Attention heads.", least=1),
        "patch": Key(14, "Side of a patch, pixels.", least=1),
        "side": Key(37, "Side of the grid of stored positions, patches.", least=1),
        "size": Key(518, "Side that images are resized to, pixels; the patch divides it.", least=1),
        "mean": Key(
            (0.5307,), "Subtracted from pixels in [0, 1], for all channels or each of three."
        ),
        "std": Key((0.2583,), "Divisor of the difference, likewise."),
        "remat": runtime(
            "none",
            "What the backward pass computes again: none, or block (each block from its input).",
            choices=("none", "block"),
        ),
    },
    "grey_efficientnet": {
        "size": Key(224, "Side that images are resized to, pixels.", least=32),
    },
    "patch_discriminator": {
        "width": Key(64, "Channels of the first layer, at most 8 times as many later.", least=1),
        "layers": Key(
            3,
            "Convolutions that halve the sides: a logit judges 16, 34, 70 or 142 pixels with 1, 2, "
            "3 or 4.",
            least=1,
        ),
    },
    "classifier": {
        "size": Key(64, "Side of the square images, pixels.", least=1),
        "width": Key(8, "Channels that the multipliers multiply.", least=1),
        "multipliers": Key(
            (1, 2, 4, 8), "Widths of the levels in units of width; each halves the sides."
        ),
        "blocks": Key(1, "Residual blocks of a level.", least=1),
        "groups": Key(4, "Groups of the group norms; they divide the width.", least=1),
    },
}
