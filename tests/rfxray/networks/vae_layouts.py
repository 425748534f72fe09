"""The published layouts of autoencoders at tiny widths, and the same networks of diffusers."""

import json

from safetensors.numpy import save_file

from rfxray.networks.vae import Vae
from tests.peers import import_peer

_TINY = {
    "size": 32,
    "channels": 3,
    "width": 8,
    "multipliers": (1, 2, 2),
    "decoder_multipliers": (0,),
    "blocks": 1,
    "groups": 2,
    "mid_attention": True,
    "quant_convs": True,
    "patchify": False,
    "dtype": "float32",
}
LAYOUTS = {
    "sd": Vae(**_TINY, z=4),
    "sdxl": Vae(**_TINY | {"width": 16, "multipliers": (1, 2)}, z=4),
    "flux1": Vae(**_TINY | {"multipliers": (1, 2), "quant_convs": False}, z=16),
    "flux2": Vae(**_TINY | {"multipliers": (1, 2), "patchify": True}, z=32),
    "narrow": Vae(
        **_TINY | {"multipliers": (1, 2), "patchify": True, "decoder_multipliers": (0.75, 1.5)},
        z=32,
    ),
}


def config(vae: Vae) -> dict[str, object]:
    """The `config.json` of diffusers for a network."""
    levels = len(vae.widths)
    about = {
        "_class_name": "AutoencoderKLFlux2" if vae.patchify else "AutoencoderKL",
        "in_channels": vae.channels,
        "out_channels": vae.channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(vae.widths),
        "layers_per_block": vae.blocks,
        "latent_channels": vae.z,
        "norm_num_groups": vae.groups,
        "sample_size": vae.size,
        "use_quant_conv": vae.quant_convs,
        "use_post_quant_conv": vae.quant_convs,
        "mid_block_add_attention": vae.mid_attention,
    }
    if vae.decoder_widths != vae.widths:
        about["decoder_block_out_channels"] = list(vae.decoder_widths)
    return about


def publish(vae: Vae, tensors, folder) -> None:
    """Writes the folder of diffusers."""
    name = "diffusion_pytorch_model.safetensors"
    save_file(dict(tensors), folder / name, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(vae)))


def peer(vae: Vae, folder):
    """The network of diffusers with the weights of a folder, none missing and none left over."""
    diffusers = import_peer("diffusers")
    kind = getattr(diffusers, config(vae)["_class_name"])
    model, loading = kind.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    missing = [n for n in loading["missing_keys"] if not n.endswith("num_batches_tracked")]
    assert not missing
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    return model.eval()


def answers(model, images, latents):
    """Mean and log-variance of images, and images of latents, in the form that FLUX.2 stores.

    In float64: torch's group norm of one channel in float32 is off by 1e-4 of the largest value.
    """
    torch = import_peer("torch")
    model = model.double()

    def given(x):
        return torch.tensor(x, dtype=torch.float64).permute(0, 3, 1, 2)

    with torch.no_grad():
        posterior = model.encode(given(images)).latent_dist
        mean, log_variance, z = posterior.mean, posterior.logvar, given(latents)
        if hasattr(model, "bn"):
            centre = model.bn.running_mean.view(1, -1, 1, 1)
            variance = model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps
            flux = import_peer("diffusers.pipelines.flux2.pipeline_flux2").Flux2Pipeline
            mean = (flux._patchify_latents(mean) - centre) / variance.sqrt()
            log_variance = flux._patchify_latents(log_variance) - variance.log()
            z = flux._unpatchify_latents(z * variance.sqrt() + centre)
        image = model.decode(z).sample
    return [x.permute(0, 2, 3, 1).numpy() for x in (mean, log_variance, image)]
