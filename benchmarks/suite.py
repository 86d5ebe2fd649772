"""Does a suite tell pictures that do what its prompts ask from pictures that do not?

Judges the true pictures that a pool's suite keeps, and every null made from them, by the suite's own checks, as
`flywheel evaluate pictures` does. Prints the share of prompts that pass, by task; the last line is JSON.

    python -m benchmarks.suite w            # a workspace after `flywheel run` with evaluation.suite = "pool"
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from flywheel.core.workspace import Workspace
from flywheel.signals import nulls
from flywheel.signals.judged_pictures import judge_folder
from flywheel.signals.nulls import Trial
from flywheel.signals.pinned import load_any


def pictures(trials: Sequence[Trial]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(name, {prompt id: picture}) of the true pictures and of every null."""
    yield "own", {t.prompt.prompt_id: t.picture for t in trials}
    edits = [t for t in trials if t.prompt.references]
    yield "unedited", {t.prompt.prompt_id: t.prompt.reference_bytes()[0] for t in edits}
    for task in ("t2i", "ti2i"):
        mine = [(n, t) for n, t in enumerate(trials) if t.prompt.task == task]
        others = {t.prompt.prompt_id: o[0].picture for n, t in mine if (o := nulls.others(trials, n))}
        yield "other_prompt" if task == "t2i" else "other_edit", others
    for name in nulls.DAMAGES:
        yield name, {t.prompt.prompt_id: nulls.damaged(name, t.picture) for t in trials}


def main(folder: str) -> None:
    """Print the table of one workspace."""
    path = Workspace(folder, create=False).suite
    suite = load_any(path)
    trials = [Trial(p, (path.parent / "pictures" / f"{p.prompt_id}.png").read_bytes()) for p in suite]
    result: dict[str, dict[str, str]] = {}
    for name, found in pictures(trials):
        verdicts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        with TemporaryDirectory() as scratch:
            for prompt_id, picture in found.items():
                Path(scratch, f"{prompt_id}.png").write_bytes(picture)
            for row in judge_folder([p for p in suite if p.prompt_id in found], Path(scratch)):
                if row["passed"] is not None:
                    family = row["prompt_id"].partition("-")[0]
                    verdicts[family][row["prompt_id"]].append(row["passed"])
        result[name] = {f: f"{sum(map(all, v.values()))}/{len(v)}" for f, v in sorted(verdicts.items())}
        print(f"{name:>14}  " + "  ".join(f"{f} {share}" for f, share in result[name].items()), flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
