"""A diffusers pipeline as a generator: text-to-image or edit, from a folder or a hub tag, with a LoRA on top."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError, first_line
from flywheel.core.files import digest, file_digest
from flywheel.core.generator import Pixels, Undrawn
from flywheel.core.mirror import fetched
from flywheel.core.ranges import Span, require_ranges

_WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja")
_DTYPES = ("", "float32", "float16", "bfloat16")
_DEVICE = re.compile(r"(|(cpu|cuda|mps|xpu)(:\d{1,3})?)")
_NO_PICTURES = "takes no reference pictures: it draws text-to-image prompts only"


@dataclass(frozen=True)
class PipelineGenerator:
    """model: folder of a pipeline, or hub tag (owner/name, fetched once by diffusers).

    lora: folder, file or hub tag of LoRA weights, applied at `lora_scale`; dtype: of the weights, such as "bfloat16";
    "": bfloat16 on a GPU, else float32; device: "": a GPU if there is one; batch: prompts per call of the pipeline, on
    whose size the last bits of a picture depend; call: further arguments of the pipeline.
    """

    model: str
    lora: str = ""
    lora_scale: Annotated[float, Span(-100, 100)] = 1.0
    dtype: str = ""
    device: str = ""
    revision: str = ""
    batch: Annotated[int, Span(1, 1000)] = 1
    call: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_ranges(self)
        if self.dtype not in _DTYPES:
            raise UsageError(f"dtype is {self.dtype!r}: give {', '.join(_DTYPES[1:-1])} or {_DTYPES[-1]}")
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"device is {self.device!r}: give cpu, cuda, cuda:1 and so on, mps or xpu")

    @property
    def independent(self) -> bool:
        """Prompts are drawn one by one, unless `batch` says otherwise."""
        return self.batch == 1

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights and settings; of a hub tag, its commit."""
        parts = [_identity(name, self.revision) for name in (self.model, self.lora) if name]
        return digest(parts, self.lora_scale, self.dtype, dict(self.call))

    @cached_property
    def pipeline(self) -> Any:
        """The loaded pipeline. Errors: `UsageError` if it cannot be opened, or a weight is not finite."""
        from flywheel.core.torchvision_shim import declare_operators
        from training.models.pretrained import require_finite_weights

        declare_operators()
        import torch
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging

        logging.disable_progress_bar()
        _quiet()
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, self.dtype or ("float32" if device.startswith("cpu") else "bfloat16"))
        try:
            opened: Any = DiffusionPipeline.from_pretrained(
                _local(self.model), dtype=dtype, **({"revision": self.revision} if self.revision else {})
            )
            if self.lora:
                opened.load_lora_weights(_local(self.lora))
            require_finite_weights(
                f"{self.model}{' with ' + self.lora if self.lora else ''}",
                ((f"{part}.{k}", v) for part, m in _modules(opened) for k, v in m.named_parameters()),
            )
            if self.lora:
                opened.fuse_lora(lora_scale=self.lora_scale)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a folder of something else leads to
            raise_environment_error(error)
            reason = first_line(error)
            raise UsageError(
                f"{self.model}{' with ' + self.lora if self.lora else ''} cannot be opened as a diffusers pipeline "
                f"({reason}): give its folder or hub tag"
            ) from error
        opened.set_progress_bar_config(disable=True)
        try:
            return opened.to(device)
        except (AssertionError, RuntimeError) as error:  # PyTorch was built without it, or it is not there
            reason = first_line(error)
            raise UsageError(f"device {device} cannot be used here ({reason}): set device in [generator]") from error

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        references: Sequence[Sequence[Pixels]] | None = None,
        masks: Sequence[Pixels | None] | None = None,
        negative: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[Pixels | Undrawn]:
        """See `flywheel.core.generator.Generator`; a seed is that of `torch.Generator` on the CPU."""
        shown = list(references) if references is not None else [()] * len(prompts)
        mask = list(masks) if masks is not None else [None] * len(prompts)
        start = 0
        while start < len(prompts):
            alone = bool(len(shown[start])) or mask[start] is not None
            end = start + 1
            while not alone and end < min(start + self.batch, len(prompts)) and not len(shown[end]):
                end += 1
            settings = self._settings(size, negative, steps, guidance)
            yield from self._call(list(prompts[start:end]), seeds[start:end], shown[start], mask[start], settings)
            start = end

    @cached_property
    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.pipeline.__call__).parameters

    def _settings(
        self, size: tuple[int, int], negative: str | None, steps: int | None, guidance: float | None
    ) -> dict[str, Any]:
        """Arguments that this pipeline has; those of `call` win."""
        known = self._arguments
        scale = _guidance_argument(known)
        wanted: dict[str, Any] = {"height": size[0], "width": size[1], "num_inference_steps": steps}
        if guidance is not None and scale:
            wanted[scale] = guidance
            if scale == "true_cfg_scale" and guidance != 1 and negative is None:
                negative = " "  # without one, true guidance is off
        wanted["negative_prompt"] = negative
        return {k: v for k, v in wanted.items() if v is not None and k in known} | dict(self.call)

    def _call(
        self,
        prompts: list[str],
        seeds: Sequence[int],
        references: Sequence[Pixels],
        mask: Pixels | None,
        settings: dict[str, Any],
    ) -> list[Pixels | Undrawn]:
        import torch

        kind, known = type(self.pipeline).__name__, self._arguments
        if len(references):
            if "image" not in known:
                return [Undrawn(f"{kind} {_NO_PICTURES}")]
            pictures = [Image.fromarray(r) for r in references]
            settings = settings | {"image": pictures[0] if len(pictures) == 1 else pictures}
        if mask is not None:
            if "mask_image" not in known:
                return [Undrawn(f"{kind} takes no mask")]
            settings = settings | {"mask_image": Image.fromarray(mask)}
        if "negative_prompt" in settings and len(prompts) > 1:
            settings = settings | {"negative_prompt": [settings["negative_prompt"]] * len(prompts)}
        generators = [torch.Generator("cpu").manual_seed(int(s)) for s in seeds]
        try:
            with torch.no_grad():
                result = self.pipeline(
                    prompts if len(prompts) > 1 else prompts[0],
                    generator=generators if len(prompts) > 1 else generators[0],
                    output_type="pil",
                    **settings,
                )
        except (ValueError, TypeError, AttributeError) as error:  # what pipelines raise for inputs that do not fit
            raise_environment_error(error)
            return [Undrawn(f"{kind} cannot draw this: {first_line(error)}")] * len(prompts)
        blanked = getattr(result, "nsfw_content_detected", None) or [False] * len(prompts)
        return [
            Undrawn(f"the safety checker of {kind} blanked the picture") if hidden else _pixels(picture)
            for picture, hidden in zip(result.images, blanked, strict=True)
        ]


