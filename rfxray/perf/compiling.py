"""Compiles a lowered program, and says what it needs if a chip has too little memory."""

import re

import jax

from rfxray.errors import RfxrayError, first_line


class DoesNotFit(RfxrayError):
    """The compiler needs more memory than a chip has."""


# What a step that does not fit may do.
STEP = "recompute more (remat=attention, remat=full), shard more (mesh.fsdp) or accumulate"


def compile_for(
    lowered: jax.stages.Lowered, options: dict[str, str], advice: str = STEP
) -> jax.stages.Compiled:
    """Compiles under XLA's options.

    Args:
      lowered: The program.
      options: XLA's options.
      advice: What to do where memory does not suffice.

    Raises:
      DoesNotFit: Where a chip's memory does not suffice.
    """
    try:
        return lowered.compile(compiler_options={**options})
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = first_line(error)
        sizes = re.findall(r"\d[\d.]*[KMG]", reason)
        raise DoesNotFit(
            f"it does not fit: it needs {sizes[0]} of the {sizes[1]} of a chip; {advice}"
            # Where a memory within the chip (vmem, smem) is too small, none of that helps.
            if "hbm" in reason.lower() and len(sizes) > 1
            else f"it does not fit: {reason}"
        ) from error
