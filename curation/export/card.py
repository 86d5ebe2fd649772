"""The card of an export, README.md: what it is, where it comes from, its licences, its columns, and how to load it."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from curation.export.exported import Exported
from curation.export.rows import FIELDS, UNKNOWN
from flywheel.core.files import read_json
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

# Licences by the identifiers that the hub knows, in lower case.
_HUB = {
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0"),
    *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "apache-2.0", "mit", "pddl", "odc-by", "odbl", "openrail"),
}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGER = "n>10M"


def text(exported: Exported, workspace: Workspace) -> str:
    """The card in Markdown, with the front matter that the hub reads."""
    wanted, record = exported.request, read_json(workspace.snapshot(exported.request.snapshot))
    load = "\n".join(exported.load)
    return f"""---
{_front(exported)}
---

# {wanted.stage} at {wanted.bucket} pixels

{exported.rows} pictures with captions, {exported.bytes} bytes in {exported.parts} parts, as {wanted.format}. They
passed stage {wanted.stage} of the curation policy `{record["policy"]}` and are resized to layouts of about
{wanted.bucket}² pixels. Captions: {_captions(exported)}.

Run in this folder to load it:

```python
{load}
```

## Where it comes from

| | |
|---|---|
| snapshot | `{wanted.snapshot}` |
| policy | `{record["policy"]}`, SHA-256 `{record["policy_sha256"]}` |
| inputs of the snapshot | {record["counts"]["input"]} |
| admitted to any stage | {record["counts"]["admitted"]} |
| tasks in this export | {", ".join(f"{task}: {count}" for task, count in exported.tasks.items())} |

Filters of stage {wanted.stage} at {wanted.bucket} pixels, in order:

| filter | rows entering | dropped | |
|---|---|---|---|
{_filters(exported, workspace)}

## Licences

As the sources state them; the pictures belong to their authors. A later export leaves out what was erased since.

| licence | rows |
|---|---|
{_rows(exported.licences)}

## Columns

| column | meaning |
|---|---|
| `image` | the picture, PNG or JPEG |
{_columns()}

`references` and `mask` of edits are stored beside the picture. `export.json` lists every file with its SHA-256;
`croissant.json` describes the data set for machines.
"""


def _front(exported: Exported) -> str:
    stated = [name for name in exported.licences if name != UNKNOWN]
    known = sorted({s.lower() for s in stated} & _HUB)
    licence = "unknown" if not stated else known[0] if len(exported.licences) == len(known) == 1 else "other"
    tasks = [{"t2i": "text-to-image", "ti2i": "image-to-image"}[task] for task in exported.tasks]
    size = next((name for most, name in _SIZES if exported.rows < most), _LARGER)
    lines = [f"license: {licence}", "task_categories:", *(f"- {task}" for task in tasks), f"size_categories:\n- {size}"]
    if exported.request.format in ("hf", "parquet"):
        lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: data/*.parquet"]
    return "\n".join(lines)


def _captions(exported: Exported) -> str:
    kind = exported.request.captions
    if kind == "condition":
        return "the text that the picture is trained with"
    return f"of kind {kind}; {exported.left_out} pictures without one are left out"


def _filters(exported: Exported, workspace: Workspace) -> str:
    wanted = exported.request
    rows = pq.read_table(readable(workspace.snapshot(wanted.snapshot, "funnel"))).to_pylist()
    mine = [r for r in rows if (r["stage"], r["bucket"]) == (wanted.stage, wanted.bucket)]
    return "\n".join(f"| {_cell(r['filter'])} | {r['entered']} | {r['dropped']} | {r['status']} |" for r in mine)


def _rows(counts: dict[str, int]) -> str:
    return "\n".join(f"| {_cell(name)} | {count} |" for name, count in counts.items())


def _columns() -> str:
    return "\n".join(f"| `{f.name}` | {_cell(f.metadata[b'doc'].decode())} |" for f in FIELDS)


def _cell(value: Any) -> str:
    """Text that cannot end its cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