def _modules(opened: Any) -> Iterator[tuple[str, Any]]:
    """The networks of a pipeline, by name."""
    return ((name, part) for name, part in opened.components.items() if hasattr(part, "named_parameters"))


def _quiet() -> None:
    """No bars while transformers loads the text encoder."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _guidance_argument(known: Mapping[str, inspect.Parameter]) -> str | None:
    """The argument of classifier-free guidance. Where both exist, `guidance_scale` is it if it has a default."""
    plain, true = known.get("guidance_scale"), "true_cfg_scale" in known
    if plain is not None and (plain.default is not None or not true):
        return "guidance_scale"
    return "true_cfg_scale" if true else None


def _pixels(picture: Image.Image) -> Pixels:
    """RGB; a picture with an alpha channel is shown on white."""
    if picture.mode in ("RGBA", "LA"):
        shown = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"))
    return np.asarray(picture.convert("RGB"))


def _local(name: str) -> str:
    """A folder or file as a local path; a hub tag as it is."""
    return str(fetched(name)) if is_local(name) else name


def is_local(name: str) -> bool:
    """Whether a model's name is a path: it exists, or cannot be a hub tag."""
    return name.startswith((".", "/", "~", "s3:")) or name.count("/") != 1 or Path(name).exists()


def _identity(name: str, revision: str) -> str:
    if is_local(name):
        place = fetched(name)
        files = [place] if place.is_file() else sorted({p for pattern in _WEIGHTS for p in place.rglob(pattern)})
        if not files:
            raise UsageError(f"{name} has no weights: give the folder of a diffusers pipeline, or a hub tag")
        base = place.parent if place.is_file() else place
        return digest([(p.relative_to(base).as_posix(), file_digest(p)) for p in files])
    from huggingface_hub import snapshot_download

    try:
        kept = snapshot_download(name, revision=revision or None, allow_patterns=["model_index.json", "*.json"])
    except Exception as error:  # noqa: BLE001 - whatever the hub's client raises
        raise_environment_error(error)
        raise UsageError(
            f"{name} cannot be found on the hub ({first_line(error)}): check the tag and the connection, or "
            "download it and give its folder"
        ) from error
    return f"{name}@{Path(kept).name}"
