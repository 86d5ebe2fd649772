"""Caption pictures with a model behind an OpenAI-compatible vision endpoint, and validate its answers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from flywheel.core.endpoint import Endpoint, Rejected, image_part
from flywheel.core.files import digest
from flywheel.core.image import BadImage, decode

PROMPTS = {  # the report's four kinds [S]; own wording
    "general": "Describe the picture completely: subject, setting, composition, light, colours and style.",
    "text": "Describe the picture with attention to its text: transcribe every piece literally, in quotation marks, say"
    " where it stands, how it looks, and how text, symbols and layout relate.",
    "knowledge": "Describe the picture and add the background facts that an expert would give: names, places, dates,"
    " species, styles. Add only what you are sure of.",
    "structured": "The picture may be a diagram, chart or flow chart. Describe its entities, their attributes and the"
    " relations between them, in the order in which one would read them.",
}
FORM = (
    "Answer with one JSON object of these keys: caption (string: the description), objects (list of strings: the main"
    " things), style (string, such as photograph, slide, poster, comic, painting), quoted (list of strings: every text"
    " in the picture, literally, in reading order), watermark (true or false)."
)
_STRINGS = {"type": "array", "items": {"type": "string"}}
ANSWER = {
    "type": "object",
    "properties": {
        "caption": {"type": "string", "minLength": 1, "maxLength": 20_000},
        "objects": _STRINGS,
        "style": {"type": "string"},
        "quoted": _STRINGS,
        "watermark": {"type": "boolean"},
    },
    "required": ["caption", "objects", "style", "quoted", "watermark"],
    "additionalProperties": False,
}
MAX_SIDE = 1024  # pixels: larger pictures are reduced to this long side before they are sent


class Refused(ValueError):
    """The answer for a picture is unusable, and asking again would not help; the message says why."""


@dataclass(frozen=True)
class Captioner:
    """Captions pictures with one endpoint, model and prompt."""

    endpoint: Endpoint
    prompt: str

    @property
    def version(self) -> str:
        """Version of the prompt and answer schema: a change of either starts a new set of captions."""
        return digest(self.prompt, FORM, ANSWER)[:8]

    def ask(self, image: bytes) -> dict[str, Any]:
        """Answer for one encoded picture, with the keys of `ANSWER`.

        Errors: `Refused` for an unreadable picture or an unusable answer; those of `Endpoint.ask`.
        """
        from curation.scorers.caption import describe

        try:
            content = [image_part(_jpeg(image)), {"type": "text", "text": f"{self.prompt} {FORM}"}]
            answer = self.endpoint.ask([{"role": "user", "content": content}], ANSWER)
        except BadImage as error:
            raise Refused(f"picture cannot be read: {error}") from error
        except Rejected as error:
            raise Refused(str(error)) from error
        columns = describe(answer["caption"])
        if columns["invalid"]:
            why = next((k for k in ("refusal", "boilerplate", "urls") if columns[k]), "no words, or a loop")
            raise Refused(f"the caption describes nothing ({why}): {answer['caption'][:120]!r}")
        return answer


def _jpeg(image: bytes) -> bytes:
    picture = decode(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
